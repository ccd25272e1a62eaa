"""Guided refinement on the engine's tensors: convolutions by the runtime, edges and the sum of candidates by kernels.

It computes what `GuidedRefine.forward` does; on the CPU the eleven candidates are not built but read where they are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn

from vidseg_core.engine.decode import argmax_rows
from vidseg_core.networks.guided_refine import CANDIDATES, OCCLUSION, GuidedRefine, Refined
from vidseg_core.threads import over_rows


class Refinement:
    """A `GuidedRefine`, called as the module is.

    Args:
        network: in evaluation mode.
        executor: makes of a network and its name what calls it, see `runtime.py`; None calls the network itself.
    """

    def __init__(self, network: GuidedRefine, executor: Callable[[nn.Module, str], Callable] | None = None):
        self.network = network
        weigh = _Weigh(network).eval()
        self.execute = weigh if executor is None else executor(weigh, "refinement")

    def __call__(self, warped: Tensor, image: Tensor) -> Refined:
        """See `GuidedRefine.forward`; batches of one."""
        if warped.device.type != "cpu":
            return self.network(warped, image)
        values = _channels_last(warped)
        edge = label_edges(values) if self.network.edge else None
        guide, intra = self.execute(image) if edge is None else self.execute(image, edge)
        logits = guided_sum(_channels_last(guide), values, _channels_last(intra))
        return Refined(logits, guide, edge)


class _Weigh(nn.Module):
    """The part of the network that is convolutions, as a module of its own."""

    def __init__(self, network: GuidedRefine):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, edge: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.network.weigh(image, edge)


def _channels_last(x: Tensor) -> np.ndarray:
    """1 x C x h x w -> h x w x C, float32; not copied where it lies in memory like that."""
    return x.float().permute(0, 2, 3, 1).contiguous()[0].numpy()


def label_edges(logits: np.ndarray) -> Tensor:
    """What `networks.guided_refine.label_edges` gives, of h x w x C: 1 x 1 x h x w of 0 or 1."""
    height, width, _ = logits.shape
    labels = np.zeros((height + 2, width + 2), dtype=np.uint8)
    over_rows(argmax_rows, height, logits, labels[1:-1, 1:-1])
    edge = np.empty((height, width), dtype=np.float32)
    over_rows(_edge_rows, height, labels, edge)
    return torch.from_numpy(edge)[None, None]


@njit(nogil=True, cache=True)
def _edge_rows(begin, end, labels, edge):
    """`labels` has a border of one zero around."""
    for y in range(begin, end):
        for x in range(edge.shape[1]):
            total = -9 * np.int32(labels[y + 1, x + 1])
            for i in range(3):
                for j in range(3):
                    total += labels[y + i, x + j]
            edge[y, x] = np.float32(total != 0)


def guided_sum(guide: np.ndarray, warped: np.ndarray, intra: np.ndarray) -> Tensor:
    """What `networks.guided_refine.guided_sum` gives, of h x w x C: 1 x C x h x w, newly allocated, channels last."""
    out = np.empty_like(warped)
    over_rows(_sum_rows, warped.shape[0], guide, warped, intra, out)
    return torch.from_numpy(out)[None].permute(0, 3, 1, 2)


@njit(nogil=True, cache=True)
def _sum_rows(begin, end, guide, warped, intra, out):
    height, width, classes = warped.shape
    for y in range(begin, end):
        for x in range(width):
            own, image = guide[y, x, 0], guide[y, x, OCCLUSION]
            for c in range(classes):
                out[y, x, c] = own * warped[y, x, c] + image * intra[y, x, c]
            for k in range(1, CANDIDATES - 2):
                place = k - 1 if k < 5 else k  # without the centre
                at_y, at_x = y + place // 3 - 1, x + place % 3 - 1
                if 0 <= at_y < height and 0 <= at_x < width:
                    weight = guide[y, x, k]
                    for c in range(classes):
                        out[y, x, c] += weight * warped[at_y, at_x, c]
