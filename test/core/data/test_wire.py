"""The view of serialized images against rclpy's own serialization, and against everything that is not one."""

import json
import random
import struct
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from vidseg_core.data.encodings import ENCODINGS, UnsupportedEncoding, to_rgb
from vidseg_core.data.wire import (
    BYTES_PER_PIXEL,
    ImageWriter,
    PointField,
    WireError,
    parse_compressed,
    parse_ffmpeg_packet,
    parse_foxglove_video,
    parse_header,
    parse_image,
    parse_point_cloud,
    serialise_point_cloud,
)

FRAME_IDS = ["", "c", "ca", "cam", "cam0", "front/left", "caméra", "前方カメラ", "камера", "x" * 255, "🚗"]
ALL_ENCODINGS = [*ENCODINGS, "32FC1", "64FC3", "8SC2", "nv16", "", "no such encoding"]
HEADER_FIELDS = (7, 999_999_999, "cam")


class CdrWriter:
    """Plain CDR in either byte order, with garbage for padding; rclpy writes neither. Knows where its numbers are."""

    def __init__(self, order: str, seed: int = 0):
        self.bytes = bytearray(b"\x00\x00\x00\x00" if order == ">" else b"\x00\x01\x00\x00")
        self.order = order
        self.numbers: list[int] = []
        self._random = random.Random(seed)

    def uint32(self, value: int) -> None:
        while len(self.bytes) % 4:
            self.bytes.append(self._random.randrange(256))
        self.numbers.append(len(self.bytes))
        self.bytes += struct.pack(self.order + "I", value)

    def uint64(self, value: int) -> None:
        while (len(self.bytes) - 4) % 8:
            self.bytes.append(self._random.randrange(256))
        self.bytes += struct.pack(self.order + "Q", value)

    def uint8(self, value: int) -> None:
        self.bytes.append(value)

    def sequence(self, data: bytes) -> None:
        self.uint32(len(data))
        self.bytes += data

    def header(self, sec: int, nanosec: int, frame_id: str) -> None:
        self.uint32(sec % 2**32)
        self.uint32(nanosec)
        self.sequence(frame_id.encode() + b"\0")


def write_image(order="<", header=HEADER_FIELDS, height=2, width=3, encoding="rgb8", is_bigendian=0, step=9, data=None):
    cdr = CdrWriter(order)
    cdr.header(*header)
    cdr.uint32(height)
    cdr.uint32(width)
    cdr.sequence(encoding.encode() + b"\0")
    cdr.uint8(is_bigendian)
    cdr.uint32(step)
    cdr.sequence(bytes(range(height * step)) if data is None else data)
    return cdr


def write_compressed(order="<", header=HEADER_FIELDS, format="jpeg", data=b"\xff\xd8 picture"):
    cdr = CdrWriter(order)
    cdr.header(*header)
    cdr.sequence(format.encode() + b"\0")
    cdr.sequence(data)
    return cdr


def write_ffmpeg_packet(order="<", header=HEADER_FIELDS, encoding="h264;yuv420p;bgr8;bgr8", data=b"\0\0\0\1 packet"):
    cdr = CdrWriter(order)
    cdr.header(*header)
    cdr.uint32(640)
    cdr.uint32(480)
    cdr.sequence(encoding.encode() + b"\0")
    cdr.uint64(2**64 - 2)
    cdr.uint8(1)
    cdr.uint8(0)
    cdr.sequence(data)
    return cdr


def write_foxglove_video(order="<", header=HEADER_FIELDS, format="h264", data=b"\0\0\0\1 packet"):
    cdr = CdrWriter(order)
    cdr.header(*header)
    cdr.sequence(data)
    cdr.sequence(format.encode() + b"\0")
    return cdr


def image_fields(image) -> tuple:
    """Of a view or of a message."""
    header = getattr(image, "header", image)
    fields = (image.height, image.width, image.encoding, image.is_bigendian, image.step, bytes(image.data))
    return (header.stamp.sec, header.stamp.nanosec, header.frame_id, *fields)


