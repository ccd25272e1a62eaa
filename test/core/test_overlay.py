import numpy as np
import pytest

from vidseg_core.overlay import colorize, confidence_levels, overlay
from vidseg_core.threads import regardless, set_num_threads


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (67, 91, 3), dtype=np.uint8)
    labels = rng.integers(0, 5, (67, 91), dtype=np.uint8)
    labels[10:20, 30:40] = 255
    lut = rng.integers(0, 256, (256, 3), dtype=np.uint8)
    return image, labels, lut


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("opacity", [0.0, 0.3, 0.5, 1.0])
def test_overlay_is_the_blend_and_leaves_void_alone(picture, opacity, threads):
    image, labels, lut = picture
    set_num_threads(threads)
    with regardless():
        result = overlay(image, labels, lut, opacity)
    expected = image * (1 - opacity) + lut[labels] * opacity
    known = labels != 255
    assert np.abs(result.astype(float) - expected)[known].max() <= 0.5 + 255 / 512
    np.testing.assert_array_equal(result[~known], image[~known])
    if opacity == 0:
        np.testing.assert_array_equal(result, image)
    if opacity == 1:
        np.testing.assert_array_equal(result[known], lut[labels][known])


def test_overlay_reads_padded_rows_and_owns_its_result(picture):
    image, labels, lut = picture
    padded = np.zeros((67, 100, 3), dtype=np.uint8)
    padded[:, :91] = image
    result = overlay(padded[:, :91], labels, lut, 0.5)
    np.testing.assert_array_equal(result, overlay(image, labels, lut, 0.5))
    assert not np.shares_memory(result, padded)


def test_colorize_colours_void_too(picture):
    _, labels, lut = picture
    np.testing.assert_array_equal(colorize(labels, lut), lut[labels])


def test_bad_arguments(picture):
    image, labels, lut = picture
    with pytest.raises(ValueError, match=r"opacity: expected 0\.\.1, got 1\.5"):
        overlay(image, labels, lut, 1.5)
    with pytest.raises(ValueError, match="expected an image of"):
        overlay(image[1:], labels, lut, 0.5)


def test_confidence_in_levels_of_grey_is_of_the_image_s_size():
    grid = np.array([[0.0, 1.0], [0.5, 0.2]], np.float32)
    levels = confidence_levels(grid, (6, 8))
    assert levels.shape == (6, 8) and levels.dtype == np.uint8
    assert [levels[0, 0], levels[0, -1], levels[-1, 0], levels[-1, -1]] == [0, 255, 128, 51]
    assert (np.diff(levels[0].astype(int)) >= 0).all()


@pytest.mark.parametrize("width", [15, 16, 64, 75])
def test_blocks_of_one_label_of_several_and_of_void_are_drawn_alike(width):
    """Rows are drawn in blocks of 16 pixels, those of one label, of several and with void each in their way."""
    rng = np.random.default_rng(1)
    image, lut = (rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((6, width, 3), (256, 3)))
    labels = np.repeat(np.uint8([0, 3, 254, 255, 7, 255]), width).reshape(6, width)
    labels[4, ::3] = 254
    labels[5, ::2] = 9
    alpha = 179
    expected = (image.astype(np.uint32) * (256 - alpha) + lut[labels].astype(np.uint32) * alpha + 128) >> 8
    expected[labels == 255] = image[labels == 255]
    np.testing.assert_array_equal(overlay(image, labels, lut, alpha / 256), expected)
    np.testing.assert_array_equal(colorize(labels, lut), lut[labels])


def test_pictures_that_lie_otherwise_in_memory(picture):
    image, labels, lut = picture
    mirrored = overlay(image[:, ::-1], labels[:, ::-1], lut, 0.5)
    np.testing.assert_array_equal(mirrored, overlay(image, labels, lut, 0.5)[:, ::-1])
