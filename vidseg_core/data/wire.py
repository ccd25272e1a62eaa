"""Messages with pictures in their serialized form, without ROS.

These are sensor_msgs/Image and sensor_msgs/CompressedImage, packets of compressed video
(ffmpeg_image_transport_msgs/FFMPEGPacket and foxglove_msgs/CompressedVideo), and sensor_msgs/PointCloud2.

Making a message object of a camera image copies its megabytes, more than once. The views here leave the bytes where
they are, and what is published is written in one piece.

ROS 2 writes plain CDR (OMG DDSI-RTPS 2.5, 10.2; CORBA 3.4 part 2, 9.3): two bytes that name the representation (0x0000
big-endian, 0x0001 little-endian), two of options, then the fields in their order, each number of 32 bits at a multiple
of four and each of 64 bits at one of eight bytes, counted from the first field. A string is its length with the closing
NUL, its bytes in UTF-8, the NUL; a sequence of bytes is its length and the bytes. The padding before a number may hold
anything, and up to three bytes may follow the last field.

ROS 1 (wiki.ros.org/msg) writes the same fields in little-endian order without encapsulation, padding or closing NUL,
and each header begins with a number `seq`, which is passed over. What begins with a mere stamp has none.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

from vidseg_core.errors import VidsegError

CDR, ROS1 = "cdr", "ros1"
"""The forms of serialization that are read, under MCAP's names for them."""

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

# Channels of a picture of real numbers, such as the probability of each class.
_FLOATS = re.compile(r"32FC([1-9]\d{0,2})")

_BYTE_ORDER = {b"\x00\x00": ">", b"\x00\x01": "<"}
# DDS-XTypes 1.3, 7.6.3.1.2, and the names that vendors use.
_OTHER_REPRESENTATIONS = {
    0x0002: "parameter lists of XCDR1",
    0x0003: "parameter lists of XCDR1",
    **dict.fromkeys(range(0x0006, 0x000C), "XCDR2"),
}
_LITTLE_ENDIAN = b"\x00\x01\x00\x00"
_ENCAPSULATION_BYTES = 4
_MOST_TRAILING_BYTES = 3
_MOST_FIELDS = 1024
_LONGEST_NAME = 40
_STAMP = {order: struct.Struct(order + "iI") for order in "<>"}
_ROS1_STAMP = struct.Struct("<II")
_UINT32 = {order: struct.Struct(order + "I") for order in "<>"}
_UINT64 = {order: struct.Struct(order + "Q") for order in "<>"}


class WireError(VidsegError):
    """The bytes are not a message of the type, or its picture is not what its fields say.

    Attributes:
        unsupported: the bytes are in another representation than plain CDR, and rclpy may know it.
    """

    def __init__(self, message: str, *, unsupported: bool = False):
        super().__init__(message)
        self.unsupported = unsupported


class StampLike(Protocol):
    """A builtin_interfaces/Time, or a `Stamp`."""

    @property
    def sec(self) -> int: ...

    @property
    def nanosec(self) -> int: ...


class HeaderLike(Protocol):
    """A std_msgs/Header, or a view of a message that begins with one."""

    @property
    def stamp(self) -> StampLike: ...

    @property
    def frame_id(self) -> str: ...


class Stamp(NamedTuple):
    """Time of the sender's clock: seconds since its epoch, and nanoseconds."""

    sec: int
    nanosec: int


@dataclass(frozen=True, eq=False)
class Stamped:
    """Header of a serialized message."""

    stamp: Stamp
    frame_id: str

    @property
    def stamp_ns(self) -> int:
        """Nanoseconds since the epoch of the sender's clock."""
        return self.stamp.sec * 1_000_000_000 + self.stamp.nanosec


