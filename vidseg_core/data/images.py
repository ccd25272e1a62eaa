"""Image files: RGB of cameras, ids of labels. A file that is only half there is an error, not grey rows."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from vidseg_core.errors import VidsegError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG", b"IEND"
_PNG_HEAD = len(b"\x89PNG\r\n\x1a\n")
_GREY, _PALETTE = 0, 3
# OpenCV's own choice is run-length coding, the fastest; a level, even 1, would take two to three times as long. Labels
# become half as large by what differs from the row above (OpenCV before 4.12 knows no such option).
_LABELS_AS = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP] if hasattr(cv2, "IMWRITE_PNG_FILTER") else []


def list_images(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[Path]:
    """The image files of a folder (not of its sub-folders) in natural order: `f2.png` before `f10.png`."""
    files = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    return sorted(files, key=natural_key)


def natural_key(path: Path) -> tuple:
    """Sort key under which numbers inside a name count as numbers."""
    parts = re.split(r"(\d+)", path.name)
    return tuple((int(part), part) if i % 2 else part for i, part in enumerate(parts))


def encode_png(image: np.ndarray) -> bytes:
    """Encode an image as a PNG file, lossless, in the fastest way that is also small.

    Args:
        image: labels, H x W, or RGB, H x W x 3; uint8.

    Raises:
        ValueError: it is too large for a PNG file.
    """
    is_labels = image.ndim == 2
    shown = image if is_labels else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", shown, _LABELS_AS if is_labels else [])
    if not done:
        raise ValueError(f"expected an image that a PNG file can hold, got {image.shape[1]} x {image.shape[0]}")
    return data.tobytes()


def read_rgb(path: Path, error: type[VidsegError]) -> np.ndarray:
    """H x W x 3, uint8, RGB. Grey images become three equal channels, alpha is dropped, 16 bits become 8.

    Raises:
        error: the file is missing, cut short or not an image.
    """
    return decode_rgb(_read_bytes(path, error), path, error)


def read_label_image(path: Path, error: type[VidsegError]) -> np.ndarray:
    """Read a label file as it is stored: ids, H x W, or colours, H x W x 3 RGB; uint8.

    Ids are the values of one channel, also of 1, 2, 4 and 16 bits, or the indices of a palette.

    Raises:
        error: the file is missing, cut short, not an image, or a JPEG, which keeps neither ids nor colours; ids of 16
            bits do not fit into 8; or pixels are transparent.
    """
    data = _read_bytes(path, error)
    if data.startswith(_JPEG_START):
        raise error(f"{path}: expected label ids as PNG, got a JPEG image, whose compression changes them")
    bits = 8
    if data.startswith(_PNG_START) and len(data) >= 33 and not _is_cut_short(data) and data[25] in (_GREY, _PALETTE):
        bits, data = data[24], _as_grey(data)
    stored = _decode(data, cv2.IMREAD_UNCHANGED, path, error)
    if stored.ndim == 3:
        return _opaque_rgb(stored, path, error)
    if stored.dtype != np.uint8:
        if stored.dtype != np.uint16 or stored.max() > 255:
            raise error(f"{path}: expected label ids of 0 to 255, got {stored.dtype} up to {stored.max()}")
        return stored.astype(np.uint8)
    return stored // (255 // ((1 << bits) - 1)) if bits < 8 else stored  # the decoder spreads few bits over 0..255


def _opaque_rgb(stored: np.ndarray, path: Path, error: type[VidsegError]) -> np.ndarray:
    if stored.dtype != np.uint8:
        raise error(f"{path}: expected label colours of 8 bits, got {stored.dtype}")
    if stored.shape[2] == 4:
        transparent = np.count_nonzero(stored[..., 3] != 255) / stored[..., 3].size
        if transparent:
            raise error(
                f"{path}: expected labels without transparency, {100 * transparent:.3g} % of the pixels have it"
            )
    return np.ascontiguousarray(stored[..., 2::-1])


def stored_size(path: Path) -> tuple[int, int] | None:
    """Return (H, W) of an image as stored, before its EXIF orientation turns it; None if it cannot be read."""
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flags)
    except (OSError, cv2.error):
        return None
    return None if image is None else (image.shape[0], image.shape[1])


def _as_grey(png: bytes) -> bytes:
    """The file with its palette taken away, since OpenCV would put colours in the place of indices."""
    kept, place = [png[:_PNG_HEAD]], _PNG_HEAD
    while place + 12 <= len(png):
        (size,), kind = struct.unpack_from(">I", png, place), png[place + 4 : place + 8]
        chunk, place = png[place : place + size + 12], place + size + 12
        if kind == b"IHDR":
            content = kind + chunk[8:17] + bytes([_GREY]) + chunk[18:21]
            chunk = chunk[:4] + content + struct.pack(">I", zlib.crc32(content))
        if kind in (b"IHDR", b"IDAT", b"IEND"):
            kept.append(chunk)
    return b"".join(kept)


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
