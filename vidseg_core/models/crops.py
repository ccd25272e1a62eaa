"""Networks that see squares alone, called with pictures of any aspect: crops along the longer side, scores averaged."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg_core.kernels.reference.queries import scores_of_queries_reference


class Crops(nn.Module):
    """Run a network of masks and classes of queries on overlapping squares, as EoMT's image processor cuts them.

    Args:
        network: n x 3 x side x side to something with `masks_queries_logits` and `class_queries_logits`.
        side: of the squares; a picture of another shorter side is resized first.
    """

    def __init__(self, network: nn.Module, side: int):
        super().__init__()
        self.network = network
        self.side = side

    def forward(self, image: Tensor) -> Mapping[str, Tensor]:
        """Return `scores`, 1 x C x h x w with a shorter side of `side`, of a picture, 1 x 3 x any size."""
        height, width = image.shape[2:]
        short, long = min(height, width), max(height, width)
        long = max(self.side, int(self.side * long / short))
        size = (self.side, long) if height <= width else (long, self.side)
        if size != (height, width):
            image = F.interpolate(image, size, mode="bilinear", antialias=True)
        along = 3 if height <= width else 2
        begins = crop_begins(long, self.side)
        found = self.network(torch.cat([image.narrow(along, begin, self.side) for begin in begins]))
        scores = scores_of_queries_reference(
            found.masks_queries_logits, found.class_queries_logits, (self.side, self.side)
        )
        total, count = scores.new_zeros(1, scores.shape[1], *size), [0] * long
        for begin, one in zip(begins, scores.split(1), strict=True):
            total = total + F.pad(one, _beside(along, begin, long - begin - self.side))
            count = [n + (begin <= i < begin + self.side) for i, n in enumerate(count)]
        return {"scores": total / torch.tensor(count, dtype=total.dtype).view(-1, *[1] * (3 - along))}


def crop_begins(long: int, side: int) -> list[int]:
    """Return the places along a side of `long` pixels at which squares begin: evenly, as few as cover it."""
    count = math.ceil(long / side)
    overlap = (count * side - long) / (count - 1) if count > 1 else 0.0
    return [int(i * (side - overlap)) for i in range(count)]


def _beside(along: int, before: int, behind: int) -> tuple[int, ...]:
    return (before, behind) if along == 3 else (0, 0, before, behind)
