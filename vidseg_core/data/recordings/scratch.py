"""Temporary files that recordings need to be read: made once in a process, removed when it ends."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import zstandard

from vidseg_core.data.recordings.recording import tell_once, warn_once
from vidseg_core.errors import SourceError

FREE_BYTES = 256 * 2**20
"""What is left free where temporary files are."""

_PIECE_BYTES = 2**20
_made: dict[tuple, Path] = {}
_folders: list[tempfile.TemporaryDirectory] = []


def copied(files: list[Path], then: Callable[[Path], None], why: str) -> Path:
    """Copy files that belong together into a temporary folder; the path of the first.

    Args:
        files: to be copied under their names.
        then: is called with the first, once.
        why: begins the message of an error.

    Raises:
        SourceError: there is no room, or they cannot be read.
    """

    def make(folder: Path) -> Path:
        _check_room(folder, sum(file.stat().st_size for file in files), why)
        for file in files:
            shutil.copyfile(file, folder / file.name)
        then(folder / files[0].name)
        return folder / files[0].name

    return _once(files, make, why)


def decompressed(file: Path) -> Path:
    """Decompress a file that Zstandard compressed into a temporary folder; its path there.

    Of a file that is cut off or damaged, what comes before is there, with a warning.

    Raises:
        SourceError: there is no room, or it cannot be read.
    """

    def make(folder: Path) -> Path:
        target = folder / (file.stem or "recording")
        tell_once(f"{file}: decompressing it to {target}")
        with file.open("rb") as stored, target.open("wb") as out:
            reader = zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True)
            written = 0
            try:
                while piece := reader.read(_PIECE_BYTES):
                    if written % (64 * _PIECE_BYTES) < _PIECE_BYTES:
                        _check_room(folder, len(piece), f"{file}: decompressing it")
                    written += out.write(piece)
            except zstandard.ZstdError as error:
                warn_once(f"{file}: damaged, decompressed are the first {written} bytes: {error}")
        return target

    return _once([file], make, f"{file}: decompressing it")


def _once(files: list[Path], make: Callable[[Path], Path], why: str) -> Path:
    """Make it, unless it was made of these very files before, in this process."""
    try:
        key = (os.getpid(), *((str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in files))
        if key not in _made:
            folder = tempfile.TemporaryDirectory(prefix="vidseg_")
            _folders.append(folder)
            _made[key] = make(Path(folder.name))
    except OSError as error:
        raise SourceError(f"{why}: {error.strerror or error}") from error
    return _made[key]


def _check_room(folder: Path, size: int, why: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + FREE_BYTES:
        raise SourceError(
            f"{why}: {size} bytes more are needed in {folder.parent}, where {free} are free; "
            "TMPDIR names another place, or decompress or merge it beforehand"
        )
