import cv2
import numpy as np
import pytest

from vidseg_core.data.images import decode_rgb, list_images, read_rgb, read_unchanged
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
    assert read_unchanged(tmp_path / "deep.png", SourceError).dtype == np.uint16
    assert read_unchanged(tmp_path / "grey.png", SourceError).shape == (70, 80)


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
