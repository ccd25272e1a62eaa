"""Expected accuracies beside a network of others, as `NAME.accuracy.json`: measured by `weights calibrate --ladder`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidseg_core.errors import CheckpointError
from vidseg_core.models.accuracy import Accuracy

SUFFIX = ".accuracy.json"


def accuracy_path(weights: Path) -> Path:
    """Return the place of the file for the network in `weights`, a file or a directory."""
    return weights.with_name(f"{weights.name if weights.is_dir() else weights.stem}{SUFFIX}")


def write_accuracy(path: Path, checksum: str, accuracy: Accuracy, about: Mapping[str, Any]) -> None:
    """Write what to expect of the network with that SHA-256; `about` says how it was measured, JSON-safe."""
    from vidseg_core.data.writers import write_json  # loads codecs, which whoever only reads does not need

    write_json(path, {"sha256": checksum, **about, "accuracy": accuracy.to_dict()})


def read_accuracy(weights: Path, checksum: str) -> Accuracy | None:
    """Read the accuracies beside a network's file or directory; None where there are none.

    Args:
        checksum: SHA-256 of the network.

    Raises:
        CheckpointError: the file is damaged, or of another network.
    """
    path = accuracy_path(weights)
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        accuracy = Accuracy.from_dict(found.get("accuracy") if isinstance(found, dict) else None)
    except (ValueError, CheckpointError) as error:
        raise CheckpointError(f"{path}: expected JSON with expected accuracies: {error}") from error
    if found.get("sha256") != checksum:
        raise CheckpointError(
            f"{path}: was measured with another network than {weights.name}; remove the file, and measure "
            "anew by `vidseg weights calibrate --ladder`"
        )
    return accuracy
