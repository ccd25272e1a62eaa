"""Reading image files: RGB of cameras, ids of labels. A file that is only half there is an error, not grey rows."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from vidseg_core.errors import VidsegError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG", b"IEND"


def list_images(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[Path]:
    """The image files of a folder (not of its sub-folders) in natural order: `f2.png` before `f10.png`."""
    files = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    return sorted(files, key=natural_key)


def natural_key(path: Path) -> tuple:
    """Sort key under which numbers inside a name count as numbers."""
    parts = re.split(r"(\d+)", path.name)
    return tuple((int(part), part) if i % 2 else part for i, part in enumerate(parts))


def read_rgb(path: Path, error: type[VidsegError]) -> np.ndarray:
    """H x W x 3, uint8, RGB. Grey images become three equal channels, alpha is dropped, 16 bits become 8.

    Raises:
        error: the file is missing, cut short or not an image.
    """
    return decode_rgb(_read_bytes(path, error), path, error)


def read_unchanged(path: Path, error: type[VidsegError]) -> np.ndarray:
    """The file's own channels and depth, as labels need them.

    Raises:
        error: the file is missing, cut short or not an image.
    """
    return _decode(_read_bytes(path, error), cv2.IMREAD_UNCHANGED, path, error)


def decode_rgb(data: bytes | memoryview | np.ndarray, where: str | Path, error: type[VidsegError]) -> np.ndarray:
    """H x W x 3, uint8, RGB: the image in the bytes of a PNG, JPEG, BMP or WebP file. `where` names it in messages.

    Raises:
        error: it is cut short or not an image.
    """
    return cv2.cvtColor(_decode(bytes(data), cv2.IMREAD_COLOR, where, error), cv2.COLOR_BGR2RGB)


def _read_bytes(path: Path, error: type[VidsegError]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as cause:
        raise error(f"{path}: cannot be read: {cause.strerror}") from cause


def _decode(data: bytes, flags: int, where: str | Path, error: type[VidsegError]) -> np.ndarray:
    if _is_cut_short(data):
        raise error(f"{where}: the image is cut short ({len(data)} bytes)")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as cause:
        raise error(f"{where}: not an image that can be decoded ({len(data)} bytes)") from cause
    if image is None:
        raise error(f"{where}: not an image that can be decoded ({len(data)} bytes)")
    return image


def _is_cut_short(data: bytes) -> bool:
    """Decoders (OpenCV 4's for JPEG) may fill the missing end of an image with grey and call that success."""
    if data.startswith(_PNG_START):
        return _PNG_END not in data[-4096:]
    if data.startswith(_JPEG_START):  # an embedded preview has an end of its own, before the last scan
        return data.rfind(_JPEG_END) < data.rfind(_JPEG_SCAN)
    return not data
