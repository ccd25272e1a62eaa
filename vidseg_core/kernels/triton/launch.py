"""Start kernels: options and arguments that all of them share."""

from __future__ import annotations

from functools import cache

import torch
import triton
from torch import Tensor

from vidseg_core.kernels import resample

LAUNCH = {"num_warps": 4, "enable_fp_fusion": False}
"""Options of every kernel."""

BLOCK = 256
"""Elements of a program where each element is computed by itself."""


def blocks(elements: int) -> tuple[int]:
    """Return the grid of programs of `BLOCK` elements each."""
    return (triton.cdiv(elements, BLOCK),)


def strides(x: Tensor) -> tuple[int, int, int]:
    """Return the strides of 1 x C x h x w along C, h and w, in elements: planar and channels last are read alike."""
    return x.stride(1), x.stride(2), x.stride(3)


@cache
def places(
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    picture: tuple[int, int] | None,
    source_half_pixel: bool,
    target_half_pixel: bool,
    device: torch.device,
) -> tuple[Tensor, ...]:
    """Return `kernels.resample.places` on a device. Kept, since a stream asks for the same with every frame."""
    at = resample.places(inputs, outputs, picture, source_half_pixel, target_half_pixel)
    return tuple(torch.from_numpy(one).to(device) for one in at)
