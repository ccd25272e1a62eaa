"""Backward warping and chained flows in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vidseg_core.kernels.triton.launch import BLOCK, LAUNCH, blocks, strides
from vidseg_core.kernels.warp import COMPOSE, WARP


@triton.jit
def corners(
    motion, y, x, height, width, motion_plane, motion_row, motion_column, stretch_y, stretch_x, shift,
    BORDER: tl.constexpr,
):  # fmt: skip
    """Return where grid points (y, x) come from: rows and columns of four places, and their weights."""
    at = motion + y * motion_row + x * motion_column
    at_x = (x.to(tl.float32) + tl.load(at).to(tl.float32)) * stretch_x + shift
    at_y = (y.to(tl.float32) + tl.load(at + motion_plane).to(tl.float32)) * stretch_y + shift
    right, bottom = width.to(tl.float32), height.to(tl.float32)
    if BORDER:
        # What is not a number is not larger than anything: it reads the first pixel.
        at_x = tl.where(at_x > 0.0, tl.where(at_x < right - 1.0, at_x, right - 1.0), 0.0)
        at_y = tl.where(at_y > 0.0, tl.where(at_y < bottom - 1.0, at_y, bottom - 1.0), 0.0)
    inside = (at_x > -1.0) & (at_x < right) & (at_y > -1.0) & (at_y < bottom)
    at_x, at_y = tl.where(inside, at_x, 0.0), tl.where(inside, at_y, 0.0)
    x0, y0 = tl.floor(at_x), tl.floor(at_y)
    wx, wy = at_x - x0, at_y - y0
    x0, y0 = x0.to(tl.int32), y0.to(tl.int32)
    w00, w01 = (1.0 - wy) * (1.0 - wx), (1.0 - wy) * wx
    w10, w11 = wy * (1.0 - wx), wy * wx
    # What lies outside weighs nothing, and is read where there is something to read.
    left, above = x0 >= 0, y0 >= 0
    beside, below = x0 + 1 < width, y0 + 1 < height
    w00 = tl.where(inside & left & above, w00, 0.0)
    w01 = tl.where(inside & beside & above, w01, 0.0)
    w10 = tl.where(inside & left & below, w10, 0.0)
    w11 = tl.where(inside & beside & below, w11, 0.0)
    x1, y1 = tl.minimum(x0 + 1, width - 1), tl.minimum(y0 + 1, height - 1)
    return tl.maximum(y0, 0), tl.maximum(x0, 0), y1, x1, w00, w01, w10, w11


@triton.jit
def warp_kernel(
    values, motion, out, height, width, plane, row, column, motion_plane, motion_row, motion_column,
    out_plane, out_row, out_column, stretch_y, stretch_x, shift,
    CHANNELS: tl.constexpr, BORDER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Move C x h x w along motion, 2 x h x w; each with its strides along plane, row and column."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = at < height * width
    at = tl.minimum(at, height * width - 1)
    y, x = at // width, at % width
    y0, x0, y1, x1, w00, w01, w10, w11 = corners(
        motion, y, x, height, width, motion_plane, motion_row, motion_column, stretch_y, stretch_x, shift, BORDER
    )
    a00, a01 = y0 * row + x0 * column, y0 * row + x1 * column
    a10, a11 = y1 * row + x0 * column, y1 * row + x1 * column
    for c in range(CHANNELS):
        source = values + c * plane
        value = tl.load(source + a00).to(tl.float32) * w00 + tl.load(source + a01).to(tl.float32) * w01
        value += tl.load(source + a10).to(tl.float32) * w10
        value += tl.load(source + a11).to(tl.float32) * w11
        tl.store(out + c * out_plane + y * out_row + x * out_column, value, mask=there)


@triton.jit
def compose_kernel(
    motion, flow, out, height, width, plane, row, column, flow_plane, flow_row, flow_column, BLOCK: tl.constexpr
):
    """Chain flow and motion, each 2 x h x w with its strides; out is planar."""
    size = height * width
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = at < size
    y, x = at // width, at % width
    way = flow + y * flow_row + x * flow_column
    u = tl.load(way, mask=there, other=0.0).to(tl.float32)
    v = tl.load(way + flow_plane, mask=there, other=0.0).to(tl.float32)
    at_x, at_y = x.to(tl.float32) + u, y.to(tl.float32) + v
    # What is not a number is not larger than anything: it reads the first pixel.
    at_x = tl.where(at_x > 0.0, tl.minimum(at_x, (width - 1).to(tl.float32)), 0.0)
    at_y = tl.where(at_y > 0.0, tl.minimum(at_y, (height - 1).to(tl.float32)), 0.0)
    x0, y0 = at_x.to(tl.int32), at_y.to(tl.int32)
    wx, wy = at_x - x0.to(tl.float32), at_y - y0.to(tl.float32)
    x1, y1 = tl.minimum(x0 + 1, width - 1), tl.minimum(y0 + 1, height - 1)
    for c in tl.static_range(2):
        source = motion + c * plane
        m00 = tl.load(source + y0 * row + x0 * column).to(tl.float32)
        m01 = tl.load(source + y0 * row + x1 * column).to(tl.float32)
        m10 = tl.load(source + y1 * row + x0 * column).to(tl.float32)
        m11 = tl.load(source + y1 * row + x1 * column).to(tl.float32)
        upper, lower = m00 + wx * (m01 - m00), m10 + wx * (m11 - m10)
        own = u if c == 0 else v
        tl.store(out + c * size + at, own + upper + wy * (lower - upper), mask=there)


@WARP.register("cuda")
def warp(values: Tensor, flow: Tensor, align_corners: bool, padding: str) -> Tensor:
    height, width = values.shape[2:]
    # A sampling grid that is one thing and read as another: see the convention of `kernels.warp`.
    stretch = (1.0, 1.0) if align_corners else (height / (height - 1), width / (width - 1))
    out = torch.empty_like(values)
    warp_kernel[blocks(height * width)](
        values, flow, out, height, width, *strides(values), *strides(flow), *strides(out), *stretch,
        0.0 if align_corners else -0.5,
        CHANNELS=values.shape[1], BORDER=padding == "border", BLOCK=BLOCK, **LAUNCH,
    )  # fmt: skip
    return out


@COMPOSE.register("cuda")
def compose(motion: Tensor, flow: Tensor) -> Tensor:
    height, width = flow.shape[2:]
    out = torch.empty(flow.shape, dtype=motion.dtype, device=motion.device)
    compose_kernel[blocks(height * width)](
        motion, flow, out, height, width, *strides(motion), *strides(flow), BLOCK=BLOCK, **LAUNCH
    )
    return out
