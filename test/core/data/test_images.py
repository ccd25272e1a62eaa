import struct
import zlib

import cv2
import numpy as np
import pytest

from vidseg_core.data.images import decode_rgb, encode_png, list_images, read_label_image, read_rgb
from vidseg_core.errors import SourceError

RED = np.full((70, 80, 3), (200, 10, 20), np.uint8)


def encode(suffix, image=RED):
    return cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def test_natural_order_and_only_images(tmp_path):
    for name in ("f10.png", "f2.PNG", "f1.jpg", ".hidden.png", "notes.txt", "g.webp", "f1.bmp"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    names = [path.name for path in list_images(tmp_path)]
    assert names == ["f1.bmp", "f1.jpg", "f2.PNG", "f10.png", "g.webp"]
    assert [path.name for path in list_images(tmp_path, (".png",))] == ["f2.PNG", "f10.png"]


@pytest.mark.parametrize(("suffix", "tolerance"), [(".png", 0), (".bmp", 0), (".jpg", 4), (".webp", 4)])
def test_channels_come_as_rgb(tmp_path, suffix, tolerance):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encode(suffix))
    image = read_rgb(path, SourceError)
    assert image.shape == RED.shape and image.dtype == np.uint8
    assert np.abs(image.astype(int) - RED).max() <= tolerance


def test_grey_alpha_and_16_bit_become_rgb(tmp_path):
    grey = np.arange(70 * 80, dtype=np.uint16).reshape(70, 80) * 11
    cv2.imwrite(str(tmp_path / "grey.png"), (grey >> 8).astype(np.uint8))
    cv2.imwrite(str(tmp_path / "deep.png"), grey)
    cv2.imwrite(str(tmp_path / "alpha.png"), np.full((70, 80, 4), (20, 10, 200, 7), np.uint8))
    expected = np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_rgb(tmp_path / "grey.png", SourceError), expected)
    assert np.abs(read_rgb(tmp_path / "deep.png", SourceError).astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(read_rgb(tmp_path / "alpha.png", SourceError), RED)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_that_is_cut_short_is_an_error(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (70, 80, 3), dtype=np.uint8)
    data = encode(suffix, noise)
    path = tmp_path / f"half{suffix}"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(SourceError, match=f"half{suffix}: .*{int(share * len(data))} bytes"):
        read_rgb(path, SourceError)


def test_an_embedded_preview_does_not_stand_for_the_end_of_a_jpeg():
    data = encode(".jpg")
    preview = b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data
    whole = data[:2] + preview + data[2:]
    assert decode_rgb(whole, "whole", SourceError).shape == RED.shape
    with pytest.raises(SourceError, match="half: the image is cut short"):
        decode_rgb(whole[:-2], "half", SourceError)


def test_what_is_not_an_image_or_not_there(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(SourceError, match="text.png: not an image that can be decoded"):
        read_rgb(tmp_path / "text.png", SourceError)
    with pytest.raises(SourceError, match="absent.png: cannot be read: No such file"):
        read_rgb(tmp_path / "absent.png", SourceError)


def png(values, bits, kind):
    """A PNG file of few bits (kind 0, grey) or with a palette (kind 3), which OpenCV does not write."""
    height, width = values.shape
    spread = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = b"".join(b"\0" + np.packbits(row.astype(np.uint8).ravel()).tobytes() for row in spread)

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    colours = chunk(b"PLTE", bytes(range(3)) * (1 << bits)) + chunk(b"tRNS", bytes(2)) if kind == 3 else b""
    packed = zlib.compress(rows)
    data = chunk(b"IDAT", packed[:9]) + chunk(b"IDAT", packed[9:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + colours + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", [0, 3])
def test_ids_are_read_as_stored(tmp_path, bits, kind):
    values = np.random.default_rng(bits).integers(0, 1 << bits, (37, 41)).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(png(values, bits, kind))
    ids = read_label_image(tmp_path / "a.png", SourceError)
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, values)


def test_a_jpeg_is_no_label_file(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(".jpg"))
    with pytest.raises(SourceError, match="a.png: expected label ids as PNG, got a JPEG image"):
        read_label_image(tmp_path / "a.png", SourceError)


def test_pngs_are_lossless_and_about_as_small_as_at_a_level(shared_data):
    labels = cv2.imread(str(next((shared_data / "camvid/valannot").glob("*.png"))), cv2.IMREAD_UNCHANGED)
    image = cv2.imread(str(next((shared_data / "camvid/val").glob("*.png"))))[..., ::-1]
    for picture, shown, share in ((labels, labels, 0.8), (image, image[..., ::-1], 1.1)):
        data = encode_png(picture)
        np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), shown)
        level_1 = cv2.imencode(".png", shown, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].size
        if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # older OpenCV packs labels a little less
            assert len(data) <= share * level_1