def random_fields(generator: random.Random, encoding: str) -> dict:
    height, width = generator.randrange(5), generator.randrange(1, 6)
    step = width * BYTES_PER_PIXEL.get(encoding, 8) + generator.choice([0, 0, 1, 3, 7])
    return {
        "header": (generator.randrange(-(2**31), 2**31), generator.randrange(2**32), generator.choice(FRAME_IDS)),
        "height": height,
        "width": width,
        "encoding": encoding,
        "is_bigendian": generator.randrange(2),
        "step": step,
        "data": generator.randbytes(height * step + generator.choice([0, 0, 1, 2])),
    }


def message_of(header, **fields):
    messages = pytest.importorskip("sensor_msgs.msg", reason="needs ROS (extra `ros`)")
    message = messages.Image(**fields)
    message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id = header
    return message


@pytest.fixture(scope="module")
def serialization():
    return pytest.importorskip("rclpy.serialization", reason="needs ROS (extra `ros`)")


@pytest.fixture(scope="module")
def messages():
    return pytest.importorskip("sensor_msgs.msg", reason="needs ROS (extra `ros`)")


@pytest.mark.parametrize("encoding", ALL_ENCODINGS)
def test_an_image_reads_as_rclpy_reads_it(encoding, serialization, messages):
    generator = random.Random(encoding)
    for trailing in (0, 1, 2, 3) * 10:
        message = message_of(**random_fields(generator, encoding))
        buffer = serialization.serialize_message(message) + generator.randbytes(trailing)
        view = parse_image(buffer)
        assert image_fields(view) == image_fields(serialization.deserialize_message(buffer, messages.Image))
        assert view.stamp_ns == message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        assert parse_header(buffer) == (view.stamp_ns, message.header.frame_id)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("frame_id", FRAME_IDS)
def test_both_byte_orders_and_every_length_of_strings(order, frame_id):
    generator = random.Random(frame_id)
    for encoding in ALL_ENCODINGS:
        fields = random_fields(generator, encoding)
        fields["header"] = (*fields["header"][:2], frame_id)
        for trailing in range(4):
            view = parse_image(bytes(write_image(order, **fields).bytes) + generator.randbytes(trailing))
            expected = [fields[k] for k in ("height", "width", "encoding", "is_bigendian", "step", "data")]
            assert image_fields(view) == (*fields["header"], *expected)


def test_the_writer_of_these_tests_writes_what_rclpy_reads(serialization, messages):
    for order in "<>":
        message = serialization.deserialize_message(bytes(write_image(order).bytes), messages.Image)
        assert image_fields(message) == (7, 999_999_999, "cam", 2, 3, "rgb8", 0, 9, bytes(range(18)))


@pytest.mark.parametrize("frame_id", FRAME_IDS)
def test_a_compressed_image_reads_as_rclpy_reads_it(frame_id, serialization, messages):
    generator = random.Random(frame_id)
    for form in ("", "jpeg", "png", "rgb8; jpeg compressed bgr8", "16UC1; compressedDepth png"):
        for trailing in range(4):
            message = messages.CompressedImage(format=form, data=generator.randbytes(generator.randrange(9)))
            message.header.frame_id = frame_id
            message.header.stamp.sec, message.header.stamp.nanosec = generator.randrange(2**31), 5
            view = parse_compressed(serialization.serialize_message(message) + bytes(trailing))
            stamp = message.header.stamp
            assert (view.stamp, view.frame_id) == ((stamp.sec, stamp.nanosec), frame_id)
            assert (view.format, bytes(view.data)) == (form, bytes(message.data))


def test_a_compressed_image_in_either_byte_order():
    for order in "<>":
        view = parse_compressed(bytes(write_compressed(order).bytes))
        assert (*view.stamp, view.frame_id) == HEADER_FIELDS
        assert (view.format, bytes(view.data)) == ("jpeg", b"\xff\xd8 picture")


def write_ros1(header=HEADER_FIELDS, seq=41, fields=(2, 3), encoding="rgb8", is_bigendian=1, step=9, data=bytes(18)):
    """sensor_msgs/Image as ROS 1 serializes it."""
    sec, nanosec, frame_id = header[0], header[1], header[2].encode()
    strings = [struct.pack("<I", len(raw)) + raw for raw in (frame_id, encoding.encode(), data)]
    numbers = struct.pack("<III", seq, sec, nanosec), struct.pack("<II", *fields)
    after = struct.pack("<BI", is_bigendian, step)
    return numbers[0] + strings[0] + numbers[1] + strings[1] + after + strings[2]


