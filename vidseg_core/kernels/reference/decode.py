"""Labels of logits in plain torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.kernels.cpu.decode import MIXED
from vidseg_core.kernels.reference.resample import resize_reference
from vidseg_core.kernels.reference.warp import warp_reference


def decode_warped_reference(
    logits: Tensor, flow: Tensor, one_class: Tensor, size: tuple[int, int], align_corners: bool, padding: str
) -> np.ndarray:
    """Compute `decode_warped` by the two operations that it stands for."""
    return decode_reference(warp_reference(logits, flow, align_corners, padding), size, False)


def one_class_reference(logits: Tensor) -> Tensor:
    """Compute `one_class` in plain torch."""
    top = logits.argmax(1).float()
    around = F.pad(top, (0, 1, 0, 1), mode="replicate")[:, None]
    most, least = F.max_pool2d(around, 2, 1)[0, 0], -F.max_pool2d(-around, 2, 1)[0, 0]
    return torch.where(most == least, most, MIXED).to(torch.uint8)


def decode_reference(logits: Tensor, size: tuple[int, int], half_pixel: bool) -> np.ndarray:
    """Compute `decode` in plain torch; arguments are not checked."""
    if half_pixel:
        full = F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)
    else:
        full = resize_reference(logits.float(), size)
    return full.argmax(1)[0].to(torch.uint8).cpu().numpy()
