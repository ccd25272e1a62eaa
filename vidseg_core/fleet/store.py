"""Results of segments on disk, each in a file named by its address: there as a whole or not at all."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np

from vidseg_core.errors import SourceError

META = "meta"


class Store:
    """A folder of results; several processes and machines may write into it at the same time.

    Args:
        folder: is made with the first result.
    """

    def __init__(self, folder: str | Path):
        self._folder = Path(folder)

    def path(self, address: str) -> Path:
        """Return where the result of that address is or would be."""
        return self._folder / address[:2] / f"{address}.npz"

    def has(self, address: str) -> bool:
        """Tell if there is a result of that address."""
        return self.path(address).is_file()

    def save(self, address: str, meta: dict, arrays: dict[str, np.ndarray]) -> None:
        """Write a result; it is on the disk when this returns.

        Args:
            address: that it gets.
            meta: JSON-safe.
            arrays: by name, without objects.

        Raises:
            OSError: it cannot be written.
        """
        path = self.path(address)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{address}.{os.getpid()}.part")
        packed = np.frombuffer(json.dumps(meta, allow_nan=False).encode(), np.uint8)
        try:
            with part.open("wb") as file:
                np.savez_compressed(file, **{META: packed}, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(path)) from error

    def load(self, address: str) -> tuple[dict, dict[str, np.ndarray]]:
        """Read a result: what was given to `save`.

        Raises:
            SourceError: it is not there, or damaged.
        """
        path = self.path(address)
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            return json.loads(arrays.pop(META).tobytes()), arrays
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise SourceError(
                f"{path}: expected the result of a segment: {error}; remove it to compute it anew"
            ) from error

    def remove(self, address: str) -> None:
        """Remove a result, if it is there."""
        self.path(address).unlink(missing_ok=True)