@pytest.mark.parametrize("frame_id", FRAME_IDS)
def test_an_image_of_ros_1(frame_id):
    for encoding, data in (("rgb8", bytes(range(18))), ("bayer_rggb8", b""), ("", b"x")):
        buffer = write_ros1((2**32 - 1, 999_999_999, frame_id), encoding=encoding, data=data)
        view = parse_image(buffer, "ros1")
        assert image_fields(view) == (2**32 - 1, 999_999_999, frame_id, 2, 3, encoding, 1, 9, data)
        assert view.stamp_ns == (2**32 - 1) * 10**9 + 999_999_999
        assert parse_header(buffer, "ros1") == (view.stamp_ns, frame_id)
        assert not data or np.shares_memory(view.data, np.frombuffer(buffer, np.uint8))


def test_messages_of_ros_1_read_as_rosbags_reads_them():
    typesys = pytest.importorskip("rosbags.typesys", reason="needs rosbags (extra `cpu`)")
    store = typesys.get_typestore(typesys.Stores.ROS1_NOETIC)
    types = store.types
    header = types["std_msgs/msg/Header"](seq=3, stamp=types["builtin_interfaces/msg/Time"](5, 6), frame_id="cam")
    pixels = np.arange(18, dtype=np.uint8)
    image = types["sensor_msgs/msg/Image"](header, 2, 3, "rgb8", 0, 9, pixels)
    view = parse_image(bytes(store.serialize_ros1(image, "sensor_msgs/msg/Image")), "ros1")
    assert image_fields(view) == (5, 6, "cam", 2, 3, "rgb8", 0, 9, pixels.tobytes())
    compressed = types["sensor_msgs/msg/CompressedImage"](header, "jpeg", pixels)
    view = parse_compressed(bytes(store.serialize_ros1(compressed, "sensor_msgs/msg/CompressedImage")), "ros1")
    assert (view.stamp, view.frame_id, view.format, bytes(view.data)) == ((5, 6), "cam", "jpeg", pixels.tobytes())


def test_every_cut_and_every_longer_message_of_ros_1_is_an_error():
    buffer = write_ros1()
    for length in range(len(buffer)):
        with pytest.raises(WireError, match="the message ends at"):
            parse_image(buffer[:length], "ros1")
    with pytest.raises(WireError, match="at most 0 bytes after the message, got 1"):
        parse_image(buffer + b"\0", "ros1")


def test_other_forms_of_serialization():
    for parse in (parse_image, parse_compressed, parse_ffmpeg_packet, parse_foxglove_video, parse_header):
        with pytest.raises(ValueError, match="expected messages serialized as cdr or ros1, got 'json'"):
            parse(write_ros1(), "json")


FFMPEG_PACKET = """std_msgs/Header header
int32 width
int32 height
string encoding
uint64 pts
uint8 flags
bool is_bigendian
uint8[] data
"""
FOXGLOVE_VIDEO = "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
STRINGS_OF_EVERY_LENGTH = ["", "h", "h2", "h26", "h264", "h265x", "libx264", "h264;yuv420p;bgr8;bgr8"]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("frame_id", FRAME_IDS)
def test_packets_of_video(order, frame_id):
    for form in STRINGS_OF_EVERY_LENGTH:
        for size in range(6):
            header, data = (-3, 7, frame_id), bytes(range(size))
            for parse, cdr in (
                (parse_ffmpeg_packet, write_ffmpeg_packet(order, header, form, data)),
                (parse_foxglove_video, write_foxglove_video(order, header, form, data)),
            ):
                buffer = bytes(cdr.bytes)
                for trailing in range(4):
                    view = parse(buffer + bytes(trailing))
                    assert (view.stamp, view.frame_id, view.format) == ((-3, 7), frame_id, form)
                    assert view.data.tobytes() == data and parse_header(buffer) == (view.stamp_ns, frame_id)
                with pytest.raises(WireError, match="at most 3 bytes after the message, got 4"):
                    parse(buffer + bytes(4))


