"""The structure of video files whose stated duration says too little about where they end.

AVI counts frames that are dropped (empty chunks) among its frames, WMV and FLV do not store how long the last frame is
shown. Their structure says how long the file has to be.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_FILE_SIZE = 40  # bytes after the beginning of the file properties
_LONGEST_HEADER = 1 << 20
_FLV_TAGS = 8, 9, 18  # audio, video, script
_FLV_TAG_HEAD = 11


def is_whole(path: Path, form: str) -> bool | None:
    """Tell if a video file has all the bytes that it should have.

    Args:
        path: of the file.
        form: FFmpeg's name of the format.

    Returns:
        None where the file does not say: in other formats, or if its recorder did not come to its end.
    """
    check = _CHECKS.get(form)
    if check is None:
        return None
    with path.open("rb") as file:
        return check(file, path.stat().st_size)


def _avi_is_whole(file: BinaryIO, size: int) -> bool | None:
    """Follow the RIFF chunks: one, or several in a file of more than about 1 GB."""
    place = 0
    while (head := file.read(8))[:4] == b"RIFF":
        length = int.from_bytes(head[4:], "little")
        place += len(head) + length + length % 2
        file.seek(place)
        if length == 0:
            return None
        if place > size + 1:  # the last byte of padding may be left out
            return False
    return True if place else None


def _asf_is_whole(file: BinaryIO, size: int) -> bool | None:
    header = file.read(_LONGEST_HEADER)
    place = header.find(_ASF_FILE_PROPERTIES)
    if not header.startswith(_ASF_HEADER) or place < 0:
        return None
    stated = int.from_bytes(header[place + _ASF_FILE_SIZE :][:8], "little")
    return stated <= size if stated else None


def _flv_is_whole(file: BinaryIO, size: int) -> bool | None:
    """Each tag is followed by its length; where that does not fit the last one, something may have been appended."""
    file.seek(max(size - 4, 0))
    length = int.from_bytes(file.read(4), "big")
    if not _FLV_TAG_HEAD <= length <= size - 4:
        return None
    file.seek(size - 4 - length)
    head = file.read(4)
    return True if head[0] in _FLV_TAGS and int.from_bytes(head[1:], "big") == length - _FLV_TAG_HEAD else None


_CHECKS: dict[str, Callable[[BinaryIO, int], bool | None]] = {
    "avi": _avi_is_whole,
    "asf": _asf_is_whole,
    "flv": _flv_is_whole,
}
