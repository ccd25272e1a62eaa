"""Normalisation of pixels: `(x - mean) / std` of values 0..255, by default with this project's own statistics.

The statistics are those of Cityscapes. A model card may have others, see `InputCard`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MEAN_RGB = (73.15, 82.90, 72.30)
STD_RGB = (47.67, 48.49, 47.73)
# Of EfficientNet-Lite0, all three channels alike.
LITE0_MEAN_RGB = (127.0, 127.0, 127.0)
LITE0_STD_RGB = (128.0, 128.0, 128.0)


def normalise(
    rgb: Tensor, mean: tuple[float, float, float] = MEAN_RGB, std: tuple[float, float, float] = STD_RGB
) -> Tensor:
    """Normalise B x 3 x H x W, floating point RGB of 0..255."""
    means, deviations = (rgb.new_tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    return (rgb - means) / deviations