def test_packets_of_video_read_as_rosbags_reads_them():
    typesys = pytest.importorskip("rosbags.typesys", reason="needs rosbags (extra `cpu`)")
    for name, definition, parse in (
        ("ffmpeg_image_transport_msgs/msg/FFMPEGPacket", FFMPEG_PACKET, parse_ffmpeg_packet),
        ("foxglove_msgs/msg/CompressedVideo", FOXGLOVE_VIDEO, parse_foxglove_video),
    ):
        for system, ros in (("ROS2_HUMBLE", "cdr"), ("ROS1_NOETIC", "ros1")):
            store = typesys.get_typestore(typesys.Stores[system])
            store.register(typesys.get_types_from_msg(definition, name))
            time = store.types["builtin_interfaces/msg/Time"](5, 6)
            data = np.arange(9, dtype=np.uint8)
            if parse is parse_ffmpeg_packet:
                header = store.types["std_msgs/msg/Header"]
                stamped = header(3, time, "cam") if ros == "ros1" else header(time, "cam")
                message = store.types[name](stamped, 640, 480, "hevc", 2**63, 1, False, data)
            else:
                message = store.types[name](time, "cam", data, "hevc")
            serialize = store.serialize_ros1 if ros == "ros1" else store.serialize_cdr
            view = parse(bytes(serialize(message, name)), ros)
            assert (view.stamp, view.frame_id, view.format) == ((5, 6), "cam", "hevc")
            assert view.data.tobytes() == data.tobytes()


def test_pixels_are_the_buffer_itself():
    buffer = bytes(write_image(height=2, width=3, step=11).bytes)
    view = parse_image(buffer)
    pixels = view.pixels(3)
    assert np.shares_memory(pixels, np.frombuffer(buffer, np.uint8)) and not pixels.flags.writeable
    assert pixels.shape == (2, 3, 3) and pixels.strides == (11, 3, 1)
    assert pixels.tolist() == [[[0, 1, 2], [3, 4, 5], [6, 7, 8]], [[11, 12, 13], [14, 15, 16], [17, 18, 19]]]
    assert view.pixels(1).shape == (2, 3, 1)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"height": 0}, "image with pixels, got 3 x 0"),
        ({"width": 0}, "image with pixels, got 0 x 2"),
        ({"step": 8, "data": bytes(16)}, "step of at least 9 bytes for 3 x 2 pixels of rgb8, got 8"),
        ({"step": 0, "data": b""}, "step of at least 9 bytes"),
        ({"data": bytes(17)}, "expected at least 18 bytes of data for 3 x 2 pixels of rgb8, 2 rows of 9 bytes, got 17"),
        ({"data": b""}, "expected at least 18 bytes of data"),
        ({"height": 2**32 - 1, "data": bytes(18)}, "4294967295 rows of 9 bytes, got 18"),
        ({"width": 2**32 - 1, "data": bytes(18)}, "bytes for 4294967295 x "),
        ({"height": 2**32 - 1, "width": 2**32 - 1, "step": 2**32 - 1, "data": bytes(18)}, "bytes for 4294967295 x "),
    ],
)
def test_a_picture_that_contradicts_its_fields(fields, said):
    view = parse_image(bytes(write_image(**fields).bytes))
    with pytest.raises(WireError, match=said):
        view.pixels(3)


def test_no_message_at_all():
    for length in range(4):
        with pytest.raises(WireError, match=f"at least 4 bytes, got {length}"):
            parse_image(bytes(length))


@pytest.mark.parametrize("representation", ["0002", "0003", "0006", "0007", "0009", "000b", "0100", "ffff"])
def test_other_representations_are_for_rclpy(representation):
    buffer = bytes.fromhex(representation) + bytes(write_image().bytes[2:])
    for parse in (parse_image, parse_compressed, parse_ffmpeg_packet, parse_foxglove_video, parse_header):
        with pytest.raises(WireError, match=f"plain CDR .* got 0x{representation}") as caught:
            parse(buffer)
        assert caught.value.unsupported


def test_every_cut_is_an_error():
    for parse, cdr in (
        (parse_image, write_image()),
        (parse_compressed, write_compressed()),
        (parse_ffmpeg_packet, write_ffmpeg_packet()),
        (parse_foxglove_video, write_foxglove_video()),
    ):
        for length in range(4, len(cdr.bytes)):
            with pytest.raises(WireError, match="the message ends at") as caught:
                parse(bytes(cdr.bytes[:length]))
            assert not caught.value.unsupported


