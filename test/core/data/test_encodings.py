"""Every encoding of a camera as RGB, and pictures that are none."""

import re
import struct

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from vidseg_core.data.encodings import ENCODINGS, UnsupportedEncoding, to_rgb
from vidseg_core.data.open import open_source
from vidseg_core.data.wire import BYTES_PER_PIXEL, CompressedView, ImageView, Stamp, WireError, parse_image
from vidseg_core.errors import SourceError

PLANAR = ("nv12", "nv21", "nv24")
ONE_PLANE = [name for name in ENCODINGS if name not in PLANAR]
SIXTEEN_BIT = [name for name in ENCODINGS if "16" in name]
COLOUR = (200, 120, 40)
BAYER = {"rggb": [[0, 1], [1, 2]], "bggr": [[2, 1], [1, 0]], "gbrg": [[1, 2], [0, 1]], "grbg": [[1, 0], [2, 1]]}


def bytes_per_pixel(encoding: str) -> int:
    if encoding in BYTES_PER_PIXEL:
        return BYTES_PER_PIXEL[encoding]
    channels = {"mono16": 1, "16UC1": 1, "16UC3": 3, "16UC4": 4, "rgb16": 3, "bgr16": 3, "rgba16": 4, "bgra16": 4}
    return 2 * channels.get(encoding, 1)


