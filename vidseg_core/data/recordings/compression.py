"""Decompress what recordings hold; nothing grows beyond a bound, whatever a damaged header claims."""

from __future__ import annotations

import bz2
from collections.abc import Callable

import lz4.frame
import zstandard

from vidseg_core.data.recordings.recording import DamageError

MOST_BYTES = 256 * 2**20
"""No chunk and no message of a recording may be larger: an image of 8192 x 8192 pixels, rgb8, takes 192 MiB."""

_PIECE_BYTES = 2**20
_LONGEST_NAME = 20  # in messages

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def decompress(compression: str, data: bytes | memoryview, size: int) -> bytes:
    """Decompress `data`, which must give `size` bytes.

    Args:
        compression: `zstd`, `lz4` (its frame format), `bz2`.
        data: compressed.
        size: in bytes, of what is to come out.

    Raises:
        DamageError: it is more than `MOST_BYTES`, something else comes out, or the compression is unknown.
    """
    check_size(size)
    if compression not in _DECOMPRESS:
        raise DamageError(f"compression {compression[:_LONGEST_NAME]!r} is none of {', '.join(_DECOMPRESS)}")
    try:
        found = _DECOMPRESS[compression](data, size)
    except (zstandard.ZstdError, RuntimeError, OSError, ValueError, EOFError, MemoryError) as error:
        raise DamageError(f"{compression}: {error}") from error
    if len(found) != size:
        raise DamageError(f"{compression}: expected {size} bytes, got {len(found)}")
    return found


def decompress_start(compression: str, data: bytes | memoryview, size: int) -> bytes:
    """Decompress the start of what is cut off: at most `size` bytes, and as far as `data` reach.

    Raises:
        DamageError: as for `decompress`.
    """
    check_size(size)
    found = bytearray()
    try:
        if compression == "zstd":
            with zstandard.ZstdDecompressor().stream_reader(data) as reader:
                while len(found) < size and (piece := reader.read(min(_PIECE_BYTES, size - len(found)))):
                    found += piece
        elif compression in _DECOMPRESS:
            found += _DECOMPRESS[compression](data, size)
        else:
            raise DamageError(f"compression {compression[:_LONGEST_NAME]!r} is none of {', '.join(_DECOMPRESS)}")
    except (zstandard.ZstdError, RuntimeError, OSError, ValueError, EOFError, MemoryError):
        pass  # what came before counts
    return bytes(found)


def check_size(size: int) -> None:
    """Refuse a size in bytes that no part of a recording has.

    Raises:
        DamageError: it is more than `MOST_BYTES`.
    """
    if size > MOST_BYTES:
        raise DamageError(f"{size} bytes are announced, expected at most {MOST_BYTES}")


def decompress_message(data: bytes | memoryview) -> bytes | memoryview:
    """Decompress a CDR message of a recorder that compressed each by itself; return any other as it is.

    CDR begins with a zero byte, so that one compressed by Zstandard is known by its first four. What cannot be
    decompressed is returned as it is, too, and refused by whoever reads CDR.
    """
    if data[:4] != ZSTD_MAGIC:
        return data
    try:
        size = zstandard.frame_content_size(data)
        if size < 0:  # not said
            return zstandard.ZstdDecompressor().decompress(data, max_output_size=MOST_BYTES)
        return decompress("zstd", data, size)
    except (DamageError, zstandard.ZstdError):
        return data


def _zstd(data: bytes | memoryview, size: int) -> bytes:
    claimed = zstandard.frame_content_size(data)
    if claimed > size:  # the library would allocate as much
        raise DamageError(f"zstd: expected {size} bytes, the frame announces {claimed}")
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=max(size, 1))


def _lz4(data: bytes | memoryview, size: int) -> bytes:
    return lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=size + 1)


def _bz2(data: bytes | memoryview, size: int) -> bytes:
    return bz2.BZ2Decompressor().decompress(data, max_length=size + 1)


_DECOMPRESS: dict[str, Callable[[bytes | memoryview, int], bytes]] = {"zstd": _zstd, "lz4": _lz4, "bz2": _bz2}
