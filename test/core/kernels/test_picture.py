import numpy as np

from vidseg_core.kernels.picture import grid_picture


def test_the_picture_owns_its_memory():
    image = np.random.default_rng(2).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    kept = grid_picture(image, (24, 32))
    before = kept.copy()
    image[:] = 0
    np.testing.assert_array_equal(kept, before)
