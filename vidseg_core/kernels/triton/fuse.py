"""Mixing of probabilities in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vidseg_core.kernels.fuse import FUSE, LEAST_PROBABILITY, TOLERANCE, WEIGHT
from vidseg_core.kernels.triton.launch import LAUNCH, places, strides

PIXELS = 64  # of a program; each with all its classes


@triton.jit
def _sampled(source, a00, a01, a10, a11, wy, wx, mask, nothing):
    """Interpolate along x, then along y."""
    upper = tl.load(source + a00, mask=mask, other=nothing).to(tl.float32) * (1.0 - wx)
    upper += tl.load(source + a01, mask=mask, other=nothing).to(tl.float32) * wx
    lower = tl.load(source + a10, mask=mask, other=nothing).to(tl.float32) * (1.0 - wx)
    lower += tl.load(source + a11, mask=mask, other=nothing).to(tl.float32) * wx
    return upper * (1.0 - wy) + lower * wy


@triton.jit
def fuse_kernel(
    scores, carried, apart, out, out_height, out_width, height, width, plane, row, column,
    carried_plane, carried_row, carried_column, out_plane, out_row, out_column,
    rows, down, columns, across, weight, tolerance, least,
    CHANNELS: tl.constexpr, LANES: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Mix C x H x W with C x h x w; apart is h x w. Rows and columns lie `down` and `across` behind the grid's."""
    at = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    there = at < out_height * out_width
    at = tl.minimum(at, out_height * out_width - 1)
    y, x = at // out_width, at % out_width
    y0, x0, wy, wx = tl.load(rows + y), tl.load(columns + x), tl.load(down + y), tl.load(across + x)
    y1, x1 = tl.minimum(y0 + 1, height - 1), tl.minimum(x0 + 1, width - 1)

    d00, d01 = tl.load(apart + y0 * width + x0), tl.load(apart + y0 * width + x1)
    d10, d11 = tl.load(apart + y1 * width + x0), tl.load(apart + y1 * width + x1)
    # The share is interpolated, not the difference, which may be infinite.
    d00, d01, d10, d11 = d00 / tolerance, d01 / tolerance, d10 / tolerance, d11 / tolerance
    upper = weight * tl.exp(-(d00 * d00)) * (1.0 - wx) + weight * tl.exp(-(d01 * d01)) * wx
    lower = weight * tl.exp(-(d10 * d10)) * (1.0 - wx) + weight * tl.exp(-(d11 * d11)) * wx
    share = (upper * (1.0 - wy) + lower * wy)[:, None]

    c = tl.arange(0, LANES)[None, :]
    mask = (c < CHANNELS) & there[:, None]
    new = tl.load(scores + c * plane + (y * row + x * column)[:, None], mask=mask, other=float("-inf")).to(tl.float32)
    source = carried + c * carried_plane
    past = _sampled(
        source, (y0 * carried_row + x0 * carried_column)[:, None], (y0 * carried_row + x1 * carried_column)[:, None],
        (y1 * carried_row + x0 * carried_column)[:, None], (y1 * carried_row + x1 * carried_column)[:, None],
        wy[:, None], wx[:, None], mask, 0.0,
    )  # fmt: skip
    past = tl.where(c < CHANNELS, past, float("-inf"))
    new = tl.exp(new - tl.max(new, 1)[:, None])
    past = tl.exp(past - tl.max(past, 1)[:, None])
    new, past = new / tl.sum(new, 1)[:, None], past / tl.sum(past, 1)[:, None]
    mixed = tl.log(tl.maximum(new + share * (past - new), least))
    tl.store(out + c * out_plane + (y * out_row + x * out_column)[:, None], mixed, mask=mask)


@FUSE.register("cuda")
def fuse(scores: Tensor, carried: Tensor, apart: Tensor, picture: tuple[int, int] | None) -> Tensor:
    out = torch.empty_like(scores, dtype=torch.float32)
    at = places(carried.shape[2:], scores.shape[2:], picture, False, picture is not None, scores.device)
    classes = scores.shape[1]
    fuse_kernel[(triton.cdiv(scores.shape[2] * scores.shape[3], PIXELS),)](
        scores, carried, apart.contiguous(), out, scores.shape[2], scores.shape[3], carried.shape[2], carried.shape[3],
        *strides(scores), *strides(carried), *strides(out), *at, WEIGHT, TOLERANCE, LEAST_PROBABILITY,
        CHANNELS=classes, LANES=triton.next_power_of_2(classes), PIXELS=PIXELS, **LAUNCH,
    )  # fmt: skip
    return out
