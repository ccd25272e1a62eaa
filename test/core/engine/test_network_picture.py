"""Pictures as networks of others want them."""

import numpy as np
import pytest

from vidseg_core.kernels.stretch import stretch


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
def test_pytorchs_rounding_is_apart_from_pillows_by_one_level_in_places(how):
    image = np.random.default_rng(0).integers(0, 256, (120, 214, 3), dtype=np.uint8)
    pillow, pytorch = (stretch(image, (60, 71), name).astype(int) for name in (how, f"torch_{how}"))
    assert np.abs(pillow - pytorch).max() == 1 and 0 < (pillow != pytorch).mean() < 0.1
    assert stretch(image, (120, 214), f"torch_{how}") is image