@dataclass(frozen=True, eq=False)
class ImageView(Stamped):
    """Serialized sensor_msgs/Image: its fields, and its `data` in the buffer that was parsed (1-D, uint8, read-only).

    The fields are what the sender wrote; that they fit each other is known after `pixels()`.
    """

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: np.ndarray

    def pixels(self, bytes_per_pixel: int) -> np.ndarray:
        """View the buffer without the padding at the end of the rows: H x W x bytes_per_pixel, uint8, read-only.

        Raises:
            WireError: as for `rows`.
        """
        return self.rows(self.height, self.step, self.width * bytes_per_pixel).reshape(
            self.height, self.width, bytes_per_pixel
        )

    def rows(self, count: int, step: int, row_bytes: int) -> np.ndarray:
        """View the first `row_bytes` of each of `count` rows, `step` bytes apart: count x row_bytes, uint8, read-only.

        What follows the last row is not looked at: some drivers send the whole of a larger buffer.

        Raises:
            WireError: the image has no pixels, its rows are longer than the step, or there are fewer data.
        """
        size = f"{self.width} x {self.height} pixels of {self.encoding[:_LONGEST_NAME]}"
        if self.height == 0 or self.width == 0:
            raise WireError(f"expected an image with pixels, got {self.width} x {self.height}")
        if step < row_bytes:
            raise WireError(f"expected a step of at least {row_bytes} bytes for {size}, got {step}")
        if self.data.size < count * step:
            raise WireError(
                f"expected at least {count * step} bytes of data for {size}, {count} rows of {step} bytes, "
                f"got {self.data.size}"
            )
        return self.data[: count * step].reshape(count, step)[:, :row_bytes]


@dataclass(frozen=True, eq=False)
class CompressedView(Stamped):
    """Serialized sensor_msgs/CompressedImage: its fields, and its `data` in the buffer that was parsed (as above)."""

    format: str
    data: np.ndarray


@dataclass(frozen=True, eq=False)
class PacketView(Stamped):
    """Serialized packet of compressed video: what it is coded in, and its `data` in the buffer (as above).

    Attributes:
        format: of foxglove_msgs/CompressedVideo its `format`, of FFMPEGPacket its `encoding`.
    """

    format: str
    data: np.ndarray


@dataclass(frozen=True)
class PointField:
    """A sensor_msgs/PointField.

    Attributes:
        name: `x`, `rgb`, ...
        offset: bytes from the beginning of a point.
        datatype: a key of `POINT_TYPES`.
        count: of elements.
    """

    name: str
    offset: int
    datatype: int
    count: int = 1


POINT_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
"""NumPy's names for the types of numbers of a PointField."""


@dataclass(frozen=True, eq=False)
class PointCloudView(Stamped):
    """Serialized sensor_msgs/PointCloud2: its fields, and its `data` in the buffer that was parsed (as above)."""

    height: int
    width: int
    fields: tuple[PointField, ...]
    is_bigendian: int
    point_step: int
    row_step: int
    data: np.ndarray
    is_dense: int

    def positions(self) -> np.ndarray:
        """Return x, y, z of each point: height x width x 3, float32, read-only; in the buffer where they lie there so.

        Raises:
            WireError: the cloud has no x, y and z of one type of real numbers, or fewer data than its sizes say.
        """
        if self.height * self.width == 0:
            return np.empty((self.height, self.width, 3), np.float32)
        row_bytes = self.width * self.point_step
        is_short = self.height > 1 and self.row_step < row_bytes  # the step of a single row is no matter
        if is_short or self.data.size < (self.height - 1) * self.row_step + row_bytes:
            raise WireError(
                f"expected {self.height} rows of {self.width} points of {self.point_step} bytes, {self.row_step} bytes "
                f"apart, got {self.data.size} bytes"
            )
        by_name = {field.name: field for field in self.fields}
        x, y, z = (by_name.get(name) for name in "xyz")
        if x is None or y is None or z is None or not x.datatype == y.datatype == z.datatype in (7, 8):
            came = ", ".join(f"{field.name} ({POINT_TYPES.get(field.datatype, '?')})" for field in self.fields)
            raise WireError(f"expected a cloud with x, y and z, all f4 or all f8, got {came or 'no fields'}")
        kind = np.dtype((">" if self.is_bigendian else "<") + POINT_TYPES[x.datatype])
        if max(x.offset, y.offset, z.offset) + kind.itemsize > self.point_step:
            raise WireError(f"expected x, y and z within the {self.point_step} bytes of a point")
        steps = self.row_step, self.point_step
        axes = [np.ndarray((self.height, self.width), kind, self.data.data, field.offset, steps) for field in (x, y, z)]
        if kind == np.dtype("<f4") and y.offset == x.offset + 4 and z.offset == x.offset + 8:
            together = np.ndarray((self.height, self.width, 3), kind, self.data.data, x.offset, (*steps, 4))
            if together.flags.aligned:
                return together
        return np.stack([axis.astype(np.float32) for axis in axes], axis=-1)