def image_view(encoding: str, pixels: np.ndarray, padding: int = 0, is_bigendian: int = 0, **lies) -> ImageView:
    """Of H x W (x C) pixels of any type, with garbage at the end of the rows."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1).view(np.uint8)
    rows = np.concatenate((rows, np.full((height, padding), 171, np.uint8)), axis=1)
    fields = {"height": height, "width": width, "step": rows.shape[1], "data": np.frombuffer(rows.tobytes(), np.uint8)}
    return ImageView(Stamp(1, 2), "cam", encoding=encoding, is_bigendian=is_bigendian, **{**fields, **lies})


def compressed_view(form: str, data: bytes) -> CompressedView:
    return CompressedView(Stamp(1, 2), "cam", format=form, data=np.frombuffer(data, np.uint8))


@pytest.fixture
def picture() -> np.ndarray:
    """H x W x 3, uint8, RGB."""
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


@pytest.mark.parametrize("padding", [0, 5])
def test_rgb8_is_the_message_itself(picture, padding):
    view = image_view("rgb8", picture, padding)
    rgb = to_rgb(view)
    assert np.shares_memory(rgb, view.data) and not rgb.flags.writeable
    assert rgb.strides == (24 + padding, 3, 1)
    assert (rgb == picture).all()


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encodings", "order"),
    [
        (("bgr8", "8UC3"), (2, 1, 0)),
        (("rgba8",), (0, 1, 2, None)),
        (("bgra8", "8UC4"), (2, 1, 0, None)),
    ],
)
def test_orders_of_channels(picture, encodings, order, padding):
    alpha = np.full(picture.shape[:2], 9, np.uint8)
    stored = np.dstack([alpha if channel is None else picture[..., channel] for channel in order])
    for encoding in encodings:
        rgb = to_rgb(image_view(encoding, stored, padding))
        assert rgb.flags.c_contiguous and (rgb == picture).all()


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_is_three_equal_channels(picture, encoding):
    grey = np.ascontiguousarray(picture[..., 0])
    assert (to_rgb(image_view(encoding, grey, padding=3)) == grey[..., None]).all()


@pytest.mark.parametrize("is_bigendian", [0, 1])
@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
def test_sixteen_bits_of_grey_are_scaled_by_256(encoding, is_bigendian):
    values = np.array([[0, 1, 255, 256], [257, 32768, 65279, 65535]])
    stored = values.astype(">u2" if is_bigendian else "<u2")
    rgb = to_rgb(image_view(encoding, stored, padding=3, is_bigendian=is_bigendian))
    assert (rgb == [[[0], [0], [0], [1]], [[1], [128], [254], [255]]]).all()


@pytest.mark.parametrize("encoding", SIXTEEN_BIT)
def test_sixteen_bits_are_the_eight_upper_ones(encoding):
    channels = bytes_per_pixel(encoding) // 2
    values = np.random.default_rng(2).integers(0, 65536, (6, 8, channels))
    eight = encoding.replace("16UC", "8UC").replace("16", "8")
    expected = to_rgb(image_view(eight, (values // 256).astype(np.uint8)))
    for is_bigendian, form in ((0, "<u2"), (1, ">u2")):
        assert (to_rgb(image_view(encoding, values.astype(form), is_bigendian=is_bigendian)) == expected).all()


@pytest.mark.parametrize("pattern", BAYER)
def test_a_mosaic_of_one_colour_is_that_colour(pattern):
    mosaic = np.tile(np.array(COLOUR, np.uint8)[BAYER[pattern]], (4, 5))
    assert (to_rgb(image_view(f"bayer_{pattern}8", mosaic)) == COLOUR).all()
    assert (to_rgb(image_view(f"bayer_{pattern}16", mosaic.astype("<u2") * 256 + 99)) == COLOUR).all()


def yuv_of(red, green, blue) -> np.ndarray:
    """Convert by ITU-R BT.601 to studio range, uint8."""
    luma = 16 + (65.738 * red + 129.057 * green + 25.064 * blue) / 256
    u = 128 + (-37.945 * red - 74.494 * green + 112.439 * blue) / 256
    v = 128 + (112.439 * red - 94.154 * green - 18.285 * blue) / 256
    return np.round((luma, u, v)).astype(np.uint8)


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
def test_yuv_of_one_colour_is_that_colour(encoding):
    luma, u, v = yuv_of(*COLOUR)
    quad = (u, luma, v, luma) if encoding in ("yuv422", "uyvy") else (luma, u, luma, v)
    stored = np.tile(np.array(quad), (4, 3)).reshape(4, 6, 2)
    assert np.abs(to_rgb(image_view(encoding, stored, padding=2)).astype(int) - COLOUR).max() <= 2


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
def test_every_pixel_of_yuv_has_its_own_luma(encoding):
    luma = np.random.default_rng(6).integers(16, 236, (4, 6), np.uint8)
    grey = np.full_like(luma, 128)
    stored = np.dstack((grey, luma) if encoding in ("yuv422", "uyvy") else (luma, grey))
    expected = (luma[..., None].astype(float) - 16) * 255 / 219
    assert np.abs(to_rgb(image_view(encoding, stored)) - expected).max() <= 1


def planes(encoding: str, blocks: np.ndarray, lumas: np.ndarray, padding: int = 0) -> np.ndarray:
    """Rows of luma and colour of a picture, `padding` bytes of garbage behind each: 1-D, uint8.

    Args:
        blocks: colours, RGB, of the blocks that share one: 2 x 2 pixels, or of one pixel for nv24.
        lumas: of the pixels, added to those of their colours.
    """
    size = 1 if encoding == "nv24" else 2
    yuv = yuv_of(*np.moveaxis(blocks.astype(float), -1, 0))
    luma = yuv[0].repeat(size, 0).repeat(size, 1) + lumas
    pairs = np.dstack((yuv[2], yuv[1]) if encoding == "nv21" else (yuv[1], yuv[2]))
    colour = pairs.reshape(len(pairs), -1)
    if encoding == "nv24":  # its rows of colour are two of luma long
        padded = np.pad(colour, ((0, 0), (0, 2 * padding)), constant_values=171).reshape(-1)
    else:
        padded = np.pad(colour, ((0, 0), (0, padding)), constant_values=171).reshape(-1)
    return np.concatenate((np.pad(luma, ((0, 0), (0, padding)), constant_values=171).reshape(-1), padded))


def planar_view(encoding: str, data: np.ndarray, height: int, width: int, step: int) -> ImageView:
    return ImageView(Stamp(1, 2), "cam", height, width, encoding, 0, step, data)


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", PLANAR)
def test_two_planes(encoding, padding):
    height, width, size = 6, 8, 1 if encoding == "nv24" else 2
    blocks = np.random.default_rng(7).integers(60, 190, (height // size, width // size, 3))
    data = planes(encoding, blocks, np.zeros((height, width), np.uint8), padding)
    assert data.size == (width + padding) * height * (3 if encoding == "nv24" else 1.5)
    rgb = to_rgb(planar_view(encoding, data, height, width, width + padding))
    assert rgb.shape == (height, width, 3) and rgb.dtype == np.uint8 and rgb.flags.c_contiguous
    assert np.abs(rgb.astype(int) - blocks.repeat(size, 0).repeat(size, 1)).max() <= 3
    with_more = np.concatenate((data, np.full(5, 9, np.uint8)))
    assert (to_rgb(planar_view(encoding, with_more, height, width, width + padding)) == rgb).all()
    with pytest.raises(WireError, match=f"expected at least {data.size} bytes of data for 8 x 6 pixels of {encoding}"):
        to_rgb(planar_view(encoding, data[:-1], height, width, width + padding))
    with pytest.raises(WireError, match="step of at least 8 bytes"):
        to_rgb(planar_view(encoding, data, height, width, 7))
    for height, width in ((0, 8), (6, 0)):
        with pytest.raises(WireError, match=f"image with pixels, got {width} x {height}"):
            to_rgb(planar_view(encoding, data, height, width, 8))


@pytest.mark.parametrize("encoding", PLANAR)
def test_every_pixel_of_two_planes_has_its_own_luma(encoding):
    size = 1 if encoding == "nv24" else 2
    lumas = np.random.default_rng(8).integers(0, 200, (6, 8), np.uint8)
    rgb = to_rgb(planar_view(encoding, planes(encoding, np.zeros((6 // size, 8 // size, 3)), lumas), 6, 8, 8))
    assert np.abs(rgb - lumas[..., None].astype(float) * 255 / 219).max() <= 1


@pytest.mark.parametrize("encoding", PLANAR)
def test_packed_planes_whose_step_counts_both(encoding):
    """Some drivers have divided the size of the data by the height for it."""
    size, share = (1, 3) if encoding == "nv24" else (2, 1.5)
    blocks = np.random.default_rng(9).integers(60, 190, (6 // size, 8 // size, 3))
    data = planes(encoding, blocks, np.zeros((6, 8), np.uint8))
    expected = to_rgb(planar_view(encoding, data, 6, 8, 8))
    assert (to_rgb(planar_view(encoding, data, 6, 8, int(8 * share))) == expected).all()


@pytest.mark.parametrize("size", [(6, 7), (5, 8)])
def test_blocks_of_four_pixels_need_even_sizes(size):
    data = np.zeros(1000, np.uint8)
    for encoding in ("nv12", "nv21"):
        with pytest.raises(WireError, match=f"{size[1]} x {size[0]} pixels cannot be {encoding}: expected an even"):
            to_rgb(planar_view(encoding, data, *size, 8))
    assert to_rgb(planar_view("nv24", data, *size, 8)).shape == (*size, 3)


@pytest.mark.parametrize("encoding", ONE_PLANE)
def test_more_data_than_rows_are_not_looked_at(encoding):
    """A driver may send the whole of a larger buffer."""
    stored = np.random.default_rng(10).integers(0, 256, (6, 8, bytes_per_pixel(encoding)), np.uint8)
    view = image_view(encoding, stored)
    longer = np.concatenate((view.data, np.full(5, 9, np.uint8)))
    assert (to_rgb(image_view(encoding, stored, data=longer)) == to_rgb(view)).all()


@pytest.mark.parametrize("encoding", ["32FC1", "16SC1", "64FC3"])
def test_measurements_are_refused_with_the_reason(encoding):
    with pytest.raises(UnsupportedEncoding, match=f"got '{encoding}', which holds measurements such as depth"):
        to_rgb(image_view(encoding, np.zeros((2, 3, 8), np.uint8)))
    with pytest.raises(UnsupportedEncoding, match="got '8UC2'$"):
        to_rgb(image_view("8UC2", np.zeros((2, 3, 2), np.uint8)))


def serialized(view: ImageView) -> bytes:
    """Plain little-endian CDR."""
    parts = bytearray(b"\0\1\0\0" + struct.pack("<iI", *view.stamp))
    for field in (view.frame_id, view.height, view.width, view.encoding, view.is_bigendian, view.step, view.data):
        if field is view.is_bigendian:
            parts.append(field)
            continue
        parts += bytes(-len(parts) % 4)
        if isinstance(field, int):
            parts += struct.pack("<I", field)
        else:
            raw = field.encode() + b"\0" if isinstance(field, str) else field.tobytes()
            parts += struct.pack("<I", len(raw)) + raw
    return bytes(parts)


def record(path, views: list[ImageView]):
    store, kind = get_typestore(Stores.ROS2_HUMBLE), "sensor_msgs/msg/Image"
    with Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/image", kind, typestore=store)
        for i, view in enumerate(views):
            writer.write(connection, i * 50_000_000, serialized(view))
    return path


def test_recordings_give_the_pixels_that_the_node_sees(tmp_path):
    """The node parses and converts as here; all encodings in one recording."""
    generator = np.random.default_rng(11)
    views = []
    for encoding in ENCODINGS:
        for padding in (0, 6):
            if encoding in PLANAR:
                data = generator.integers(0, 256, (80 + padding) * 72 * 3, np.uint8)
                views.append(planar_view(encoding, data, 72, 80, 80 + padding))
            else:
                stored = generator.integers(0, 256, (72, 80, bytes_per_pixel(encoding)), np.uint8)
                views.append(image_view(encoding, stored, padding, is_bigendian=padding // 6))
    frames = list(open_source(record(tmp_path / "bag", views)))
    assert len(frames) == len(views) == 2 * len(ENCODINGS)
    for view, frame in zip(views, frames, strict=True):
        parsed = parse_image(serialized(view))
        assert (parsed.encoding, parsed.is_bigendian, parsed.step) == (view.encoding, view.is_bigendian, view.step)
        np.testing.assert_array_equal(frame.image, to_rgb(parsed), err_msg=view.encoding)


def test_recordings_refuse_with_the_words_of_the_node(tmp_path):
    stored = np.zeros((72, 80, 3), np.uint8)
    wrong = [image_view(encoding, stored) for encoding in ("32FC1", "nv16", "", "16SC1")]
    wrong += [
        image_view("rgb8", stored, **lie) for lie in ({"height": 0}, {"step": 10}, {"data": np.zeros(9, np.uint8)})
    ]
    wrong += [planar_view(encoding, np.zeros(10**5, np.uint8), 71, 80, 80) for encoding in ("nv12", "nv21")]
    for i, view in enumerate(wrong):
        with pytest.raises((UnsupportedEncoding, WireError)) as of_node:
            to_rgb(parse_image(serialized(view)))
        with pytest.raises(SourceError, match=re.escape(f"/image: message 000000: {of_node.value}")):
            list(open_source(record(tmp_path / str(i), [view])))


@pytest.mark.parametrize("encoding", ONE_PLANE)
def test_padding_at_the_end_of_rows_is_not_picture(encoding):
    stored = np.random.default_rng(4).integers(0, 256, (6, 8, bytes_per_pixel(encoding)), np.uint8)
    packed = to_rgb(image_view(encoding, stored))
    assert packed.shape == (6, 8, 3) and packed.dtype == np.uint8
    assert (to_rgb(image_view(encoding, stored, padding=13)) == packed).all()


@pytest.mark.parametrize("encoding", ONE_PLANE)
def test_pictures_that_contradict_their_fields(encoding):
    stored = np.zeros((6, 8, bytes_per_pixel(encoding)), np.uint8)
    short = np.zeros(stored.size - 1, np.uint8)
    for lies in (
        {"height": 0},
        {"width": 0},
        {"width": 9},
        {"height": 7},
        {"step": 1},
        {"step": 2**31},
        {"data": short},
    ):
        with pytest.raises(WireError, match="expected"):
            to_rgb(image_view(encoding, stored, **lies))


def test_yuv422_of_odd_width():
    with pytest.raises(WireError, match="7 x 2 pixels cannot be yuv422"):
        to_rgb(image_view("yuv422", np.zeros((2, 7, 2), np.uint8)))


@pytest.mark.parametrize("encoding", ["32FC1", "nv16", "8UC2", "", "RGB8", "x" * 1000])
def test_encodings_that_are_not_known(encoding):
    with pytest.raises(
        UnsupportedEncoding, match="expected an encoding of rgb8, .*bayer_rggb8.*16UC1.*nv24, got "
    ) as caught:
        to_rgb(image_view(encoding, np.zeros((2, 3, 8), np.uint8)))
    assert isinstance(caught.value, ValueError) and caught.value.encoding == encoding
    assert repr(encoding[:40])[:-1] in str(caught.value) and len(str(caught.value)) < 500


def encoded(suffix: str, image: np.ndarray) -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def test_png_is_exact(picture):
    data = encoded(".png", picture[..., ::-1])
    rgb = to_rgb(compressed_view("rgb8; png compressed bgr8", data))
    assert rgb.flags.c_contiguous and (rgb == picture).all()


def test_jpeg_is_the_picture():
    rgb = to_rgb(compressed_view("jpeg", encoded(".jpg", np.full((16, 24, 3), COLOUR[::-1], np.uint8))))
    assert rgb.shape == (16, 24, 3) and np.abs(rgb.astype(int) - COLOUR).max() <= 3


def test_compressed_grey_and_sixteen_bits(picture):
    grey = picture[..., 0]
    assert (to_rgb(compressed_view("mono8; png compressed ", encoded(".png", grey))) == grey[..., None]).all()
    deep = grey.astype(np.uint16) * 256 + 7
    assert (to_rgb(compressed_view("png", encoded(".png", deep))) == grey[..., None]).all()


def test_a_jpeg_that_is_cut_short():
    data = encoded(".jpg", np.random.default_rng(5).integers(0, 256, (120, 160, 3), np.uint8))
    for kept in (1, 2, 20, len(data) // 4, len(data) // 2, len(data) - 100, len(data) - 1):
        with pytest.raises(WireError, match="compressed image of format 'jpeg'"):
            to_rgb(compressed_view("jpeg", data[:kept]))


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff\xd8\xff\xd9", b"\x89PNG", b"no picture at all", bytes(1000)])
@pytest.mark.parametrize("form", ["jpeg", "h264", "", "x" * 1000])
def test_compressed_bytes_that_are_no_picture(form, data):
    with pytest.raises(WireError, match="compressed image of format") as caught:
        to_rgb(compressed_view(form, data))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("form", ["compressedDepth", "16UC1; compressedDepth png", "32FC1; compressedDepth"])
def test_depth_is_no_picture(form):
    with pytest.raises(
        UnsupportedEncoding, match="expected an encoding of jpeg, png, webp, bmp, got .*compressedDepth"
    ):
        to_rgb(compressed_view(form, encoded(".png", np.zeros((4, 4), np.uint16))))


def test_the_reference_lists_these_encodings(checkout):
    text = (checkout / "docs" / "reference.md").read_text(encoding="utf-8")
    rows = text.partition("## Image encodings")[2].partition("\n\nRows are")[0].splitlines()
    named = [name for row in rows if row.startswith("| `") for name in re.findall("`(.+?)`", row.split("|")[1])]
    assert len(rows) > 8 and sorted(named) == sorted(ENCODINGS)
