"""Picture differences in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vidseg_core.kernels.difference import DIFFERENCE
from vidseg_core.kernels.triton.launch import BLOCK, LAUNCH, blocks, strides


@triton.jit
def difference_kernel(
    current, past, motion, out, height, width, plane, row, column, past_plane, past_row, past_column,
    motion_plane, motion_row, motion_column, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Compare pictures C x h x w, uint8, along motion, 2 x h x w; out is h x w."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = at < height * width
    y, x = at // width, at % width
    way = motion + y * motion_row + x * motion_column
    at_x = x.to(tl.float32) + tl.load(way, mask=there, other=0.0).to(tl.float32)
    at_y = y.to(tl.float32) + tl.load(way + motion_plane, mask=there, other=0.0).to(tl.float32)
    right, bottom = (width - 1).to(tl.float32), (height - 1).to(tl.float32)
    inside = there & (at_x >= 0.0) & (at_x <= right) & (at_y >= 0.0) & (at_y <= bottom)
    at_x, at_y = tl.where(inside, at_x, 0.0), tl.where(inside, at_y, 0.0)
    x0, y0 = at_x.to(tl.int32), at_y.to(tl.int32)
    wx, wy = at_x - x0.to(tl.float32), at_y - y0.to(tl.float32)
    x1, y1 = tl.minimum(x0 + 1, width - 1), tl.minimum(y0 + 1, height - 1)
    total = at_x * 0.0
    for c in tl.static_range(CHANNELS):
        source = past + c * past_plane
        p00 = tl.load(source + y0 * past_row + x0 * past_column, mask=inside, other=0).to(tl.float32)
        p01 = tl.load(source + y0 * past_row + x1 * past_column, mask=inside, other=0).to(tl.float32)
        p10 = tl.load(source + y1 * past_row + x0 * past_column, mask=inside, other=0).to(tl.float32)
        p11 = tl.load(source + y1 * past_row + x1 * past_column, mask=inside, other=0).to(tl.float32)
        upper, lower = p00 * (1.0 - wx) + p01 * wx, p10 * (1.0 - wx) + p11 * wx
        now = tl.load(current + c * plane + y * row + x * column, mask=inside, other=0).to(tl.float32)
        total += tl.abs(upper * (1.0 - wy) + lower * wy - now)
    tl.store(out + at, tl.where(inside, total / CHANNELS, float("inf")), mask=there)


@DIFFERENCE.register("cuda")
def difference(current: Tensor, past: Tensor, motion: Tensor) -> Tensor:
    height, width = current.shape[2:]
    out = torch.empty((1, 1, height, width), dtype=torch.float32, device=current.device)
    difference_kernel[blocks(height * width)](
        current, past, motion, out, height, width, *strides(current), *strides(past), *strides(motion),
        CHANNELS=current.shape[1], BLOCK=BLOCK, **LAUNCH,
    )  # fmt: skip
    return out