MessageView = ImageView | CompressedView | PacketView
"""A message with a picture or a piece of a video, in the buffer that was parsed."""


def parse_image(buffer: bytes | memoryview, encoding: str = CDR) -> ImageView:
    """Read a sensor_msgs/Image from its serialized bytes.

    Args:
        encoding: `cdr` or `ros1`, the form of serialization.

    Raises:
        WireError: the bytes are not such a message. With `unsupported` they may be one in another representation.
        ValueError: another form of serialization.
    """
    reader = _reader(buffer, encoding)
    return ImageView(
        reader.header_stamp(),
        frame_id=reader.string(),
        height=reader.uint32(),
        width=reader.uint32(),
        encoding=reader.string(),
        is_bigendian=reader.uint8(),
        step=reader.uint32(),
        data=reader.last_bytes(),
    )


def parse_compressed(buffer: bytes | memoryview, encoding: str = CDR) -> CompressedView:
    """Read a sensor_msgs/CompressedImage from its serialized bytes.

    Args and raises:
        As `parse_image`.
    """
    reader = _reader(buffer, encoding)
    stamp, frame_id = reader.header_stamp(), reader.string()
    return CompressedView(stamp, frame_id, format=reader.string(), data=reader.last_bytes())


def parse_ffmpeg_packet(buffer: bytes | memoryview, encoding: str = CDR) -> PacketView:
    """Read an ffmpeg_image_transport_msgs/FFMPEGPacket from its serialized bytes.

    Args and raises:
        As `parse_image`.
    """
    reader = _reader(buffer, encoding)
    stamp, frame_id = reader.header_stamp(), reader.string()
    reader.uint32()  # width
    reader.uint32()  # height
    form = reader.string()
    reader.uint64()  # pts
    reader.uint8()  # flags
    reader.uint8()  # is_bigendian
    return PacketView(stamp, frame_id, form, reader.last_bytes())


def parse_foxglove_video(buffer: bytes | memoryview, encoding: str = CDR) -> PacketView:
    """Read a foxglove_msgs/CompressedVideo from its serialized bytes.

    Args and raises:
        As `parse_image`.
    """
    reader = _reader(buffer, encoding)
    stamp, frame_id, data, form = reader.stamp(), reader.string(), reader.sequence(), reader.string()
    reader.end()
    return PacketView(stamp, frame_id, form, data)


def parse_point_cloud(buffer: bytes | memoryview) -> PointCloudView:
    """Read a sensor_msgs/PointCloud2 from its serialized bytes, in CDR.

    Raises:
        WireError: as `parse_image`.
    """
    reader = _reader(buffer, CDR)
    stamp, frame_id = reader.header_stamp(), reader.string()
    height, width, num_fields = reader.uint32(), reader.uint32(), reader.uint32()
    if num_fields > _MOST_FIELDS:
        raise WireError(f"expected at most {_MOST_FIELDS} fields of a point, got {num_fields}")
    fields = tuple(
        PointField(reader.string(), reader.uint32(), reader.uint8(), reader.uint32()) for _ in range(num_fields)
    )
    is_bigendian, point_step, row_step = reader.uint8(), reader.uint32(), reader.uint32()
    data, is_dense = reader.sequence(), reader.uint8()
    reader.end()
    return PointCloudView(stamp, frame_id, height, width, fields, is_bigendian, point_step, row_step, data, is_dense)


