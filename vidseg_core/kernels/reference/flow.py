"""Dense inverse search in plain torch, and pyramids: `kernels.flow` says what is computed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.arrays import Array
from vidseg_core.kernels.cpu.dis import (
    ALIKE,
    ALONE,
    COARSE_ROUNDS,
    CONVERGED,
    DAMPING,
    FINEST_ROUNDS,
    FINEST_STEP,
    ITERATIONS,
    PAD,
    PIXELS,
    SHORT,
    SIDE,
    STEP,
    STRIPE,
)
from vidseg_core.kernels.reference.transfer import tensor_of


def pyramid_reference(grey: Array, levels: int) -> list[Tensor]:
    """Compute `pyramid` in plain torch."""
    inner = tensor_of(grey).float()[None, None]
    pictures = []
    for _ in range(levels):
        pictures.append(F.pad(inner, (PAD,) * 4, mode="replicate")[0, 0])
        height, width = inner.shape[2:]
        inner = F.avg_pool2d(F.pad(inner, (0, width % 2, 0, height % 2), mode="replicate"), 2)
    return pictures


def dense_flow_reference(
    current: Sequence[Tensor], previous: Sequence[Tensor], size: tuple[int, int], order: str
) -> Tensor:
    """Compute `dense_flow` in plain torch."""
    flow: Tensor | None = None
    for level in reversed(range(len(current))):
        search = _Search(current[level], previous[level], FINEST_STEP if level == 0 else STEP)
        if order == "raster":
            patches = search.in_raster_order(flow)
        else:
            patches = search.in_rounds(flow, FINEST_ROUNDS if level == 0 else COARSE_ROUNDS)
        height, width = search.size
        flow = search.dense(patches, (min(size[0], height), min(size[1], width)) if level == 0 else search.size)
    assert flow is not None
    if tuple(flow.shape[1:]) == tuple(size):
        return flow[None]
    scale = torch.tensor([size[1] / flow.shape[2], size[0] / flow.shape[1]]).to(flow.device).view(1, 2, 1, 1)
    return F.interpolate(flow[None], size, mode="bilinear", align_corners=False) * scale


class _Search:
    """One level. Patches are numbered row by row; what one has found is u, v, cost."""

    def __init__(self, current: Tensor, previous: Tensor, step: int):
        self.current, self.previous = current.reshape(-1), previous.reshape(-1)
        self.pitch, self.padded = current.shape[1], current.shape
        height, width = self.size = (current.shape[0] - 2 * PAD, current.shape[1] - 2 * PAD)
        self.rows, self.columns = (-(-(side - SIDE) // step) + 1 for side in self.size)
        device = current.device
        y = PAD + (torch.arange(self.rows, device=device) * step).clamp_max(height - SIDE)
        x = PAD + (torch.arange(self.columns, device=device) * step).clamp_max(width - SIDE)
        self.y, self.x = (at.reshape(-1) for at in torch.meshgrid(y, x, indexing="ij"))
        side = torch.arange(SIDE, device=device)
        self.offsets = side[:, None] * self.pitch + side
        own = (self.y * self.pitch + self.x)[:, None, None] + self.offsets
        self.own = self.current[own]  # N x 8 x 8
        self.slopes = [
            0.5 * (self.current[own + ahead] - self.current[own - ahead]) for ahead in (1, self.pitch)
        ]  # along x and y
        self.means = [slope.mean((1, 2)) for slope in self.slopes]
        (x_, y_), (mean_x, mean_y) = self.slopes, self.means
        xx = (x_ * x_).sum((1, 2)) - mean_x * mean_x * PIXELS + DAMPING
        yy = (y_ * y_).sum((1, 2)) - mean_y * mean_y * PIXELS + DAMPING
        xy = (x_ * y_).sum((1, 2)) - mean_x * mean_y * PIXELS
        scale = 1 / (xx * yy - xy * xy)
        self.inverse = yy * scale, -xy * scale, xx * scale

    def start(self, coarse: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return u and v of all patches, from the coarser level's flow, 2 x h x w."""
        if coarse is None:
            return torch.zeros_like(self.own[:, 0, 0]), torch.zeros_like(self.own[:, 0, 0])
        x = ((self.x - PAD + SIDE // 2) // 2).clamp_max(coarse.shape[2] - 1)
        y = ((self.y - PAD + SIDE // 2) // 2).clamp_max(coarse.shape[1] - 1)
        return 2 * coarse[0, y, x], 2 * coarse[1, y, x]

    def in_raster_order(self, coarse: Tensor | None) -> Tensor:
        """Search patch after patch; returns 3 x N. Those of one diagonal do not wait for each other."""
        found = torch.stack((*self.start(coarse), torch.zeros_like(self.own[:, 0, 0])))
        stripe = self.rows if self.size[0] * self.size[1] <= ALONE else STRIPE
        number = torch.arange(self.rows * self.columns, device=found.device)
        row, column = number // self.columns, number % self.columns
        top = row // stripe * stripe
        bottom = (top + stripe).clamp_max(self.rows)
        for towards in (-1, 1):
            behind = (row - top, column) if towards < 0 else (bottom - 1 - row, self.columns - 1 - column)
            diagonal = behind[0] + behind[1]
            for step in range(int(diagonal.max()) + 1):
                which = number[diagonal == step]
                u, v, own = found[:, which]
                if towards < 0:
                    own = self.cost(which, u, v)
                better = torch.full_like(which, towards < 0, dtype=torch.bool)
                seen_u, seen_v = torch.full_like(u, torch.inf), torch.full_like(u, torch.inf)
                for j, i in ((row[which], column[which] + towards), (row[which] + towards, column[which])):
                    there = (top[which] <= j) & (j < bottom[which]) & (0 <= i) & (i < self.columns)
                    u1, v1, _ = found[:, torch.where(there, j * self.columns + i, 0)]
                    new = ((u1 - u).abs() + (v1 - v).abs() > ALIKE) & (
                        (u1 - seen_u).abs() + (v1 - seen_v).abs() > ALIKE
                    )
                    looks = there & new & (own > CONVERGED)
                    cost = self.cost(which, u1, v1)
                    seen_u, seen_v = torch.where(looks, u1, seen_u), torch.where(looks, v1, seen_v)
                    takes = looks & (cost < own)
                    u, v = torch.where(takes, u1, u), torch.where(takes, v1, v)
                    own = torch.where(takes, cost, own)
                    better |= takes
                found[:, which] = torch.where(better, torch.stack(self.descend(which, u, v)), found[:, which])
        return found

    def in_rounds(self, coarse: Tensor | None, distances: Sequence[int]) -> Tensor:
        """Search all patches at once; returns 3 x N."""
        number = torch.arange(self.rows * self.columns, device=self.own.device)
        row, column = number // self.columns, number % self.columns
        found = torch.stack(self.descend(number, *self.start(coarse)))
        for distance in distances:
            own_u, own_v, own = found
            u, v, best = own_u, own_v, torch.full_like(own, torch.inf)
            for along_y, along_x in ((0, distance), (0, -distance), (distance, 0), (-distance, 0)):
                j, i = row + along_y, column + along_x
                there = (0 <= j) & (j < self.rows) & (0 <= i) & (i < self.columns)
                u1, v1, _ = found[:, torch.where(there, j * self.columns + i, 0)]
                new = ((u1 - own_u).abs() + (v1 - own_v).abs() > ALIKE) & ((u1 - u).abs() + (v1 - v).abs() > ALIKE)
                cost = self.cost(number, u1, v1)
                takes = there & new & (cost < best)
                u, v = torch.where(takes, u1, u), torch.where(takes, v1, v)
                best = torch.where(takes, cost, best)
            after = torch.stack(self.descend(number, u, v))
            found = torch.where((own > CONVERGED) & (best < torch.inf) & (after[2] < own), after, found)
        return found

    def differences(self, which: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """N x 8 x 8: the previous picture, sampled at patches moved by (u, v), less the current one."""
        x = (self.x[which] + u).clamp(1, self.padded[1] - SIDE - 2)
        y = (self.y[which] + v).clamp(1, self.padded[0] - SIDE - 2)
        left, top = x.long(), y.long()
        wx, wy = x - left, y - top
        at = (top * self.pitch + left)[:, None, None] + self.offsets
        sampled = -self.own[which]
        for ahead, weight in (
            (0, (1 - wx) * (1 - wy)), (1, wx * (1 - wy)), (self.pitch, (1 - wx) * wy), (self.pitch + 1, wx * wy),
        ):  # fmt: skip
            sampled = sampled + weight[:, None, None] * self.previous[at + ahead]
        return sampled

    def cost(self, which: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Sum of squared differences less their mean."""
        rest = self.differences(which, u, v)
        return (rest * rest).sum((1, 2)) - rest.sum((1, 2)) ** 2 / PIXELS

    def descend(self, which: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Descend from (u, v) until steps are short or the cost no longer falls: u, v, cost.

        Where the end is more than a patch away from the beginning, that is returned.
        """
        begin_u, begin_v = u, v
        best_u, best_v, best = u, v, torch.full_like(u, torch.inf)
        first, goes = best, torch.ones_like(u, dtype=torch.bool)
        along_x, along_y = (slope[which] for slope in self.slopes)
        mean_x, mean_y = (mean[which] for mean in self.means)
        xx, xy, yy = (part[which] for part in self.inverse)
        for iteration in range(ITERATIONS):
            rest = self.differences(which, u, v)
            total = rest.sum((1, 2))
            cost = (rest * rest).sum((1, 2)) - total * total / PIXELS
            first = cost if iteration == 0 else first
            goes = goes & (cost < best)
            best_u, best_v = torch.where(goes, u, best_u), torch.where(goes, v, best_v)
            best = torch.where(goes, cost, best)
            g_x = (rest * along_x).sum((1, 2)) - total * mean_x
            g_y = (rest * along_y).sum((1, 2)) - total * mean_y
            step_u, step_v = xx * g_x + xy * g_y, xy * g_x + yy * g_y
            u, v = u - step_u, v - step_v
            short = goes & (step_u * step_u + step_v * step_v < SHORT * SHORT)
            best_u, best_v = torch.where(short, u, best_u), torch.where(short, v, best_v)
            goes = goes & ~short
        far = (best_u - begin_u) ** 2 + (best_v - begin_v) ** 2 > PIXELS
        return torch.where(far, begin_u, best_u), torch.where(far, begin_v, best_v), torch.where(far, first, best)

    def dense(self, found: Tensor, size: tuple[int, int]) -> Tensor:
        """Mean flow of the patches over each pixel of a lattice of `size`, in its pixels: 2 x h x w."""
        (height, width), (out_height, out_width) = self.size, size
        number = torch.arange(found.shape[1], device=found.device)
        rest = self.differences(number, found[0], found[1])
        whole = 1 / (1 + (rest * rest).sum((1, 2)) / PIXELS)
        weight = whole[:, None, None] / rest.abs().clamp_min(1) ** 3
        side = torch.arange(SIDE, device=found.device)
        row = (self.y[:, None] - PAD + side) * out_height // height
        column = (self.x[:, None] - PAD + side) * out_width // width
        to = (row[:, :, None] * out_width + column[:, None, :]).reshape(-1)
        sums = found.new_zeros(3, out_height * out_width)
        for plane, factor in zip(sums, (torch.ones_like(found[0]), found[0], found[1]), strict=True):
            plane.index_add_(0, to, (weight * factor[:, None, None]).reshape(-1))
        unit = torch.tensor([out_width / width, out_height / height]).to(found.device)[:, None]
        return (unit * sums[1:] / sums[0]).view(2, out_height, out_width)
