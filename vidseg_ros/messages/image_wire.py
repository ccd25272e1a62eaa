"""sensor_msgs/Image and sensor_msgs/CompressedImage in their serialized form, as a raw subscription hands them over.

Making a message object of a camera image copies its megabytes, more than once. The views here leave the bytes where
they are, and what is published is written in one piece.

The form is plain CDR (OMG DDSI-RTPS 2.5, 10.2; CORBA 3.4 part 2, 9.3): two bytes that name the representation (0x0000
big-endian, 0x0001 little-endian), two of options, then the fields in their order, each 32-bit number at a multiple of
four. A string is its length with the closing NUL, its bytes in UTF-8, the NUL; a sequence of bytes is its length and
the bytes. The padding before a number may hold anything, and up to three bytes may follow the last field.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from vidseg_core.errors import VidsegError

if TYPE_CHECKING:  # importing it loads ROS, which only `header` needs
    from std_msgs.msg import Header

# What the pixels of an encoding take, in bytes. The writer refuses a picture that is something else.
BYTES_PER_PIXEL = {
    "mono8": 1,
    "8UC1": 1,
    "bayer_rggb8": 1,
    "bayer_bggr8": 1,
    "bayer_gbrg8": 1,
    "bayer_grbg8": 1,
    "yuv422": 2,
    "uyvy": 2,
    "yuv422_yuy2": 2,
    "yuyv": 2,
    "rgb8": 3,
    "bgr8": 3,
    "8UC3": 3,
    "rgba8": 4,
    "bgra8": 4,
    "8UC4": 4,
}

_BYTE_ORDER = {b"\x00\x00": ">", b"\x00\x01": "<"}
_LITTLE_ENDIAN = b"\x00\x01\x00\x00"
_ENCAPSULATION_BYTES = 4
_MOST_TRAILING_BYTES = 3
_STAMP = {order: struct.Struct(order + "iI") for order in "<>"}
_UINT32 = {order: struct.Struct(order + "I") for order in "<>"}


class WireError(VidsegError):
    """The bytes are not a message of the type, or its picture is not what its fields say.

    Attributes:
        unsupported: the bytes are in another representation than plain CDR, and rclpy may know it.
    """

    def __init__(self, message: str, *, unsupported: bool = False):
        super().__init__(message)
        self.unsupported = unsupported


@dataclass(frozen=True, eq=False)
class _Stamped:
    sec: int
    nanosec: int
    frame_id: str

    @property
    def stamp_ns(self) -> int:
        """Nanoseconds since the epoch of the sender's clock."""
        return self.sec * 1_000_000_000 + self.nanosec

    @cached_property
    def header(self) -> Header:
        """The header as std_msgs/Header; every call returns the same one."""
        from builtin_interfaces.msg import Time
        from std_msgs.msg import Header

        return Header(stamp=Time(sec=self.sec, nanosec=self.nanosec), frame_id=self.frame_id)


@dataclass(frozen=True, eq=False)
class ImageView(_Stamped):
    """A serialized sensor_msgs/Image: its fields, and its `data` in the buffer that was parsed (1-D, uint8, read-only).

    The fields are what the sender wrote; that they fit each other is known after `pixels()`.
    """

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: np.ndarray

    def pixels(self, bytes_per_pixel: int) -> np.ndarray:
        """H x W x bytes_per_pixel, uint8: a read-only view of the buffer, without the padding at the end of the rows.

        Raises:
            WireError: the image has no pixels, its rows are longer than its step, or its data are not its rows.
        """
        row_bytes = self.width * bytes_per_pixel
        if self.height == 0 or self.width == 0:
            raise WireError(f"expected an image with pixels, got {self.width} x {self.height}")
        if self.step < row_bytes:
            raise WireError(
                f"expected a step of at least {row_bytes} bytes for {self.width} pixels of {bytes_per_pixel} bytes, "
                f"got {self.step}"
            )
        if self.data.size != self.height * self.step:
            raise WireError(
                f"expected {self.height * self.step} bytes of data for {self.height} rows of {self.step} bytes, "
                f"got {self.data.size}"
            )
        rows = self.data.reshape(self.height, self.step)[:, :row_bytes]
        return rows.reshape(self.height, self.width, bytes_per_pixel)


@dataclass(frozen=True, eq=False)
class CompressedView(_Stamped):
    """A serialized sensor_msgs/CompressedImage: its fields, and its `data` in the buffer that was parsed (as above)."""

    format: str
    data: np.ndarray


def parse_image(buffer: bytes) -> ImageView:
    """The sensor_msgs/Image in its serialized bytes.

    Raises:
        WireError: the bytes are not such a message. With `unsupported` they may be one in another representation.
    """
    reader = _Reader(buffer)
    return ImageView(
        *reader.stamp(),
        frame_id=reader.string(),
        height=reader.uint32(),
        width=reader.uint32(),
        encoding=reader.string(),
        is_bigendian=reader.uint8(),
        step=reader.uint32(),
        data=reader.last_bytes(),
    )


def parse_compressed(buffer: bytes) -> CompressedView:
    """The sensor_msgs/CompressedImage in its serialized bytes.

    Raises:
        WireError: as for `parse_image`.
    """
    reader = _Reader(buffer)
    return CompressedView(*reader.stamp(), frame_id=reader.string(), format=reader.string(), data=reader.last_bytes())


