"""Blending of fresh logits into carried ones in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vidseg_core.kernels.triton.launch import BLOCK, LAUNCH, blocks, places, strides
from vidseg_core.kernels.update import TOLERANCE, UPDATE


@triton.jit
def update_kernel(
    carried, fresh, apart, out, height, width, fresh_height, fresh_width, plane, row, column,
    fresh_plane, fresh_row, fresh_column, out_plane, out_row, out_column,
    rows, down, columns, across, tolerance, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Blend C x h x w; apart is h x w. Rows and columns lie `down` and `across` behind those of the fresh logits."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = at < height * width
    y, x = at // width, at % width
    ratio = tl.load(apart + at, mask=there, other=0.0) / tolerance
    share = tl.exp(-(ratio * ratio))
    y0, x0 = tl.load(rows + y, mask=there, other=0), tl.load(columns + x, mask=there, other=0)
    wy, wx = tl.load(down + y, mask=there, other=0.0), tl.load(across + x, mask=there, other=0.0)
    y1, x1 = tl.minimum(y0 + 1, fresh_height - 1), tl.minimum(x0 + 1, fresh_width - 1)
    w00, w01, w10, w11 = (1.0 - wy) * (1.0 - wx), (1.0 - wy) * wx, wy * (1.0 - wx), wy * wx
    for c in range(CHANNELS):
        source = fresh + c * fresh_plane
        new = w00 * tl.load(source + y0 * fresh_row + x0 * fresh_column, mask=there, other=0.0).to(tl.float32)
        new += w01 * tl.load(source + y0 * fresh_row + x1 * fresh_column, mask=there, other=0.0).to(tl.float32)
        new += w10 * tl.load(source + y1 * fresh_row + x0 * fresh_column, mask=there, other=0.0).to(tl.float32)
        new += w11 * tl.load(source + y1 * fresh_row + x1 * fresh_column, mask=there, other=0.0).to(tl.float32)
        past = tl.load(carried + c * plane + y * row + x * column, mask=there, other=0.0).to(tl.float32)
        # Where the past is worth nothing it may be anything, infinite even; where it is worth all, so may the rest.
        value = tl.where(share == 0.0, new, tl.where(share == 1.0, past, new + share * (past - new)))
        tl.store(out + c * out_plane + y * out_row + x * out_column, value, mask=there)


@UPDATE.register("cuda")
def update(carried: Tensor, fresh: Tensor, apart: Tensor, picture: tuple[int, int] | None) -> Tensor:
    height, width = carried.shape[2:]
    out = torch.empty_like(carried, dtype=torch.float32)
    at = places(fresh.shape[2:], carried.shape[2:], picture, picture is not None, False, carried.device)
    update_kernel[blocks(height * width)](
        carried, fresh, apart.contiguous(), out, height, width, fresh.shape[2], fresh.shape[3],
        *strides(carried), *strides(fresh), *strides(out), *at, TOLERANCE,
        CHANNELS=carried.shape[1], BLOCK=BLOCK, **LAUNCH,
    )  # fmt: skip
    return out
