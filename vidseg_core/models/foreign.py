"""Networks of others, in whatever form: what is known of them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vidseg_core.models.study import Study

# By the end of the name, in words, and the module that studies it. Loaded when there is one.
_FILES = {".onnx": ("an ONNX file", "onnx"), ".pt2": ("an exported program", "exported")}
_DIRECTORY = "a Hugging Face directory", "hugging_face"


def form_of(path: Path) -> str | None:
    """Return the form of a network of others, in words; None for a file of weights."""
    form, _ = _DIRECTORY if path.is_dir() else _FILES.get(path.suffix, (None, None))
    return form


def study(path: Path) -> Study:
    """Find out what a network of others is.

    Raises:
        CheckpointError: it is damaged, or no per-frame segmentation network of pictures with three channels.
        ClassTableError: the class table of the card beside it is malformed.
    """
    _, module = _DIRECTORY if path.is_dir() else _FILES[path.suffix]
    return importlib.import_module(f"{__package__}.{module}").study(path)
