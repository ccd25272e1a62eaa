"""Resizing of images with smoothing: to the bit as Pillow's, which image processors of others call."""

import numpy as np
import pytest

from vidseg_core.kernels.smooth import smooth_resize

Image = pytest.importorskip("PIL.Image")


@pytest.mark.parametrize("size", [(30, 41), (90, 100), (45, 64), (60, 77), (7, 200), (1, 1)])
@pytest.mark.parametrize(("how", "number"), [("bilinear", 2), ("bicubic", 3)])
def test_every_value_is_pillows(size, how, number):
    image = np.random.default_rng(0).integers(0, 256, (60, 77, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], number))
    apart = np.abs(smooth_resize(image, size, how).astype(int) - expected)
    assert apart.max() <= (size == (7, 200)), "where rows come first, older versions of Pillow take columns first"


def test_a_picture_of_that_size_is_itself():
    image = np.zeros((4, 5, 3), np.uint8)
    assert smooth_resize(image, (4, 5), "bilinear") is image
