"""Files beside networks of others, with the results of `vidseg weights calibrate`.

`NAME.accuracy.json` holds the accuracies to expect, `NAME.ranges.json` the activation ranges of an ONNX file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from vidseg_core.errors import CheckpointError
from vidseg_core.models.accuracy import Accuracy
from vidseg_core.models.registry import is_ranges

T = TypeVar("T")
Ranges = dict[str, tuple[float, float]]


def accuracy_path(weights: Path) -> Path:
    """Return the place of the accuracies of the network in `weights`, a file or a directory."""
    return _beside(weights, ".accuracy.json")


def ranges_path(weights: Path) -> Path:
    """Return the place of the activation ranges of the network in `weights`, a file."""
    return _beside(weights, ".ranges.json")


def write_accuracy(path: Path, checksum: str, accuracy: Accuracy, about: Mapping[str, Any]) -> None:
    """Write what to expect of the network with that SHA-256; `about` says how it was measured, JSON-safe."""
    _write(path, checksum, about, {"accuracy": accuracy.to_dict()})


def write_ranges(
    path: Path, checksum: str, ranges: Mapping[str, tuple[float, float]], about: Mapping[str, Any]
) -> None:
    """Write the ranges of the network with that SHA-256; `about` says how they were measured, JSON-safe."""
    _write(path, checksum, about, {"activation_ranges": {name: list(one) for name, one in ranges.items()}})


def read_accuracy(weights: Path, checksum: str) -> Accuracy | None:
    """Read the accuracies beside a network's file or directory; None where there are none.

    Args:
        checksum: SHA-256 of the network.

    Raises:
        CheckpointError: the file is damaged, or of another network.
    """
    return _read(accuracy_path(weights), weights, checksum, "accuracy", Accuracy.from_dict, " --ladder")


def read_ranges(weights: Path, checksum: str) -> Ranges | None:
    """Read the ranges beside a network's file; None where there are none.

    Args:
        checksum: SHA-256 of the network.

    Raises:
        CheckpointError: the file is damaged, or of another network.
    """
    return _read(ranges_path(weights), weights, checksum, "activation_ranges", _ranges, " --data")


def _beside(weights: Path, suffix: str) -> Path:
    return weights.with_name(f"{weights.name if weights.is_dir() else weights.stem}{suffix}")


def _write(path: Path, checksum: str, about: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    from vidseg_core.data.writers import write_json  # loads codecs, which whoever only reads does not need

    write_json(path, {"sha256": checksum, **about, **content})


def _read(path: Path, weights: Path, checksum: str, key: str, parse: Callable[[Any], T], option: str) -> T | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        content = parse(found.get(key) if isinstance(found, dict) else None)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: expected JSON with {key}: {error}") from error
    if found.get("sha256") != checksum:
        raise CheckpointError(
            f"{path}: was measured with another network than {weights.name}; remove the file, and measure anew by "
            f"`vidseg weights calibrate{option}`"
        )
    return content


def _ranges(value: Any) -> Ranges:
    if not is_ranges(value):
        raise CheckpointError("activation_ranges: expected two numbers for names of its convolutions")
    return {name: (low, high) for name, (low, high) in value.items()}
