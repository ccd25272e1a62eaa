"""Normalisation of pixels by this project's own statistics (those of Cityscapes): `(x - mean) / std` of values 0..255.

A model card may have other statistics, see `InputCard`.
"""

from torch import Tensor

MEAN_RGB = (73.15, 82.90, 72.30)
STD_RGB = (47.67, 48.49, 47.73)


def normalise(rgb: Tensor) -> Tensor:
    """Normalise B x 3 x H x W, floating point RGB of 0..255."""
    mean, std = (rgb.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN_RGB, STD_RGB))
    return (rgb - mean) / std
