"""Grey levels in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from vidseg_core.arrays import Array
from vidseg_core.kernels.cpu.grey import BLUE, GREEN, RED, SHIFT
from vidseg_core.kernels.reference.picture import areas
from vidseg_core.kernels.reference.transfer import tensor_of


def grey_picture_reference(image: Array, size: tuple[int, int]) -> Tensor:
    """Compute `grey_picture` in plain torch."""
    x = tensor_of(image).double()
    levels = x @ torch.tensor([RED, GREEN, BLUE]).double().to(x.device)
    down, across = (areas(side, shrunk).to(x.device) for side, shrunk in zip(image.shape[:2], size, strict=True))
    return (down @ levels @ across.T / 2**SHIFT + 0.5).floor().to(torch.uint8)
