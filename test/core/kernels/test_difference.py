import numpy as np
import pytest
import torch

from vidseg_core.kernels.difference import difference
from vidseg_core.kernels.picture import grid_picture
from vidseg_core.kernels.warp import warp


def scene(seed, size=(48, 64)):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    return np.ascontiguousarray(np.kron(coarse, np.ones((8, 8, 1), dtype=np.uint8)))


def test_what_stayed_the_same_does_not_differ_and_what_changed_does():
    image = scene(0)
    changed = image.copy()
    changed[:, 32:] = 255 - changed[:, 32:]
    past, current = (grid_picture(x, (24, 32)) for x in (image, changed))
    apart = difference(current, past, None)
    assert apart.dtype == np.float32 and apart.shape == (1, 1, 24, 32)
    assert (apart[..., :12] == 0).all() and apart[..., 20:].mean() > 60
    np.testing.assert_array_equal(apart, np.abs(current.astype(np.int32) - past).mean(1, keepdims=True, dtype="f4"))
    of_tensors = difference(torch.from_numpy(current), torch.from_numpy(past), None)
    np.testing.assert_array_equal(of_tensors.numpy(), apart)


def test_the_past_picture_is_moved_along_the_flow_and_knows_nothing_beside_itself():
    image = scene(1)
    moved = np.roll(image, 8, axis=1)  # things go 8 pixels to the right, 4 on the grid
    past, current = (grid_picture(x, (24, 32)) for x in (image, moved))
    flow = np.zeros((1, 2, 24, 32), dtype=np.float32)
    flow[:, 0] = -4
    apart = difference(current, past, flow)[0, 0]
    assert np.isinf(apart[:, :4]).all(), "these pixels come from outside"
    assert apart[:, 8:28].max() < 1
    assert difference(current, past, None)[0, 0, :, 8:28].mean() > 20


@pytest.mark.parametrize("size", [(24, 32), (23, 41), (1, 1)])
def test_the_kernel_computes_what_tensors_do(size):
    generator = torch.Generator().manual_seed(2)
    current, past = (torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=generator) for _ in range(2))
    motion = 6 * torch.randn(1, 2, *size, generator=generator)
    h, w = size
    x, y = torch.arange(w) + motion[:, 0], torch.arange(h)[:, None] + motion[:, 1]
    outside = ((x < 0) | (x > w - 1) | (y < 0) | (y > h - 1))[0]
    expected = (current.float() - warp(past.float(), motion, padding="border")).abs().mean(1)[0]
    apart = difference(current, past, motion)[0, 0]
    assert torch.equal(torch.isinf(apart), outside)
    assert torch.allclose(apart[~outside], expected[~outside], atol=1e-3)
