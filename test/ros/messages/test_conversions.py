"""Every encoding of a camera as RGB, and pictures that are none."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from vidseg_core.data.wire import BYTES_PER_PIXEL, CompressedView, ImageView, Stamp, WireError
from vidseg_ros.messages.conversions import ENCODINGS, UnsupportedEncoding, compressed_to_rgb, to_rgb

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


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
def test_yuv_of_one_colour_is_that_colour(encoding):
    red, green, blue = COLOUR  # ITU-R BT.601, studio range
    luma = 16 + (65.738 * red + 129.057 * green + 25.064 * blue) / 256
    u = 128 + (-37.945 * red - 74.494 * green + 112.439 * blue) / 256
    v = 128 + (112.439 * red - 94.154 * green - 18.285 * blue) / 256
    quad = (u, luma, v, luma) if encoding in ("yuv422", "uyvy") else (luma, u, luma, v)
    stored = np.tile(np.round(quad).astype(np.uint8), (4, 3)).reshape(4, 6, 2)
    assert np.abs(to_rgb(image_view(encoding, stored, padding=2)).astype(int) - COLOUR).max() <= 2


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if "UC" not in name and "16" not in name])
def test_pixels_are_those_of_rosbags_image(encoding):
    reference = pytest.importorskip("rosbags.image", reason="needs rosbags-image")
    stored = np.random.default_rng(3).integers(0, 256, (6, 8, BYTES_PER_PIXEL[encoding]), np.uint8)
    message = SimpleNamespace(encoding=encoding, height=6, width=8, is_bigendian=0, data=stored)
    assert (to_rgb(image_view(encoding, stored)) == reference.image_to_cvimage(message, "rgb8")).all()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_padding_at_the_end_of_rows_is_not_picture(encoding):
    stored = np.random.default_rng(4).integers(0, 256, (6, 8, bytes_per_pixel(encoding)), np.uint8)
    packed = to_rgb(image_view(encoding, stored))
    assert packed.shape == (6, 8, 3) and packed.dtype == np.uint8
    assert (to_rgb(image_view(encoding, stored, padding=13)) == packed).all()


@pytest.mark.parametrize("encoding", ENCODINGS)
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


@pytest.mark.parametrize("encoding", ["32FC1", "nv12", "8UC2", "", "RGB8", "x" * 1000])
def test_encodings_that_are_not_known(encoding):
    with pytest.raises(
        UnsupportedEncoding, match="expected an encoding of rgb8, .*bayer_rggb8.*16UC1.*, got "
    ) as caught:
        to_rgb(image_view(encoding, np.zeros((2, 3, 8), np.uint8)))
    assert isinstance(caught.value, ValueError) and caught.value.encoding == encoding
    assert repr(encoding[:40])[:-1] in str(caught.value) and len(str(caught.value)) < 500


def encoded(suffix: str, image: np.ndarray) -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def test_png_is_exact(picture):
    data = encoded(".png", picture[..., ::-1])
    rgb = compressed_to_rgb(compressed_view("rgb8; png compressed bgr8", data))
    assert rgb.flags.c_contiguous and (rgb == picture).all()


def test_jpeg_is_the_picture():
    rgb = compressed_to_rgb(compressed_view("jpeg", encoded(".jpg", np.full((16, 24, 3), COLOUR[::-1], np.uint8))))
    assert rgb.shape == (16, 24, 3) and np.abs(rgb.astype(int) - COLOUR).max() <= 3


def test_compressed_grey_and_sixteen_bits(picture):
    grey = picture[..., 0]
    assert (
        compressed_to_rgb(compressed_view("mono8; png compressed ", encoded(".png", grey))) == grey[..., None]
    ).all()
    deep = grey.astype(np.uint16) * 256 + 7
    assert (compressed_to_rgb(compressed_view("png", encoded(".png", deep))) == grey[..., None]).all()


def test_a_jpeg_that_is_cut_short():
    data = encoded(".jpg", np.random.default_rng(5).integers(0, 256, (120, 160, 3), np.uint8))
    for kept in (1, 2, 20, len(data) // 4, len(data) // 2, len(data) - 100, len(data) - 1):
        with pytest.raises(WireError, match="compressed image of format 'jpeg'"):
            compressed_to_rgb(compressed_view("jpeg", data[:kept]))


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff\xd8\xff\xd9", b"\x89PNG", b"no picture at all", bytes(1000)])
@pytest.mark.parametrize("form", ["jpeg", "h264", "", "x" * 1000])
def test_compressed_bytes_that_are_no_picture(form, data):
    with pytest.raises(WireError, match="compressed image of format") as caught:
        compressed_to_rgb(compressed_view(form, data))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("form", ["compressedDepth", "16UC1; compressedDepth png", "32FC1; compressedDepth"])
def test_depth_is_no_picture(form):
    with pytest.raises(
        UnsupportedEncoding, match="expected an encoding of jpeg, png, webp, bmp, got .*compressedDepth"
    ):
        compressed_to_rgb(compressed_view(form, encoded(".png", np.zeros((4, 4), np.uint16))))
