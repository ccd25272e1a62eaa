"""Edges of labels and the guided sum in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vidseg_core.kernels.refine import GUIDED_SUM, LABEL_EDGES
from vidseg_core.kernels.triton.launch import BLOCK, LAUNCH, blocks, strides


@triton.jit
def argmax_kernel(logits, out, height, width, plane, row, column, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Find the first highest of C x h x w; out is h x w, uint8."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = at < height * width
    source = logits + (at // width) * row + (at % width) * column
    highest = tl.full((BLOCK,), float("-inf"), tl.float32)
    winner = tl.zeros((BLOCK,), tl.int32)
    for c in range(CHANNELS):
        value = tl.load(source + c * plane, mask=there, other=0.0).to(tl.float32)
        higher = value > highest
        highest, winner = tl.where(higher, value, highest), tl.where(higher, c, winner)
    tl.store(out + at, winner.to(tl.uint8), mask=there)


@triton.jit
def edges_kernel(labels, out, height, width, BLOCK: tl.constexpr):
    """Mark where the Laplacian of labels is not 0; those outside count as 0."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = at < height * width
    y, x = at // width, at % width
    total = -9 * tl.load(labels + at, mask=there, other=0).to(tl.int32)
    for i in tl.static_range(3):
        for j in tl.static_range(3):
            y1, x1 = y + (i - 1), x + (j - 1)
            inside = there & (y1 >= 0) & (y1 < height) & (x1 >= 0) & (x1 < width)
            total += tl.load(labels + y1 * width + x1, mask=inside, other=0).to(tl.int32)
    tl.store(out + at, tl.where(total != 0, 1.0, 0.0), mask=there)


@triton.jit
def sum_kernel(
    guide, warped, intra, out, height, width, guide_plane, guide_row, guide_column, plane, row, column,
    intra_plane, intra_row, intra_column, out_plane, out_row, out_column,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add the candidates of `kernels.refine.guided_sum`, C x h x w, each times its plane of guide, 11 x h x w."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = at < height * width
    y, x = at // width, at % width
    weights = guide + y * guide_row + x * guide_column
    own = tl.load(weights, mask=there, other=0.0).to(tl.float32)
    other = tl.load(weights + 10 * guide_plane, mask=there, other=0.0).to(tl.float32)
    for c in range(CHANNELS):
        source = warped + c * plane
        total = own * tl.load(source + y * row + x * column, mask=there, other=0.0).to(tl.float32)
        image = intra + c * intra_plane + y * intra_row + x * intra_column
        total += other * tl.load(image, mask=there, other=0.0).to(tl.float32)
        for k in tl.static_range(8):
            # Row by row without the centre.
            i, j = (k + k // 4) // 3, (k + k // 4) % 3
            y1, x1 = y + (i - 1), x + (j - 1)
            inside = there & (y1 >= 0) & (y1 < height) & (x1 >= 0) & (x1 < width)
            weight = tl.load(weights + (k + 1) * guide_plane, mask=inside, other=0.0).to(tl.float32)
            total += weight * tl.load(source + y1 * row + x1 * column, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + c * out_plane + y * out_row + x * out_column, total, mask=there)


@LABEL_EDGES.register("cuda")
def label_edges(logits: Tensor) -> Tensor:
    classes, height, width = logits.shape[1:]
    labels = torch.empty((height, width), dtype=torch.uint8, device=logits.device)
    grid = blocks(height * width)
    argmax_kernel[grid](logits, labels, height, width, *strides(logits), CHANNELS=classes, BLOCK=BLOCK, **LAUNCH)
    out = torch.empty((1, 1, height, width), dtype=logits.dtype, device=logits.device)
    edges_kernel[grid](labels, out, height, width, BLOCK=BLOCK, **LAUNCH)
    return out


@GUIDED_SUM.register("cuda")
def guided_sum(guide: Tensor, warped: Tensor, intra: Tensor) -> Tensor:
    height, width = warped.shape[2:]
    out = torch.empty_like(warped)
    sum_kernel[blocks(height * width)](
        guide, warped, intra, out, height, width, *strides(guide), *strides(warped), *strides(intra), *strides(out),
        CHANNELS=warped.shape[1], BLOCK=BLOCK, **LAUNCH,
    )  # fmt: skip
    return out
