"""Turn logits on a coarse grid into labels at full size, as bilinear upsampling and argmax do, without upsampling.

An interpolated logit is a convex combination of its four corners. So where all four have the same argmax, every pixel
between them has it too; and where they differ, a class that some other class exceeds at all four corners cannot win.
Only the few classes that are left in the few cells that are left need arithmetic, in the order of operations that
`torch.nn.functional.interpolate` uses (along x, then along y), so that results differ for exact ties only.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.kernels.cpu.decode import argmax_rows, decode_rows
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.kernels.resample import positions, resize
from vidseg_core.threads import over_rows


def decode(logits: Tensor, size: tuple[int, int], half_pixel: bool = False) -> np.ndarray:
    """Decode logits into labels at full size.

    Args:
        logits: 1 x C x h x w, C in 1..255, finite. Fastest in float32 and channels last on the CPU.
        size: (H, W) wanted.
        half_pixel: whether the logits' pixels cover equal parts of the picture; else the outermost lie on the
            picture's.

    Returns:
        H x W, uint8, class ids, newly allocated: the argmax of `logits` upsampled bilinearly (`align_corners=True`, or
        False with `half_pixel`).

    Raises:
        ValueError: `logits` has another shape.
    """
    if logits.ndim != 4 or logits.shape[0] != 1 or not 1 <= logits.shape[1] <= 255:
        raise ValueError(f"expected logits of 1 x C x h x w with C in 1..255, got {tuple(logits.shape)}")
    return DECODE.on(logits.device.type)(logits, size, half_pixel)


def decode_reference(logits: Tensor, size: tuple[int, int], half_pixel: bool) -> np.ndarray:
    """Compute `decode` in plain torch; arguments are not checked."""
    if half_pixel:
        full = F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)
    else:
        full = resize(logits.float(), size)
    return full.argmax(1)[0].to(torch.uint8).cpu().numpy()


DECODE = Operation("decode", decode_reference)


@DECODE.register("cpu")
def _decode_on_cpu(logits: Tensor, size: tuple[int, int], half_pixel: bool) -> np.ndarray:
    values = logits.float().permute(0, 2, 3, 1).contiguous()[0].numpy()  # h x w x C
    height, width, _ = values.shape
    top = np.empty((height, width), dtype=np.uint8)
    over_rows(argmax_rows, height, values, top)
    y0, fy = positions(height, size[0], half_pixel)
    x0, fx = positions(width, size[1], half_pixel)
    row_start = np.searchsorted(y0, np.arange(height + 1))
    column_start = np.searchsorted(x0, np.arange(width + 1))
    out = np.empty(size, dtype=np.uint8)
    over_rows(decode_rows, height, values, top, row_start, fy, column_start, fx, out)
    return out
