import cv2
import numpy as np
import pytest
import torch

from vidseg_core.kernels.change import change, small_picture


def textured(left=0, size=(240, 320)):
    """A part of a large picture, `left` pixels from its middle."""
    rng = np.random.default_rng(0)
    large = cv2.resize(rng.integers(0, 256, (30, 80, 3), dtype=np.uint8), (640, 240), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(large[: size[0], 160 + left : 160 + left + size[1]])


def sideways(pixels, stride=4, size=(240, 320)):
    """Flow on the grid of an image that has moved by so many of its pixels."""
    motion = torch.zeros(1, 2, size[0] // stride, size[1] // stride)
    motion[:, 0] = pixels / stride
    return motion


def test_small_pictures():
    small = small_picture(textured())
    assert small.shape == (30, 40) and small.dtype == np.float32 and 0 <= small.min() < small.max() <= 255


def test_the_same_picture_has_not_changed_and_another_has():
    small = small_picture(textured())
    assert change(small, small, None) == 0
    other = small_picture(255 - textured())
    assert change(other, small, None) > 0.6


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_what_flow_explains_is_no_change_but_what_comes_in_from_outside_is(stride):
    past, current = small_picture(textured()), small_picture(textured(32))  # the scene moves 32 pixels to the left
    explained = change(current, past, sideways(32, stride))
    assert explained == pytest.approx(32 / 320, abs=0.03)
    assert change(current, past, None) > 0.3


def test_exposure_is_no_change():
    small = small_picture(textured())
    assert change(small + 30, small, None) == pytest.approx(0, abs=1e-4)
