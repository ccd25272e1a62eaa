"""Activation ranges beside an ONNX file, as `NAME.ranges.json`: what `vidseg weights calibrate` has measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidseg_core.data.writers import write_json
from vidseg_core.errors import CheckpointError
from vidseg_core.models.registry import is_ranges

SUFFIX = ".ranges.json"


def ranges_path(weights: Path) -> Path:
    """Return the place of the file for the network in `weights`."""
    return weights.with_suffix(SUFFIX)


def write_ranges(
    path: Path, checksum: str, ranges: Mapping[str, tuple[float, float]], about: Mapping[str, Any]
) -> None:
    """Write the ranges of the network with that SHA-256; `about` says how they were measured, JSON-safe."""
    write_json(
        path, {"sha256": checksum, **about, "activation_ranges": {name: list(one) for name, one in ranges.items()}}
    )


def read_ranges(weights: Path, checksum: str) -> dict[str, tuple[float, float]] | None:
    """Read the ranges beside a network's file; None where there are none.

    Args:
        checksum: SHA-256 of the network.

    Raises:
        CheckpointError: the file is damaged, or of another network.
    """
    path = ranges_path(weights)
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: expected JSON with activation ranges: {error}") from error
    ranges: Any = found.get("activation_ranges") if isinstance(found, dict) else None
    if not is_ranges(ranges):
        raise CheckpointError(f"{path}: activation_ranges: expected two numbers for names of its convolutions")
    if found.get("sha256") != checksum:
        raise CheckpointError(
            f"{path}: was measured with another network than {weights.name}; `vidseg weights calibrate` it anew, or "
            "remove the file"
        )
    return {name: (low, high) for name, (low, high) in ranges.items()}
