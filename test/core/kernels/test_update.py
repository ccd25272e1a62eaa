import numpy as np
import torch

from vidseg_core.kernels.update import TOLERANCE, update


def test_an_update_takes_the_place_of_what_the_past_does_not_show():
    carried, fresh = torch.randn(1, 5, 12, 16), torch.randn(1, 5, 4, 6)
    enlarged = torch.nn.functional.interpolate(fresh, (12, 16), mode="bilinear", align_corners=True)
    apart = torch.zeros(1, 1, 12, 16)
    apart[..., 4:8], apart[..., 8:] = TOLERANCE, torch.inf
    updated = update(carried, fresh, apart)
    np.testing.assert_array_equal(update(carried.numpy(), fresh.numpy(), apart.numpy()), updated.numpy())
    assert torch.equal(updated[..., :4], carried[..., :4])
    between = torch.lerp(enlarged, carried, float(np.exp(-1)))
    assert torch.allclose(updated[..., 4:8], between[..., 4:8], atol=1e-5)
    assert torch.allclose(updated[..., 8:], enlarged[..., 8:], atol=1e-6)
