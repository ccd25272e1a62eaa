"""Dense inverse search in rounds in Triton: `kernels.flow` says what is computed.

A patch's 64 pixels are a row of a tile. Raster order, in which one patch waits for another, is left to the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.kernels.cpu import dis as definition
from vidseg_core.kernels.flow import DENSE_FLOW
from vidseg_core.kernels.reference.flow import dense_flow_reference
from vidseg_core.kernels.triton.launch import BLOCK

PAD, SIDE = tl.constexpr(definition.PAD), tl.constexpr(definition.SIDE)
PIXELS = tl.constexpr(definition.SIDE**2)
ITERATIONS, SHORT = tl.constexpr(definition.ITERATIONS), tl.constexpr(float(definition.SHORT))
ALIKE, DAMPING = tl.constexpr(float(definition.ALIKE)), tl.constexpr(float(definition.DAMPING))
CONVERGED = tl.constexpr(float(definition.CONVERGED))
CELLS = 128  # of a program of `densify_kernel`: more would not fit into registers


@triton.jit
def _place(x, y, pitch, height):
    """Return, of patches at (x, y), border included, the index of the pixel before and four weights."""
    x = tl.minimum(tl.maximum(x, 1.0), (pitch - SIDE - 2).to(tl.float32))
    y = tl.minimum(tl.maximum(y, 1.0), (height - SIDE - 2).to(tl.float32))
    left, top = x.to(tl.int32), y.to(tl.int32)
    wx, wy = x - left.to(tl.float32), y - top.to(tl.float32)
    both = wx * wy
    return top * pitch + left, 1.0 - wx - wy + both, wx - both, wy - both, both


@triton.jit
def _differences(previous, own, x, y, u, v, offset, pitch, height):
    """Return P x 64: the previous picture, sampled, less the current one."""
    at, w00, w01, w10, w11 = _place(x.to(tl.float32) + u, y.to(tl.float32) + v, pitch, height)
    at = previous + at[:, None] + offset
    row = w00[:, None] * tl.load(at) - own
    row += w01[:, None] * tl.load(at + 1)
    row += w10[:, None] * tl.load(at + pitch)
    return row + w11[:, None] * tl.load(at + pitch + 1)


@triton.jit
def _cost(previous, own, x, y, u, v, offset, pitch, height):
    row = _differences(previous, own, x, y, u, v, offset, pitch, height)
    mean = tl.sum(row, 1) * (1.0 / PIXELS)
    return tl.sum(row * row, 1) - mean * mean * PIXELS


@triton.jit
def _descend(current, previous, own, x, y, u, v, wanted, offset, pitch, height):
    """Descend from (u, v) where `wanted`: u, v, cost."""
    at = current + (y * pitch + x)[:, None] + offset
    slope_x, slope_y = 0.5 * (tl.load(at + 1) - tl.load(at - 1)), 0.5 * (tl.load(at + pitch) - tl.load(at - pitch))
    mean_x, mean_y = tl.sum(slope_x, 1) * (1.0 / PIXELS), tl.sum(slope_y, 1) * (1.0 / PIXELS)
    h_xx = tl.sum(slope_x * slope_x, 1) - mean_x * mean_x * PIXELS + DAMPING
    h_yy = tl.sum(slope_y * slope_y, 1) - mean_y * mean_y * PIXELS + DAMPING
    h_xy = tl.sum(slope_x * slope_y, 1) - mean_x * mean_y * PIXELS
    scale = 1.0 / (h_xx * h_yy - h_xy * h_xy)
    i_xx, i_xy, i_yy = h_yy * scale, -h_xy * scale, h_xx * scale
    begin_u, begin_v, best_u, best_v = u, v, u, v
    best, first = u * 0.0 - 1.0, u * 0.0 - 1.0
    active, turn = wanted, 0
    while (turn < ITERATIONS) & (tl.max(active.to(tl.int32)) > 0):
        row = _differences(previous, own, x, y, u, v, offset, pitch, height)
        both = tl.sum(row, 1)
        cost = tl.sum(row * row, 1) - both * both * (1.0 / PIXELS)
        first = tl.where(turn == 0, cost, first)
        falls = active & ((turn == 0) | (cost < best))
        best_u, best_v, best = tl.where(falls, u, best_u), tl.where(falls, v, best_v), tl.where(falls, cost, best)
        g_x, g_y = tl.sum(row * slope_x, 1) - both * mean_x, tl.sum(row * slope_y, 1) - both * mean_y
        step_u, step_v = i_xx * g_x + i_xy * g_y, i_xy * g_x + i_yy * g_y
        u, v = tl.where(falls, u - step_u, u), tl.where(falls, v - step_v, v)
        # What is left to gain is less than what looking at it costs.
        short = falls & (step_u * step_u + step_v * step_v < SHORT * SHORT)
        best_u, best_v = tl.where(short, u, best_u), tl.where(short, v, best_v)
        active = falls & (short == 0)
        turn += 1
    far_u, far_v = best_u - begin_u, best_v - begin_v
    far = far_u * far_u + far_v * far_v > PIXELS
    return tl.where(far, begin_u, best_u), tl.where(far, begin_v, best_v), tl.where(far, first, best)


@triton.jit
def search_kernel(
    current, previous, coarse, before, after, pitch, height, rows, columns, coarse_height, coarse_width, distance,
    STEP: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Compute one round of a level.

    Args:
        current, previous: height x pitch, border included.
        coarse: 2 x coarse_height x coarse_width, the coarser level's flow, for the first round; or of height 0.
        before, after: 4 x rows x columns: u, v, cost, and after the last round the patch's share of a pixel's flow.
        distance: of the neighbours looked at, for other rounds.
    """
    number = rows * columns
    p = tl.program_id(0) * P + tl.arange(0, P)
    there = p < number
    p = tl.minimum(p, number - 1)
    j, i = p // columns, p % columns
    x, y = tl.minimum(i * STEP + PAD, pitch - PAD - SIDE), tl.minimum(j * STEP + PAD, height - PAD - SIDE)
    k = tl.arange(0, PIXELS)
    offset = ((k // SIDE) * pitch + k % SIDE)[None, :]
    own = tl.load(current + (y * pitch + x)[:, None] + offset)
    if FIRST:
        at_x = tl.minimum((x - PAD + SIDE // 2) // 2, coarse_width - 1)
        at_y = tl.minimum((y - PAD + SIDE // 2) // 2, coarse_height - 1)
        at, has = at_y * coarse_width + at_x, there & (at_y >= 0)  # without a coarser level nothing has moved
        u = 2.0 * tl.load(coarse + at, mask=has, other=0.0)
        v = 2.0 * tl.load(coarse + coarse_height * coarse_width + at, mask=has, other=0.0)
        u, v, cost = _descend(current, previous, own, x, y, u, v, there, offset, pitch, height)
    else:
        own_u, own_v, own_cost = tl.load(before + p), tl.load(before + number + p), tl.load(before + 2 * number + p)
        looks = there & (own_cost > CONVERGED)
        u, v, lowest, better = own_u, own_v, own_cost * 0.0 + float("inf"), p < 0
        for n in tl.static_range(4):
            j1 = j + (distance if n == 2 else -distance if n == 3 else 0)
            i1 = i + (distance if n == 0 else -distance if n == 1 else 0)
            inside = looks & (j1 >= 0) & (j1 < rows) & (i1 >= 0) & (i1 < columns)
            at = tl.where(inside, j1 * columns + i1, p)
            u1, v1 = tl.load(before + at), tl.load(before + number + at)
            other = inside & (tl.abs(u1 - own_u) + tl.abs(v1 - own_v) > ALIKE)
            other = other & (tl.abs(u1 - u) + tl.abs(v1 - v) > ALIKE)
            if tl.max(other.to(tl.int32)) > 0:
                cost1 = _cost(previous, own, x, y, u1, v1, offset, pitch, height)
                lower = other & (cost1 < lowest)
                u, v, lowest = tl.where(lower, u1, u), tl.where(lower, v1, v), tl.where(lower, cost1, lowest)
                better = better | lower
        cost = own_cost
        if tl.max(better.to(tl.int32)) > 0:
            u, v, cost = _descend(current, previous, own, x, y, u, v, better, offset, pitch, height)
        gains = better & (cost < own_cost)
        u, v, cost = tl.where(gains, u, own_u), tl.where(gains, v, own_v), tl.where(gains, cost, own_cost)
    tl.store(after + p, u, mask=there)
    tl.store(after + number + p, v, mask=there)
    tl.store(after + 2 * number + p, cost, mask=there)
    if LAST:
        row = _differences(previous, own, x, y, u, v, offset, pitch, height)
        tl.store(after + 3 * number + p, 1.0 / (1.0 + tl.sum(row * row, 1) * (1.0 / PIXELS)), mask=there)


@triton.jit
def densify_kernel(
    current, previous, patches, out, pitch, height, rows, columns, out_height, out_width, unit_u, unit_v,
    STEP: tl.constexpr, CELL_Y: tl.constexpr, CELL_X: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum up flow in pixels of `out`, 2 x out_height x out_width; a cell has at most CELL_Y x CELL_X pixels."""
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = cell < out_height * out_width
    row, column = cell // out_width, cell % out_width
    inner_height, inner_width, number = height - 2 * PAD, pitch - 2 * PAD, rows * columns
    top = (row * inner_height + out_height - 1) // out_height
    bottom = ((row + 1) * inner_height + out_height - 1) // out_height
    left = (column * inner_width + out_width - 1) // out_width
    right = ((column + 1) * inner_width + out_width - 1) // out_width
    weights = tl.zeros((BLOCK,), tl.float32)
    sum_u, sum_v = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for down in range(CELL_Y):  # not unrolled: 2 x 2 pixels would not fit into registers
        for along in range(CELL_X):
            py, px = top + down, left + along
            pixel_there = there & (py < bottom) & (px < right)
            value = tl.load(current + (py + PAD) * pitch + px + PAD, mask=pixel_there, other=0.0)
            j0, i0 = tl.minimum(py // STEP, rows - 1), tl.minimum(px // STEP, columns - 1)
            # The patch before, the last that begins here, and that which ends with the picture.
            for b in tl.static_range(3):
                j = j0 - 1 if b == 0 else j0 if b == 1 else rows - 1 + 0 * j0
                y = tl.minimum(j * STEP, inner_height - SIDE)
                covers_y = pixel_there & (j >= 0) & (y <= py) & (py < y + SIDE)
                if b == 2:
                    covers_y = covers_y & (j0 < rows - 1)
                for a in tl.static_range(3):
                    i = i0 - 1 if a == 0 else i0 if a == 1 else columns - 1 + 0 * i0
                    x = tl.minimum(i * STEP, inner_width - SIDE)
                    covers = covers_y & (i >= 0) & (x <= px) & (px < x + SIDE)
                    if a == 2:
                        covers = covers & (i0 < columns - 1)
                    at = j * columns + i
                    u = tl.load(patches + at, mask=covers, other=0.0)
                    v = tl.load(patches + number + at, mask=covers, other=0.0)
                    whole = tl.load(patches + 3 * number + at, mask=covers, other=0.0)
                    place, w00, w01, w10, w11 = _place(
                        (x + PAD).to(tl.float32) + u, (y + PAD).to(tl.float32) + v, pitch, height
                    )
                    place = previous + place + (py - y) * pitch + px - x
                    d = w00 * tl.load(place, mask=covers, other=0.0) - value
                    d += w01 * tl.load(place + 1, mask=covers, other=0.0)
                    d += w10 * tl.load(place + pitch, mask=covers, other=0.0)
                    d += w11 * tl.load(place + pitch + 1, mask=covers, other=0.0)
                    size = tl.maximum(tl.abs(d), 1.0)
                    weight = whole / (size * size * size)
                    weights += weight
                    sum_u += weight * u
                    sum_v += weight * v
    tl.store(out + cell, unit_u * sum_u / weights, mask=there)
    tl.store(out + out_height * out_width + cell, unit_v * sum_v / weights, mask=there)


@triton.jit
def halve_kernel(picture, out, pitch, out_height, out_pitch, BLOCK: tl.constexpr):
    """Make the next level, out_height x out_pitch, of a picture of rows of `pitch`; both with their borders."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = at < out_height * out_pitch
    y = tl.minimum(tl.maximum(at // out_pitch, PAD), out_height - PAD - 1)
    x = tl.minimum(tl.maximum(at % out_pitch, PAD), out_pitch - PAD - 1)
    source = picture + (2 * y - PAD) * pitch + 2 * x - PAD
    upper = tl.load(source, mask=there, other=0.0) + tl.load(source + 1, mask=there, other=0.0)
    lower = tl.load(source + pitch, mask=there, other=0.0)
    value = 0.25 * (upper + lower + tl.load(source + pitch + 1, mask=there, other=0.0))
    tl.store(out + at, value, mask=there)


def halved(picture: Tensor) -> Tensor:
    """Return the next level of a pyramid; both with their borders."""
    pad = definition.PAD
    height, pitch = picture.shape
    size = ((height - 2 * pad + 1) // 2 + 2 * pad, (pitch - 2 * pad + 1) // 2 + 2 * pad)
    out = torch.empty(size, dtype=torch.float32, device=picture.device)
    halve_kernel[(triton.cdiv(out.numel(), BLOCK),)](
        picture, out, pitch, *size, BLOCK=BLOCK, num_warps=4, enable_fp_fusion=False
    )
    return out


@DENSE_FLOW.register("cuda")
def dense_flow(current: Sequence[Tensor], previous: Sequence[Tensor], size: tuple[int, int], order: str) -> Tensor:
    if order == "raster":
        return dense_flow_reference(current, previous, size, order)
    device = current[0].device
    # A patch has a warp of its own; the interpreter, which takes one program after the other, has them all at once.
    each = 1 if device.type == "cuda" else 512
    flow: Tensor | None = None
    nothing = torch.zeros(1, device=device)
    for level in reversed(range(len(current))):
        pictures = current[level], previous[level]
        height, pitch = current[level].shape
        inner = height - 2 * definition.PAD, pitch - 2 * definition.PAD
        step = definition.FINEST_STEP if level == 0 else definition.STEP
        rows, columns = (-(-(side - definition.SIDE) // step) + 1 for side in inner)
        patches, other = (torch.empty((4, rows, columns), device=device) for _ in range(2))
        rounds = definition.COARSE_ROUNDS if level else definition.FINEST_ROUNDS
        for number, distance in enumerate((0, *rounds)):
            coarse = (0, 1) if flow is None else tuple(flow.shape[1:])
            search_kernel[(triton.cdiv(rows * columns, each),)](
                *pictures, nothing if flow is None else flow, patches, other, pitch, height, rows, columns, *coarse,
                distance, STEP=step, FIRST=number == 0, LAST=number == len(rounds), P=each,
                num_warps=1, enable_fp_fusion=False,
            )  # fmt: skip
            patches, other = other, patches
        out = (min(size[0], inner[0]), min(size[1], inner[1])) if level == 0 else inner
        cell_y, cell_x = (-(-a // b) for a, b in zip(inner, out, strict=True))
        flow = torch.empty((2, *out), device=device)
        densify_kernel[(triton.cdiv(out[0] * out[1], CELLS),)](
            *pictures, patches, flow, pitch, height, rows, columns, *out, out[1] / inner[1], out[0] / inner[0],
            STEP=step, CELL_Y=cell_y, CELL_X=cell_x, BLOCK=CELLS, num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
    assert flow is not None
    if tuple(flow.shape[1:]) == tuple(size):
        return flow[None]
    scale = _units(size[1] / flow.shape[2], size[0] / flow.shape[1], device)
    return F.interpolate(flow[None], size, mode="bilinear", align_corners=False) * scale


@cache
def _units(along_x: float, along_y: float, device: torch.device) -> Tensor:
    return torch.tensor([along_x, along_y], device=device).view(1, 2, 1, 1)
