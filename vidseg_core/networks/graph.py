"""A network in an ONNX file, made by others: executed by backends that read such files, never by PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn


class Graph(nn.Module):
    """One picture in, one map out, of a graph in a file.

    Called through a backend it is a function of B x 3 x h x w, float32, to B x C x h' x w', float32, whatever order of
    dimensions and type of numbers the graph itself has.

    Args:
        path: of the .onnx file.
        checksum: SHA-256 of the file and of the files with its data, hexadecimal.
        input: name of its input.
        input_layout: nchw or nhwc.
        output: name of the tensor that is taken.
        cut: whether that is in the middle of the graph, not one of its outputs.
        output_layout: nchw, nhwc or nhw (no channels).
        num_classes: classes of the scores that are made of its output.

    Attributes:
        backends: names of those that have run it; empty while none was tried.
        problems: what others said, by their names.
    """

    def __init__(
        self,
        path: Path,
        checksum: str,
        *,
        input: str,
        input_layout: str,
        output: str,
        output_layout: str,
        cut: bool,
        num_classes: int,
    ):
        super().__init__()
        self.path = path
        self.checksum = checksum
        self.input = input
        self.input_layout = input_layout
        self.output = output
        self.output_layout = output_layout
        self.cut = cut
        self.num_classes = num_classes
        self.backends: tuple[str, ...] = ()
        self.problems: Mapping[str, str] = {}

    def describe(self) -> dict[str, Any]:
        """Describe it, JSON-safe; see `of`."""
        names = ("checksum", "input", "input_layout", "output", "output_layout", "cut", "num_classes")
        return {"path": str(self.path.absolute())} | {name: getattr(self, name) for name in names}

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Graph:
        """Make the graph that `describe` has described."""
        given = dict(description)
        return cls(Path(given.pop("path")), given.pop("checksum"), **given)

    def forward(self, image: Tensor) -> Tensor:
        """Raise NotImplementedError: PyTorch does not read ONNX files."""
        raise NotImplementedError(f"{self.path}: expected a backend that reads ONNX files, was called by PyTorch")