def serialise_point_cloud(
    header: HeaderLike, fields: Sequence[PointField], points: np.ndarray, is_dense: bool = False
) -> bytes:
    """Write a sensor_msgs/PointCloud2 in CDR, in one copy of its points.

    Args:
        header: of the message.
        fields: of a point.
        points: height x width x a point's bytes, uint8, C-contiguous.
        is_dense: whether every point has numbers for its position.

    Raises:
        ValueError: the points are not such an array.
    """
    if points.ndim != 3 or points.dtype != np.uint8 or not points.flags.c_contiguous:
        raise ValueError(f"expected contiguous points, h x w x bytes, uint8, got {points.dtype} {points.shape}")
    height, width, step = points.shape
    before = bytearray(_padded(_string(header.frame_id)) + struct.pack("<III", height, width, len(fields)))
    for field in fields:
        before += _padded(_string(field.name)) + struct.pack("<IBxxxI", field.offset, field.datatype, field.count)
    before += struct.pack("<BxxxIII", 0, step, width * step, points.size)
    stamp = _STAMP["<"].pack(header.stamp.sec, header.stamp.nanosec)
    # A sequence may be empty; a memoryview with a zero in its shape cannot be joined.
    return b"".join((_LITTLE_ENDIAN, stamp, before, points.reshape(-1).data, bytes([is_dense])))


def parse_header(buffer: bytes | memoryview, encoding: str = CDR) -> tuple[int, str]:
    """Read stamp (ns) and frame_id of a serialized message that begins with a header; the rest is not looked at.

    In CDR a foxglove_msgs/CompressedVideo begins like one.

    Args and raises:
        As `parse_image`.
    """
    reader = _reader(buffer, encoding)
    sec, nanosec = reader.header_stamp()
    return sec * 1_000_000_000 + nanosec, reader.string()


class _CdrReader:
    """Reads the fields of plain CDR in their order, and never beyond the end of the buffer.

    Offsets count from the start of the buffer; alignment counts from behind the encapsulation, which has four bytes.
    """

    _alignment, _long_alignment = 4, 8
    _most_trailing_bytes = _MOST_TRAILING_BYTES

    def __init__(self, buffer: bytes | memoryview):
        if len(buffer) < _ENCAPSULATION_BYTES:
            raise WireError(f"expected at least {_ENCAPSULATION_BYTES} bytes, got {len(buffer)}")
        order = _BYTE_ORDER.get(bytes(buffer[:2]))
        if order is None:
            name = _OTHER_REPRESENTATIONS.get(int.from_bytes(buffer[:2], "big"))
            remedy = f", which is {name}: have its publisher write XCDR1" if name else ""
            raise WireError(
                f"expected plain CDR (representation 0x0000 or 0x0001), got 0x{buffer[:2].hex()}{remedy}",
                unsupported=True,
            )
        self._buffer = buffer
        self._offset = _ENCAPSULATION_BYTES
        self._stamp = _STAMP[order]
        self._uint32 = _UINT32[order]
        self._uint64 = _UINT64[order]

    def header_stamp(self) -> Stamp:
        """Read the stamp of a header, which ends before its frame_id."""
        return self.stamp()

    def stamp(self) -> Stamp:
        return Stamp(*self._unpack(self._stamp))

    def uint64(self) -> int:
        self._offset += -(self._offset - _ENCAPSULATION_BYTES) % self._long_alignment
        return self._unpack(self._uint64)[0]

    def uint32(self) -> int:
        self._offset += -self._offset % self._alignment
        return self._unpack(self._uint32)[0]

    def uint8(self) -> int:
        start = self._advance(1)
        return self._buffer[start]

    def string(self) -> str:
        """Read it as rclpy does: it ends at the first NUL, and what is not UTF-8 in it is replaced."""
        length = self.uint32()
        start = self._advance(length)
        return bytes(self._buffer[start : start + length]).partition(b"\0")[0].decode("utf-8", "replace")

    def last_bytes(self) -> np.ndarray:
        """View a sequence of bytes that is the last field: 1-D, uint8."""
        data = self.sequence()
        self.end()
        return data

    def sequence(self) -> np.ndarray:
        """View a sequence of bytes: 1-D, uint8."""
        length = self.uint32()
        start = self._advance(length)
        return np.frombuffer(self._buffer, np.uint8, length, start) if length else np.empty(0, np.uint8)

    def end(self) -> None:
        """Refuse a message with more behind its last field than padding."""
        trailing = len(self._buffer) - self._offset
        if trailing > self._most_trailing_bytes:
            raise WireError(f"expected at most {self._most_trailing_bytes} bytes after the message, got {trailing}")

    def _unpack(self, form: struct.Struct) -> tuple:
        return form.unpack_from(self._buffer, self._advance(form.size))

    def _advance(self, num_bytes: int) -> int:
        """Pass over the next `num_bytes`, and return the offset of the first."""
        start = self._offset
        if start + num_bytes > len(self._buffer):
            raise WireError(f"expected {num_bytes} bytes at offset {start}, the message ends at {len(self._buffer)}")
        self._offset = start + num_bytes
        return start