def parse_header(buffer: bytes) -> tuple[int, str]:
    """Stamp (ns) and frame_id of a serialized message that begins with a header; the rest is not looked at.

    Raises:
        WireError: as for `parse_image`.
    """
    reader = _Reader(buffer)
    sec, nanosec = reader.stamp()
    return sec * 1_000_000_000 + nanosec, reader.string()


class _Reader:
    """Reads the fields of plain CDR in their order, and never beyond the end of the buffer.

    Offsets count from the start of the buffer; the encapsulation has four bytes, so alignment is the same from there.
    """

    def __init__(self, buffer: bytes):
        if len(buffer) < _ENCAPSULATION_BYTES:
            raise WireError(f"expected at least {_ENCAPSULATION_BYTES} bytes, got {len(buffer)}")
        order = _BYTE_ORDER.get(buffer[:2])
        if order is None:
            raise WireError(
                f"expected plain CDR (representation 0x0000 or 0x0001), got 0x{buffer[:2].hex()}", unsupported=True
            )
        self._buffer = buffer
        self._offset = _ENCAPSULATION_BYTES
        self._stamp = _STAMP[order]
        self._uint32 = _UINT32[order]

    def stamp(self) -> tuple[int, int]:
        """Seconds and nanoseconds."""
        return self._unpack(self._stamp)

    def uint32(self) -> int:
        self._offset += -self._offset % 4
        return self._unpack(self._uint32)[0]

    def uint8(self) -> int:
        start = self._advance(1)
        return self._buffer[start]

    def string(self) -> str:
        """As rclpy has it: it ends at the first NUL, and what is not UTF-8 in it is replaced."""
        length = self.uint32()
        start = self._advance(length)
        return self._buffer[start : start + length].partition(b"\0")[0].decode("utf-8", "replace")

    def last_bytes(self) -> np.ndarray:
        """A sequence of bytes that is the last field, 1-D, uint8: a view."""
        length = self.uint32()
        start = self._advance(length)
        trailing = len(self._buffer) - self._offset
        if trailing > _MOST_TRAILING_BYTES:
            raise WireError(f"expected at most {_MOST_TRAILING_BYTES} bytes after the message, got {trailing}")
        return np.frombuffer(self._buffer, np.uint8, length, start) if length else np.empty(0, np.uint8)

    def _unpack(self, form: struct.Struct) -> tuple:
        return form.unpack_from(self._buffer, self._advance(form.size))

    def _advance(self, num_bytes: int) -> int:
        """The offset of the next `num_bytes`, which are then behind."""
        start = self._offset
        if start + num_bytes > len(self._buffer):
            raise WireError(f"expected {num_bytes} bytes at offset {start}, the message ends at {len(self._buffer)}")
        self._offset = start + num_bytes
        return start


class ImageWriter:
    """Serializes sensor_msgs/Image for `publish()`, which takes serialized messages as `bytes` and as nothing else.

    What does not change from one image to the next is kept; stamp and pixels are joined to it in one copy. A writer may
    serve several topics and threads.
    """

    def __init__(self) -> None:
        self._fields: Callable[[str, int, int, str], bytes] = lru_cache(maxsize=8)(_fields_after_stamp)

    def serialise(self, header_of: Any, encoding: str, pixels: np.ndarray) -> bytes:
        """The message with the stamp and frame_id of another one, in plain little-endian CDR.

        Args:
            header_of: a view, or a message with a `header`, or a std_msgs/Header.
            encoding: a key of `BYTES_PER_PIXEL`.
            pixels: H x W or H x W x C, uint8, C-contiguous, with at least one pixel; C fits the encoding.

        Raises:
            ValueError: the encoding is none of these, or the pixels are not such an array.
        """
        header = getattr(header_of, "header", header_of)
        _check(pixels, encoding)
        height, width = pixels.shape[:2]
        stamp = _STAMP["<"].pack(header.stamp.sec, header.stamp.nanosec)
        return b"".join((_LITTLE_ENDIAN, stamp, self._fields(header.frame_id, height, width, encoding), pixels.data))


def _check(pixels: np.ndarray, encoding: str) -> None:
    bytes_per_pixel = BYTES_PER_PIXEL.get(encoding)
    if bytes_per_pixel is None:
        raise ValueError(f"expected an encoding of {', '.join(BYTES_PER_PIXEL)}, got {encoding!r}")
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    fits = pixels.ndim in (2, 3) and channels == bytes_per_pixel and pixels.size > 0
    if not fits or pixels.dtype != np.uint8 or not pixels.flags.c_contiguous:
        raise ValueError(
            f"expected contiguous uint8 pixels, H x W x {bytes_per_pixel}, for {encoding}, "
            f"got {'contiguous' if pixels.flags.c_contiguous else 'strided'} {pixels.dtype} of shape {pixels.shape}"
        )


def _fields_after_stamp(frame_id: str, height: int, width: int, encoding: str) -> bytes:
    """frame_id, height, width, encoding, is_bigendian, step and length of the data, from a multiple of four on."""
    step = width * BYTES_PER_PIXEL[encoding]
    return b"".join(
        (
            _padded(_string(frame_id)),
            struct.pack("<II", height, width),
            _padded(_string(encoding) + b"\0"),
            struct.pack("<II", step, height * step),
        )
    )


def _string(text: str) -> bytes:
    raw = text.encode() + b"\0"
    return struct.pack("<I", len(raw)) + raw


def _padded(fields: bytes) -> bytes:
    return fields + bytes(-len(fields) % 4)