def test_more_than_three_bytes_after_the_message():
    with pytest.raises(WireError, match="at most 3 bytes after the message, got 4"):
        parse_image(bytes(write_image().bytes) + bytes(4))


def test_a_huge_length_is_an_error_and_takes_no_memory():
    cdr = write_image()
    tracemalloc.start()
    for at in cdr.numbers[2], cdr.numbers[5], cdr.numbers[7]:
        for length in (2**31, 2**32 - 1):
            buffer = bytearray(cdr.bytes)
            struct.pack_into("<I", buffer, at, length)
            with pytest.raises(WireError, match=f"expected {length} bytes"):
                parse_image(bytes(buffer))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_strings_without_length_or_nul_and_with_more_of_them_read_as_rclpy_reads_them(messages):
    """rclpy reads them in a process of its own: they are not what the specification calls a string."""
    strings = [b"", b"\0", b"cam", b"ca\0m\0", b"\0cam\0", b"\xe9t\xe9\0", b"\xf0\x9f\x9a\0", b"\xed\xa0\x80\0"]
    buffers = []
    for raw in strings:
        cdr = CdrWriter("<")
        cdr.uint32(1)
        cdr.uint32(2)
        cdr.sequence(raw)
        cdr.sequence(b"png\0")
        cdr.sequence(b"data")
        buffers.append(bytes(cdr.bytes))
    ask = """
import json, sys
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage
read = (deserialize_message(bytes.fromhex(line), CompressedImage) for line in json.load(sys.stdin))
print(json.dumps([[message.header.frame_id, message.format] for message in read]))
"""
    given = json.dumps([buffer.hex() for buffer in buffers])
    said = subprocess.run([sys.executable, "-c", ask], input=given, capture_output=True, text=True, check=True).stdout
    views = [parse_compressed(buffer) for buffer in buffers]
    assert [[view.frame_id, view.format] for view in views] == json.loads(said)
    assert [parse_header(buffer)[1] for buffer in buffers] == [view.frame_id for view in views]


