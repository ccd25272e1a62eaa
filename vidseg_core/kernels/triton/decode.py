"""Labels from logits on a coarse grid in Triton, without upsampled logits in memory."""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from vidseg_core.kernels.decode import DECODE, decode_reference
from vidseg_core.kernels.triton.launch import LAUNCH, strides

TILE_Y, TILE_X = 8, 64  # pixels of a program
# Triton 3.6 compiles no gather along rows of fewer than 32.
LEAST_PATCH_X = 32


@triton.jit
def decode_kernel(
    logits, labels, height, width, plane, row, column, out_height, out_width, step_y, step_x,
    CLASSES: tl.constexpr, HALF_PIXEL: tl.constexpr,
    PATCH_Y: tl.constexpr, PATCH_X: tl.constexpr, TILE_Y: tl.constexpr, TILE_X: tl.constexpr,
):  # fmt: skip
    """Label a tile of H x W from logits C x h x w.

    The grid points around it are read once, `PATCH_Y` x `PATCH_X` of them, and handed from thread to thread by
    `gather`, first along x, then along y. Where all of them have one class, so has every pixel between them.
    """
    y = tl.program_id(0) * TILE_Y + tl.arange(0, TILE_Y)
    x = tl.program_id(1) * TILE_X + tl.arange(0, TILE_X)
    there = (y < out_height)[:, None] & (x < out_width)[None, :]
    at_y = tl.minimum(y, out_height - 1).to(tl.float32)
    at_x = tl.minimum(x, out_width - 1).to(tl.float32)
    if HALF_PIXEL:
        at_y = tl.minimum(tl.maximum((at_y + 0.5) * step_y - 0.5, 0.0), (height - 1).to(tl.float32))
        at_x = tl.minimum(tl.maximum((at_x + 0.5) * step_x - 0.5, 0.0), (width - 1).to(tl.float32))
    else:
        at_y, at_x = at_y * step_y, at_x * step_x
    y0, x0 = tl.minimum(at_y.to(tl.int32), height - 1), tl.minimum(at_x.to(tl.int32), width - 1)
    wy, wx = (at_y - y0.to(tl.float32))[:, None], (at_x - x0.to(tl.float32))[None, :]
    top, first = tl.min(y0), tl.min(x0)
    last_y, last_x = tl.minimum(tl.max(y0) + 1, height - 1), tl.minimum(tl.max(x0) + 1, width - 1)
    # Points behind the last one that is needed repeat it, so that they can be looked at like the others.
    py = tl.minimum(top + tl.arange(0, PATCH_Y), last_y)[:, None] + tl.zeros((1, PATCH_X), tl.int32)
    px = tl.minimum(first + tl.arange(0, PATCH_X), last_x)[None, :] + tl.zeros((PATCH_Y, 1), tl.int32)
    source = logits + py * row + px * column

    highest = tl.full((PATCH_Y, PATCH_X), float("-inf"), tl.float32)
    winner = tl.zeros((PATCH_Y, PATCH_X), tl.int32)
    for c in range(CLASSES):
        value = tl.load(source + c * plane).to(tl.float32)
        higher = value > highest
        highest, winner = tl.where(higher, value, highest), tl.where(higher, c, winner)
    lowest = tl.min(winner)
    label = tl.zeros((TILE_Y, TILE_X), tl.int32) + lowest
    if lowest != tl.max(winner):
        to_left = tl.zeros((PATCH_Y, 1), tl.int32) + (x0 - first)[None, :]
        to_right = tl.zeros((PATCH_Y, 1), tl.int32) + (tl.minimum(x0 + 1, width - 1) - first)[None, :]
        to_upper = (y0 - top)[:, None] + tl.zeros((1, TILE_X), tl.int32)
        to_lower = (tl.minimum(y0 + 1, height - 1) - top)[:, None] + tl.zeros((1, TILE_X), tl.int32)
        best = tl.full((TILE_Y, TILE_X), float("-inf"), tl.float32)
        label = tl.zeros((TILE_Y, TILE_X), tl.int32)
        for c in range(CLASSES):
            value = tl.load(source + c * plane).to(tl.float32)
            along = tl.gather(value, to_left, 1) * (1.0 - wx) + tl.gather(value, to_right, 1) * wx
            pixel = tl.gather(along, to_upper, 0) * (1.0 - wy) + tl.gather(along, to_lower, 0) * wy
            better = pixel > best
            best, label = tl.where(better, pixel, best), tl.where(better, c, label)
    tl.store(labels + y[:, None] * out_width + x[None, :], label.to(tl.uint8), mask=there)


@DECODE.register("cuda")
def decode(logits: Tensor, size: tuple[int, int], half_pixel: bool) -> np.ndarray:
    return decode_on_device(logits, size, half_pixel).cpu().numpy()


def decode_on_device(logits: Tensor, size: tuple[int, int], half_pixel: bool) -> Tensor:
    """Compute `kernels.decode.decode`; the labels stay where the logits are."""
    grid = logits.shape[2], logits.shape[3]
    if half_pixel:
        steps = [np.float32(inputs) / np.float32(outputs) for inputs, outputs in zip(grid, size, strict=True)]
    else:
        steps = [
            np.float32(inputs - 1) / np.float32(max(outputs - 1, 1)) for inputs, outputs in zip(grid, size, strict=True)
        ]
    if max(steps) > 1:
        # A picture smaller than the grid, which no engine asks for, would need larger patches than there are registers.
        return torch.from_numpy(decode_reference(logits, size, half_pixel)).to(logits.device)
    needed = [int((tile - 1) * step) + 3 for tile, step in zip((TILE_Y, TILE_X), steps, strict=True)]
    labels = torch.empty(size, dtype=torch.uint8, device=logits.device)
    decode_kernel[triton.cdiv(size[0], TILE_Y), triton.cdiv(size[1], TILE_X)](
        logits, labels, *grid, *strides(logits), *size, *(float(step) for step in steps),
        CLASSES=logits.shape[1], HALF_PIXEL=half_pixel,
        PATCH_Y=triton.next_power_of_2(needed[0]), PATCH_X=max(LEAST_PATCH_X, triton.next_power_of_2(needed[1])),
        TILE_Y=TILE_Y, TILE_X=TILE_X, **LAUNCH,
    )  # fmt: skip
    return labels
