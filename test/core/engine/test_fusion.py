import numpy as np
import pytest
import torch

from vidseg_core.engine.fusion import TOLERANCE, UPDATE_TOLERANCE, WEIGHT, fuse, picture, update
from vidseg_core.engine.geometry import View
from vidseg_core.kernels.difference import difference
from vidseg_core.kernels.warp import warp

CPU = torch.device("cpu")


def scene(seed, size=(48, 64)):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    return np.ascontiguousarray(np.kron(coarse, np.ones((8, 8, 1), dtype=np.uint8)))


def test_what_stayed_the_same_does_not_differ_and_what_changed_does():
    image = scene(0)
    changed = image.copy()
    changed[:, 32:] = 255 - changed[:, 32:]
    past, current = (picture(View(x, (24, 32), CPU)) for x in (image, changed))
    apart = difference(current, past, None)[0, 0]
    assert (apart[:, :12] == 0).all()
    lone = (current.float() - past.float()).abs().mean(1)[0]
    assert torch.equal(apart, lone) and apart[:, 20:].mean() > 60


def test_the_past_picture_is_moved_along_the_flow_and_knows_nothing_beside_itself():
    image = scene(1)
    moved = np.roll(image, 8, axis=1)  # things go 8 pixels to the right, 4 on the grid
    past, current = (picture(View(x, (24, 32), CPU)) for x in (image, moved))
    flow = torch.zeros(1, 2, 24, 32)
    flow[:, 0] = -4
    apart = difference(current, past, flow)[0, 0]
    assert torch.isinf(apart[:, :4]).all(), "these pixels come from outside"
    assert apart[:, 8:28].max() < 1
    assert difference(current, past, None)[0, 0, :, 8:28].mean() > 20


@pytest.mark.parametrize("size", [(24, 32), (23, 41), (1, 1)])
def test_the_kernel_computes_what_tensors_do(size):
    """On other devices than the CPU there is no kernel."""
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


def test_fusing_mixes_probabilities_at_the_scores_own_size():
    scores, carried = torch.randn(1, 5, 12, 16), torch.randn(1, 5, 6, 8)
    same, other = torch.zeros(1, 1, 6, 8), torch.full((1, 1, 6, 8), torch.inf)
    assert torch.allclose(fuse(scores, carried, other).exp(), scores.softmax(1), atol=1e-5)
    past = torch.nn.functional.interpolate(carried, (12, 16), mode="bilinear", align_corners=True).softmax(1)
    expected = (1 - WEIGHT) * scores.softmax(1) + WEIGHT * past
    assert torch.allclose(fuse(scores, carried, same).exp(), expected, atol=1e-5)
    share = WEIGHT * np.exp(-1)
    mixed = fuse(scores, carried, same + TOLERANCE).exp()
    assert torch.allclose(mixed, (1 - share) * scores.softmax(1) + share * past, atol=1e-5)


def test_an_update_takes_the_place_of_what_the_past_does_not_show():
    carried, fresh = torch.randn(1, 5, 12, 16), torch.randn(1, 5, 4, 6)
    enlarged = torch.nn.functional.interpolate(fresh, (12, 16), mode="bilinear", align_corners=True)
    apart = torch.zeros(1, 1, 12, 16)
    apart[..., 4:8], apart[..., 8:] = UPDATE_TOLERANCE, torch.inf
    updated = update(carried, fresh, apart)
    assert torch.allclose(updated[..., :4], carried[..., :4])
    between = torch.lerp(enlarged, carried, float(np.exp(-1)))
    assert torch.allclose(updated[..., 4:8], between[..., 4:8], atol=1e-5)
    assert torch.allclose(updated[..., 8:], enlarged[..., 8:])


def test_the_picture_owns_its_memory():
    image = scene(2)
    kept = picture(View(image, (24, 32), CPU))
    before = kept.clone()
    image[:] = 0
    assert torch.equal(kept, before)
