import numpy as np
import torch

from vidseg_core.engine.fusion import WEIGHT, fuse, past_weight, picture
from vidseg_core.engine.geometry import View

CPU = torch.device("cpu")


def scene(seed, size=(48, 64)):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    return np.ascontiguousarray(np.kron(coarse, np.ones((8, 8, 1), dtype=np.uint8)))


def test_the_past_counts_where_the_picture_is_the_same_and_not_where_it_is_another():
    image = scene(0)
    changed = image.copy()
    changed[:, 32:] = 255 - changed[:, 32:]
    past, current = (picture(View(x, (24, 32), CPU)) for x in (image, changed))
    weight = past_weight(current, past, None)[0, 0]
    assert torch.allclose(weight[:, :12], torch.tensor(WEIGHT)) and weight[:, 20:].mean() < 0.05


def test_the_past_picture_is_moved_along_the_flow_and_does_not_count_beside_itself():
    image = scene(1)
    moved = np.roll(image, 8, axis=1)  # things go 8 pixels to the right, 4 on the grid
    past, current = (picture(View(x, (24, 32), CPU)) for x in (image, moved))
    flow = torch.zeros(1, 2, 24, 32)
    flow[:, 0] = -4
    weight = past_weight(current, past, flow)[0, 0]
    assert (weight[:, :4] == 0).all(), "these pixels come from outside"
    assert torch.allclose(weight[:, 8:28], torch.tensor(WEIGHT), atol=0.02)
    assert past_weight(current, past, None)[0, 0, :, 8:28].mean() < WEIGHT / 2


def test_fusing_mixes_probabilities_at_the_scores_own_size():
    scores, carried = torch.randn(1, 5, 12, 16), torch.randn(1, 5, 6, 8)
    none, all_of_it = torch.zeros(1, 1, 6, 8), torch.ones(1, 1, 6, 8)
    assert torch.allclose(fuse(scores, carried, none).exp(), scores.softmax(1), atol=1e-5)
    past = torch.nn.functional.interpolate(carried, (12, 16), mode="bilinear", align_corners=True).softmax(1)
    assert torch.allclose(fuse(scores, carried, all_of_it).exp(), past, atol=1e-5)
    half = fuse(scores, carried, all_of_it / 2).exp()
    assert torch.allclose(half, (past + scores.softmax(1)) / 2, atol=1e-5)


def test_the_picture_owns_its_memory():
    image = scene(2)
    kept = picture(View(image, (24, 32), CPU))
    before = kept.clone()
    image[:] = 0
    assert torch.equal(kept, before)
