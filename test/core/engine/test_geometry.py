import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vidseg_core.devices import CPU
from vidseg_core.engine.geometry import View, grid_size, network_size
from vidseg_core.kernels.resample import network_input, resize
from vidseg_core.networks.normalisation import MEAN_RGB, STD_RGB


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)


def reference(image, size):
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


@pytest.mark.parametrize("size", [(12, 16), (97, 131), (130, 200), (24, 32)])
def test_network_input_resizes_and_normalises(image, size):
    expected = reference(image, size)
    np.testing.assert_allclose(network_input(image, size, normalised=False), expected, rtol=0, atol=2e-3)
    mean, std = torch.tensor(MEAN_RGB).view(1, 3, 1, 1), torch.tensor(STD_RGB).view(1, 3, 1, 1)
    rgb = network_input(image, size)
    np.testing.assert_allclose(rgb, (expected - mean) / std, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(network_input(image, size, bgr=True), rgb[:, ::-1])
    assert rgb.transpose(0, 2, 3, 1).flags.c_contiguous


def test_padded_rows_are_read_right(image):
    padded = np.zeros((97, 140, 3), dtype=np.uint8)
    padded[:, :131] = image
    np.testing.assert_array_equal(network_input(padded[:, :131], (24, 32)), network_input(image, (24, 32)))


def test_view_makes_a_form_once(image):
    view = View(image, (12, 16), CPU)
    assert view.grid_bgr is view.grid_bgr and view.grid_bgr.shape == (1, 3, 12, 16)
    assert view.grid_rgb.max() > 100


def test_what_is_compared_comes_from_the_pyramid_s_pass():
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    alone, along = (View(image, (12, 16), CPU) for _ in range(2))
    along.compares = True
    for ours, expected in zip(along.pyramid((48, 64)), alone.pyramid((48, 64)), strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert alone.shrunk is None and along.shrunk is not None and along.shrunk.shape == (1, 3, 48, 64)
    assert np.abs(along.picture.astype(int) - alone.picture).max() <= 1
    assert np.abs(along.small() - alone.small()).max() <= 1 and along.small().shape == (12, 16)
    handed_on = View(image, (12, 16), CPU, shrunk=along.shrunk)
    np.testing.assert_array_equal(handed_on.picture, along.picture)


def test_sizes():
    assert grid_size((360, 480), 8) == (45, 60) and grid_size((363, 487), 4) == (90, 121)
    assert network_size((1024, 2048), 0.75) == (768, 1536)  # as published
    assert network_size((360, 640), 1.5) == (544, 960) and network_size((64, 80), 0.1) == (32, 32)


def test_resize_leaves_what_fits():
    x = torch.zeros(1, 2, 5, 6)
    assert resize(x, (5, 6)) is x