class _Ros1Reader(_CdrReader):
    """Reads the fields of ROS 1's serialization in their order."""

    _alignment, _long_alignment = 1, 1
    _most_trailing_bytes = 0

    def __init__(self, buffer: bytes | memoryview):
        self._buffer = buffer
        self._offset = 0
        self._stamp = _ROS1_STAMP
        self._uint32 = _UINT32["<"]
        self._uint64 = _UINT64["<"]

    def header_stamp(self) -> Stamp:
        self.uint32()  # seq
        return self.stamp()


def _reader(buffer: bytes | memoryview, encoding: str) -> _CdrReader:
    if encoding == CDR:
        return _CdrReader(buffer)
    if encoding == ROS1:
        return _Ros1Reader(buffer)
    raise ValueError(f"expected messages serialized as {CDR} or {ROS1}, got {encoding!r}")


class ImageWriter:
    """Serializes sensor_msgs/Image in one copy of its pixels: into `bytes`, or into memory that is used again.

    What does not change from one image to the next is kept. A writer may serve several topics and threads.

    Args:
        form: `cdr`, written in little-endian order; or `ros1`, where each header's `seq` is 0.
    """

    def __init__(self, form: str = CDR) -> None:
        if form not in _WRITTEN:
            raise ValueError(f"expected messages serialized as {CDR} or {ROS1}, got {form!r}")
        self._begin, self._stamp, fields_after_stamp = _WRITTEN[form]
        self._fields: Callable[[str, int, int, str], bytes] = lru_cache(maxsize=8)(fields_after_stamp)

    def serialise(self, header: HeaderLike, encoding: str, pixels: np.ndarray) -> bytes:
        """Write the message with the stamp and frame_id of another one.

        Args:
            header: the view of that other message, or a std_msgs/Header.
            encoding: a key of `BYTES_PER_PIXEL`, or `32FC` and a number of channels up to 999.
            pixels: H x W or H x W x C, uint8 or float32, C-contiguous, with at least one pixel; fits the encoding.

        Raises:
            ValueError: the encoding is none of these, the pixels are not such an array, or the form has no room for
                the stamp.
        """
        return b"".join((*self._before(header, encoding, pixels), pixels.data))

    def write(self, memory: bytearray, header: HeaderLike, encoding: str, pixels: np.ndarray) -> None:
        """Write the message into memory that is used again, made as long as it is.

        Args and raises:
            As `serialise`.
        """
        before = b"".join(self._before(header, encoding, pixels))
        if len(memory) != len(before) + pixels.nbytes:
            memory[:] = bytes(len(before) + pixels.nbytes)
        memory[: len(before)] = before
        np.frombuffer(memory, np.uint8, pixels.nbytes, len(before))[:] = pixels.reshape(-1).view(np.uint8)

    def set_stamp(self, memory: bytearray, stamp: StampLike) -> None:
        """Change the stamp of a message that `write` has written.

        Raises:
            ValueError: the form has no room for the stamp.
        """
        begin = len(self._begin)
        memory[begin : begin + self._stamp.size] = self._packed(stamp)

    def _before(self, header: HeaderLike, encoding: str, pixels: np.ndarray) -> tuple[bytes, bytes, bytes]:
        """Serialize what comes before the pixels."""
        _check(pixels, encoding)
        height, width = pixels.shape[:2]
        return self._begin, self._packed(header.stamp), self._fields(header.frame_id, height, width, encoding)

    def _packed(self, stamp: StampLike) -> bytes:
        try:
            return self._stamp.pack(stamp.sec, stamp.nanosec)
        except struct.error as error:
            raise ValueError(f"expected a stamp of 32 bits, got {stamp.sec} s: {error}") from error