def test_parsing_needs_no_ros(checkout):
    ask = """
import sys
from vidseg_core.data.wire import parse_image
view = parse_image(bytes.fromhex(sys.argv[1]))
assert view.pixels(3).shape == (2, 3, 3) and view.stamp_ns == 7_999_999_999
print(sorted({"rclpy", "std_msgs", "sensor_msgs", "torch", "cv2"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", ask, write_image().bytes.hex()]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=checkout).stdout == "[]\n"


@pytest.mark.parametrize("encoding", BYTES_PER_PIXEL)
def test_what_is_written_reads_back_through_rclpy(encoding, serialization, messages):
    generator = np.random.default_rng(1)
    writer = ImageWriter()
    channels = BYTES_PER_PIXEL[encoding]
    for frame_id in FRAME_IDS:
        for height, width in ((1, 1), (3, 2), (5, 7), (3, 2)):
            pixels = generator.integers(0, 256, (height, width, channels), np.uint8)
            header = message_of((*map(int, generator.integers(2**31, size=2)), frame_id)).header
            buffer = writer.serialise(header, encoding, pixels[..., 0] if channels == 1 else pixels)
            message = serialization.deserialize_message(buffer, messages.Image)
            assert message.header == header
            expected = (height, width, encoding, 0, width * channels, pixels.tobytes())
            assert image_fields(message)[3:] == expected
            assert (parse_image(buffer).pixels(channels) == pixels).all()


def test_what_is_written_is_to_the_byte_what_rclpy_writes_but_for_padding(serialization, messages):
    message = message_of((3, 4, "cam"), height=2, width=2, encoding="8UC1", step=2, data=b"abcd")
    theirs = serialization.serialize_message(message)
    ours = ImageWriter().serialise(message.header, "8UC1", np.frombuffer(b"abcd", np.uint8).reshape(2, 2))
    assert len(ours) == len(theirs)
    assert image_fields(parse_image(theirs)) == image_fields(parse_image(ours))


@pytest.mark.parametrize("frame_id", FRAME_IDS)
def test_what_is_written_for_ros_1_is_to_the_byte_what_ros_1_writes(frame_id):
    for header in ((2**32 - 1, 999_999_999, frame_id), (0, 0, frame_id)):
        theirs = write_ros1(header, seq=0, is_bigendian=0, data=bytes(range(18)))
        pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
        assert ImageWriter("ros1").serialise(parse_image(theirs, "ros1"), "rgb8", pixels) == theirs


def test_forms_and_stamps_that_are_not_written():
    with pytest.raises(ValueError, match="expected messages serialized as cdr or ros1, got 'json'"):
        ImageWriter("json")
    view = parse_image(write_ros1((2**32 - 1, 0, "cam")), "ros1")
    with pytest.raises(ValueError, match="expected a stamp of 32 bits, got 4294967295 s"):
        ImageWriter().serialise(view, "mono8", np.zeros((2, 3), np.uint8))


def test_outputs_carry_the_header_of_their_input():
    labels = np.zeros((2, 3), np.uint8)
    writer = ImageWriter()
    for view in (
        parse_image(bytes(write_image(">", header=(-1, 2**32 - 1, "前方")).bytes)),
        parse_compressed(bytes(write_compressed(header=(5, 6, "左")).bytes)),
    ):
        for header in (view, SimpleNamespace(stamp=view.stamp, frame_id=view.frame_id)):
            output = parse_image(writer.serialise(header, "mono8", labels))
            assert (output.stamp, output.frame_id) == (view.stamp, view.frame_id)


def test_real_numbers_of_many_channels_are_written(serialization, messages):
    header = message_of((7, 8, "cam")).header
    for shape in ((2, 3), (2, 3, 1), (2, 3, 19)):
        pixels = np.random.default_rng(0).random(shape, dtype=np.float32)
        channels = shape[2] if len(shape) == 3 else 1
        buffer = ImageWriter().serialise(header, f"32FC{channels}", pixels)
        message = serialization.deserialize_message(buffer, messages.Image)
        assert image_fields(message)[3:] == (2, 3, f"32FC{channels}", 0, 12 * channels, pixels.tobytes())


POINT_FIELDS = (PointField("x", 0, 7), PointField("y", 4, 7), PointField("z", 8, 7), PointField("ring", 12, 4))


@pytest.mark.parametrize("frame_id", FRAME_IDS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 0)])
def test_a_point_cloud_reads_back_through_rclpy_and_here(frame_id, shape, serialization, messages):
    points = np.random.default_rng(0).random((*shape, 4), dtype=np.float32)
    header = message_of((3, 4, frame_id)).header
    buffer = serialise_point_cloud(header, POINT_FIELDS, points.view(np.uint8), is_dense=True)
    message = serialization.deserialize_message(buffer, messages.PointCloud2)
    assert (message.header, message.height, message.width) == (header, *shape)
    assert [(f.name, f.offset, f.datatype, f.count) for f in message.fields] == [
        ("x", 0, 7, 1), ("y", 4, 7, 1), ("z", 8, 7, 1), ("ring", 12, 4, 1)
    ]  # fmt: skip
    assert (message.point_step, message.row_step, message.is_dense) == (16, 16 * shape[1], True)
    assert bytes(message.data) == points.tobytes()
    for one in (buffer, serialization.serialize_message(message)):
        view = parse_point_cloud(one)
        assert (view.frame_id, view.stamp_ns, view.fields) == (frame_id, 3_000_000_004, POINT_FIELDS)
        assert (view.height, view.width, view.point_step, view.is_dense) == (*shape, 16, 1)
        np.testing.assert_array_equal(view.positions(), points[..., :3])


def test_positions_that_lie_as_vidseg_wants_them_are_not_copied():
    buffer = serialise_point_cloud(write_header(), POINT_FIELDS, np.zeros((2, 3, 16), np.uint8))
    positions = parse_point_cloud(buffer).positions()
    assert positions.strides == (48, 16, 4) and not positions.flags.writeable
    assert np.shares_memory(positions, np.frombuffer(buffer, np.uint8))


def write_header():
    return parse_image(bytes(write_image().bytes))


def cloud(fields, data, **changes):
    view = parse_point_cloud(serialise_point_cloud(write_header(), fields, data))
    return replace(view, **changes)


def test_positions_of_other_kinds_are_copied():
    wanted = np.arange(18, dtype=np.float64).reshape(2, 3, 3)
    doubles = [PointField(name, 8 * i, 8) for i, name in enumerate("xyz")]
    big = [PointField(name, 4 * i, 7) for i, name in enumerate("xyz")]
    mixed = [PointField("z", 0, 7), PointField("x", 4, 7), PointField("y", 8, 7)]
    for view in (
        cloud(doubles, wanted.view(np.uint8)),
        cloud(big, wanted.astype(">f4").view(np.uint8), is_bigendian=1),
        cloud(mixed, np.ascontiguousarray(np.roll(wanted, 1, -1).astype("<f4")).view(np.uint8)),
    ):
        positions = view.positions()
        assert positions.dtype == np.float32
        np.testing.assert_array_equal(positions, wanted)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"row_step": 47}, "expected 2 rows of 3 points of 16 bytes, 47 bytes apart, got 96 bytes"),
        ({"height": 3}, "expected 3 rows of 3 points"),
        ({"height": 2**32 - 1, "row_step": 0}, "expected 4294967295 rows"),
        ({"fields": POINT_FIELDS[:2]}, r"expected a cloud with x, y and z, all f4 or all f8, got x \(f4\), y \(f4\)"),
        ({"fields": ()}, "got no fields"),
        ({"fields": (*POINT_FIELDS[:2], PointField("z", 12, 4))}, r"got x \(f4\), y \(f4\), z \(u2\)"),
        ({"point_step": 11, "row_step": 33}, "expected x, y and z within the 11 bytes of a point"),
    ],
)
def test_clouds_without_positions(changes, said):
    with pytest.raises(WireError, match=said):
        replace(cloud(POINT_FIELDS, np.zeros((2, 3, 16), np.uint8)), **changes).positions()


def test_every_cut_of_a_point_cloud_is_an_error():
    buffer = serialise_point_cloud(write_header(), POINT_FIELDS, np.zeros((1, 2, 16), np.uint8))
    for length in range(len(buffer)):
        with pytest.raises(WireError):
            parse_point_cloud(buffer[:length])
    with pytest.raises(ValueError, match="expected contiguous points"):
        serialise_point_cloud(write_header(), POINT_FIELDS, np.zeros((2, 16), np.uint8))


@pytest.mark.parametrize(
    ("encoding", "pixels", "said"),
    [
        ("32FC3", np.zeros((2, 3, 2), np.float32), "expected contiguous float32 pixels, H x W x 3, for 32FC3"),
        ("32FC3", np.zeros((2, 3, 3), np.uint8), "got contiguous uint8"),
        ("32FC0", np.zeros((2, 3, 3), np.float32), "got '32FC0'"),
        ("mono16", np.zeros((2, 3), np.uint16), "expected an encoding of mono8, .*, got 'mono16'"),
        ("rgb8", np.zeros((2, 3), np.uint8), r"H x W x 3, for rgb8, got contiguous uint8 of shape \(2, 3\)"),
        ("mono8", np.zeros((2, 3, 3), np.uint8), r"H x W x 1, for mono8, got contiguous uint8 of shape \(2, 3, 3\)"),
        ("mono8", np.zeros((2, 3), np.int64), "got contiguous int64"),
        ("mono8", np.zeros((2, 6), np.uint8)[:, ::2], "got strided uint8"),
        ("mono8", np.zeros((0, 3), np.uint8), r"of shape \(0, 3\)"),
        ("mono8", np.zeros(3, np.uint8), r"of shape \(3,\)"),
        ("rgb8", np.zeros((1, 2, 3, 3), np.uint8), r"of shape \(1, 2, 3, 3\)"),
    ],
)
def test_what_cannot_be_written(encoding, pixels, said):
    view = parse_image(bytes(write_image().bytes))
    with pytest.raises(ValueError, match=said):
        ImageWriter().serialise(view, encoding, pixels)


NUMBERS = (0, 1, 2, 3, 4, 5, 6, 9, 12, 18, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 4, 2**32 - 1)
STRINGS = (b"", b"\0", b"rgb8\0", b"mono8\0", b"16UC1\0", b"bayer_rggb8\0", b"yuv422\0", b"\xff\xfe", b"rg\0b8\0")


def mutate(buffer: bytearray, numbers: list[int], generator: random.Random) -> None:
    kind = generator.randrange(8)
    if kind == 0:
        del buffer[generator.randrange(len(buffer) + 1) :]
    elif kind == 1:
        buffer += generator.randbytes(generator.randrange(1, 8))
    elif kind in (2, 3) and len(buffer) >= numbers[-1] + 4:
        value = generator.choice((*NUMBERS, generator.randrange(2**32)))
        struct.pack_into(generator.choice("<>") + "I", buffer, generator.choice(numbers), value)
    elif kind == 4:
        at = generator.choice(numbers)
        raw = generator.choice(STRINGS)
        buffer[at : at + 4 + generator.randrange(8)] = struct.pack(generator.choice("<>") + "I", len(raw)) + raw
    elif kind == 5:
        buffer[:2] = generator.choice((b"\0\0", b"\0\1", b"\0\3", b"\1\0"))
    elif buffer:  # anywhere, or more often in the pixels
        low = 0 if kind == 6 else len(buffer) // 2
        for _ in range(generator.randrange(1, 4)):
            buffer[generator.randrange(low, len(buffer))] = generator.randrange(256)


def outcome(parse, buffer: bytes) -> str:
    try:
        view = parse(buffer)
    except WireError as error:
        return "unsupported" if error.unsupported else "malformed"
    if view.data.size:
        start = np.frombuffer(buffer, np.uint8).ctypes.data
        assert start <= view.data.ctypes.data and view.data.ctypes.data + view.data.size <= start + len(buffer)
    if parse is not parse_image:
        return "compressed"
    try:
        image = to_rgb(view)
    except WireError:
        return "no picture"
    except UnsupportedEncoding:
        return "encoding"
    assert image.shape == (view.height, view.width, 3) and image.dtype == np.uint8
    return "picture"


def test_a_hundred_thousand_damaged_messages_are_views_of_their_buffer_or_wire_errors():
    generator = random.Random(20)
    whole = [
        (parse_image, write_image(order, (1, 2, frame_id), 2, 4, encoding, 0, 4 * size + pad))
        for order in "<>"
        for frame_id in ("", "c", "ca", "cam")
        for encoding, size in (("rgb8", 3), ("mono8", 1), ("16UC1", 2), ("yuv422", 2), ("bayer_rggb8", 1), ("bgra8", 4))
        for pad in (0, 2)
    ]
    whole += [
        (parse_compressed, write_compressed(order, format=form)) for order in "<>" for form in ("", "jpeg", "png")
    ]
    whole += [(parse_ffmpeg_packet, write_ffmpeg_packet(order)) for order in "<>"]
    whole += [(parse_foxglove_video, write_foxglove_video(order)) for order in "<>"]
    counts = dict.fromkeys(("unsupported", "malformed", "compressed", "no picture", "encoding", "picture"), 0)
    for _ in range(100_000):
        parse, cdr = generator.choice(whole)
        buffer = bytearray(cdr.bytes)
        for _ in range(generator.randrange(1, 4)):
            mutate(buffer, cdr.numbers, generator)
        counts[outcome(parse, bytes(buffer))] += 1
    assert min(counts.values()) > 500, counts


@pytest.mark.parametrize("form", ["cdr", "ros1"])
def test_memory_is_written_again_and_again_and_stamped_afterwards(form):
    writer, memory = ImageWriter(form), bytearray()
    for shape, sec in (((4, 6, 3), 1), ((4, 6, 3), 2), ((2, 5, 3), 3)):
        header = SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=5), frame_id="front")
        pixels = np.random.default_rng(sec).integers(0, 256, shape, np.uint8)
        writer.write(memory, SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0), frame_id="front"), "rgb8", pixels)
        writer.set_stamp(memory, header.stamp)
        assert bytes(memory) == writer.serialise(header, "rgb8", pixels)
    with pytest.raises(ValueError, match="stamp of 32 bits"):
        writer.set_stamp(memory, SimpleNamespace(sec=2**33, nanosec=0))


@pytest.mark.parametrize("representation", ["0006", "0007", "0009"])
def test_xcdr2_is_named_with_the_remedy(representation):
    with pytest.raises(
        WireError, match=f"got 0x{representation}, which is XCDR2: have its publisher write XCDR1"
    ) as caught:
        parse_image(bytes.fromhex(representation) + bytes(30))
    assert caught.value.unsupported
