"""Temporary files that recordings need to be read: made once for a recording, removed when another one has its turn."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

import zstandard

from vidseg_core.data.recordings.recording import tell_once, warn_once
from vidseg_core.errors import SourceError

FREE_BYTES = 256 * 2**20
"""What is left free where temporary files are."""

_PIECE_BYTES = 2**20
_CHECKED_BYTES = 64 * _PIECE_BYTES


class Scratch:
    """A file in a temporary folder, which is removed with this object, at the latest when the process ends.

    Attributes:
        path: of the file.
    """

    def __init__(self) -> None:
        folder = tempfile.mkdtemp(prefix="vidseg_")
        self.path = Path(folder)
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)


# Whoever reads from it keeps it; besides, those of the recording that was opened last are kept, as one command opens a
# recording several times.
_made: weakref.WeakValueDictionary[tuple, Scratch] = weakref.WeakValueDictionary()
_kept: dict[Path, list[Scratch]] = {}


def keep_for(recording: Path) -> None:
    """Keep what is made from now on for this recording, and no longer what was made for another."""
    if recording not in _kept:
        _kept.clear()
        _kept[recording] = []


def copied(files: list[Path], then: Callable[[Path], None], why: str) -> Scratch:
    """Copy files that belong together into a temporary folder; the first is its file.

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


def decompressed(file: Path) -> Scratch:
    """Decompress a file that Zstandard compressed into a temporary folder.

    Of a file that is cut off or damaged, what comes before is there, with a warning.

    Raises:
        SourceError: there is no room, or it cannot be read.
    """
    why = f"{file}: decompressing it"

    def make(folder: Path) -> Path:
        target = folder / (file.stem or "recording")
        tell_once(f"{file}: decompressing it to {target}")
        written = 0
        with file.open("rb") as stored, target.open("wb") as out:
            reader = zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True)
            try:
                while piece := reader.read(_PIECE_BYTES):
                    if written % _CHECKED_BYTES < _PIECE_BYTES:
                        _check_room(folder, len(piece), why)
                    written += out.write(piece)
            except zstandard.ZstdError as error:
                warn_once(f"{file}: damaged, decompressed are the first {written} bytes: {error}")
        return target

    return _once([file], make, why)


def _once(files: list[Path], make: Callable[[Path], Path], why: str) -> Scratch:
    """Make it, unless it is there, made of these very files in this process."""
    try:
        key = (os.getpid(), *((str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in files))
        scratch = _made.get(key)
        if scratch is None:
            scratch = Scratch()
            scratch.path = make(scratch.path)
            _made[key] = scratch
    except OSError as error:
        raise SourceError(f"{why}: {error.strerror or error}") from error
    for kept in _kept.values():
        kept.append(scratch)
    return scratch


def _check_room(folder: Path, size: int, why: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + FREE_BYTES:
        raise SourceError(
            f"{why}: {size} bytes more are needed in {folder.parent}, where {free} are free; "
            "TMPDIR names another place, or decompress or merge it beforehand"
        )