def _check(pixels: np.ndarray, encoding: str) -> None:
    floats = _FLOATS.fullmatch(encoding)
    wanted, kind = (int(floats[1]), np.float32) if floats else (BYTES_PER_PIXEL.get(encoding), np.uint8)
    if wanted is None:
        raise ValueError(f"expected an encoding of {', '.join(BYTES_PER_PIXEL)}, 32FC<n>, got {encoding!r}")
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    fits = pixels.ndim in (2, 3) and channels == wanted and pixels.size > 0
    if not fits or pixels.dtype != kind or not pixels.flags.c_contiguous:
        raise ValueError(
            f"expected contiguous {kind.__name__} pixels, H x W x {wanted}, for {encoding}, "
            f"got {'contiguous' if pixels.flags.c_contiguous else 'strided'} {pixels.dtype} of shape {pixels.shape}"
        )


def _bytes_per_pixel(encoding: str) -> int:
    floats = _FLOATS.fullmatch(encoding)
    return 4 * int(floats[1]) if floats else BYTES_PER_PIXEL[encoding]


def _fields_after_stamp(frame_id: str, height: int, width: int, encoding: str) -> bytes:
    """Serialize frame_id, height, width, encoding, is_bigendian, step and length of the data, beginning aligned."""
    step = width * _bytes_per_pixel(encoding)
    return b"".join(
        (
            _padded(_string(frame_id)),
            struct.pack("<II", height, width),
            _padded(_string(encoding) + b"\0"),
            struct.pack("<II", step, height * step),
        )
    )


def _ros1_fields_after_stamp(frame_id: str, height: int, width: int, encoding: str) -> bytes:
    """Serialize the same fields in ROS 1's form."""
    step = width * _bytes_per_pixel(encoding)
    names = [struct.pack("<I", len(raw)) + raw for raw in (frame_id.encode(), encoding.encode())]
    return b"".join(
        (names[0], struct.pack("<II", height, width), names[1], struct.pack("<BII", 0, step, height * step))
    )


def _string(text: str) -> bytes:
    raw = text.encode() + b"\0"
    return struct.pack("<I", len(raw)) + raw


def _padded(fields: bytes) -> bytes:
    return fields + bytes(-len(fields) % 4)


# Form of serialization -> what comes before the stamp, the stamp, and what serializes the fields behind it.
_WRITTEN: dict[str, tuple[bytes, struct.Struct, Callable[[str, int, int, str], bytes]]] = {
    CDR: (_LITTLE_ENDIAN, _STAMP["<"], _fields_after_stamp),
    ROS1: (bytes(4), _ROS1_STAMP, _ros1_fields_after_stamp),  # seq
}
