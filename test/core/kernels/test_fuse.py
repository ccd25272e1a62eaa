import numpy as np
import torch

from vidseg_core.kernels.fuse import TOLERANCE, WEIGHT, fuse


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


def test_arrays_give_arrays():
    scores, carried, apart = torch.randn(1, 5, 12, 16), torch.randn(1, 5, 6, 8), torch.full((1, 1, 6, 8), 3.0)
    mixed = fuse(scores.numpy(), carried.numpy(), apart.numpy(), (48, 64))
    assert isinstance(mixed, np.ndarray) and mixed.dtype == np.float32
    np.testing.assert_array_equal(mixed, fuse(scores, carried, apart, (48, 64)).numpy())
