"""The picture as a network's card wants it, and the place that it has in the network's input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vidseg_core.arrays import Array, takes_tensors
from vidseg_core.engine.geometry import network_size
from vidseg_core.kernels.resample import network_input
from vidseg_core.kernels.stretch import stretch
from vidseg_core.models.card import InputCard

if TYPE_CHECKING:
    from torch import Tensor

BORDER = 114
"""Grey level around a letterboxed picture, as Ultralytics' networks are trained with."""


@dataclass(frozen=True)
class Placed:
    """The place of a picture in a network's input.

    Attributes:
        size: (h, w) of the input.
        content: (h, w) of the picture in it.
        offset: (y, x) of the picture's corner.
    """

    size: tuple[int, int]
    content: tuple[int, int]
    offset: tuple[int, int]

    @property
    def has_border(self) -> bool:
        return self.content != self.size


def place(picture: tuple[int, int], card: InputCard, scale: float | None, share: float = 1.0) -> Placed:
    """Find the size of a network's input for a picture. Nothing of the picture is cut off.

    Args:
        picture: (H, W).
        card: see `InputCard.size_rule` and `fit`.
        scale: size of the input in units of the picture's; None for what the card prefers.
        share: of the size that this gives, where that is not fixed.
    """
    if card.size_rule == "fixed" and card.size is not None:
        return _fitted(picture, card.size, card.fit)
    if card.size_rule == "square":
        side = card.size[0] if card.size else math.sqrt(picture[0] * picture[1]) * (scale or card.scale_for(picture))
        return _fitted(picture, network_size((1, 1), side * share, card.multiple), card.fit)
    if card.size_rule == "preferred" and card.size is not None and scale is None:
        size = card.size if share == 1.0 else network_size(card.size, share, card.multiple)
        return _fitted(picture, size, card.fit)
    wanted, factor = picture, share * (scale or card.scale_for(picture))
    if card.size_rule == "shortest_edge" and scale is None:
        wanted, factor = _edges(picture, card), share
    if card.fit == "letterbox":
        content = round(wanted[0] * factor), round(wanted[1] * factor)
        height, width = (math.ceil(side / card.multiple) * card.multiple for side in content)
        return _centred(content, (height, width))
    size = network_size(wanted, factor, card.multiple)
    return Placed(size, size, (0, 0))


def _edges(picture: tuple[int, int], card: InputCard) -> tuple[int, int]:
    """(h, w) with the card's shortest edge, rounded as image processors of `transformers` do."""
    assert card.shortest_edge is not None  # the card has checked it
    short, long = min(picture), max(picture)
    edge = card.shortest_edge
    if card.longest_edge is not None and long / short * edge > card.longest_edge:
        edge = round(card.longest_edge * short / long)
    other = int(edge * long / short)
    return (edge, other) if picture[0] <= picture[1] else (other, edge)


def _fitted(picture: tuple[int, int], size: tuple[int, int], fit: str) -> Placed:
    if fit == "stretch":
        return Placed(size, size, (0, 0))
    factor = min(size[0] / picture[0], size[1] / picture[1])
    height, width = (min(max(1, round(a * factor)), b) for a, b in zip(picture, size, strict=True))
    return _centred((height, width), size)


def _centred(content: tuple[int, int], size: tuple[int, int]) -> Placed:
    return Placed(size, content, ((size[0] - content[0]) // 2, (size[1] - content[1]) // 2))


def picture_for(image: Array, card: InputCard, placed: Placed) -> Array:
    """Resize, pad and normalise an image as a network wants it.

    Args:
        image: H x W x 3, uint8, RGB.
        placed: see `place`.

    Returns:
        1 x 3 x h x w, float32, on the image's device.
    """
    if card.resize != "aligned" or placed.has_border:
        image = stretch(image, placed.content, card.resize)
    if placed.has_border:
        image = bordered(image, placed)
    return network_input(image, placed.size, bgr=card.colours == "bgr", mean=card.mean, std=card.std)


def bordered(image: Array, placed: Placed) -> Array:
    """Return the image at its place, with `BORDER` around it."""
    (y, x), (height, width) = placed.offset, placed.content
    shape = *placed.size, 3
    whole: Array
    if isinstance(image, np.ndarray):
        whole = np.full(shape, BORDER, dtype=np.uint8)
    else:
        import torch

        whole = torch.full(shape, BORDER, dtype=torch.uint8, device=image.device)
    whole[y : y + height, x : x + width] = image  # type: ignore[assignment]
    return whole


def without_border(scores: Array, placed: Placed) -> Array:
    """Return the scores of the picture alone.

    Args:
        scores: B x C x h x w, of the network's whole input, of which its pixels cover equal parts.

    Returns:
        B x C x h' x w', whose pixels cover equal parts of the picture.
    """
    if not placed.has_border:
        return scores
    first, last, exact = [], [], True
    for have, size, content, offset in zip(scores.shape[2:], placed.size, placed.content, placed.offset, strict=True):
        begin, end = offset * have / size, (offset + content) * have / size
        exact = exact and begin == int(begin) and end == int(end)
        first.append(begin)
        last.append(end)
    if exact:
        return scores[:, :, int(first[0]) : int(last[0]), int(first[1]) : int(last[1])]
    return takes_tensors(_between)(scores, first, last, placed.content)


def _between(scores: Tensor, first: list[float], last: list[float], contents: tuple[int, int]) -> Tensor:
    """Interpolate what lies from the first to the last place, (y, x) each, for a picture of so many pixels."""
    import torch
    from torch.nn import functional as F

    sides = []
    for have, begin, end, content in zip(scores.shape[2:], first, last, contents, strict=True):
        count = min(_finer(begin, end), content)
        at = begin + (torch.arange(count, dtype=torch.float64) + 0.5) * ((end - begin) / count)
        sides.append((2 * at / have - 1).to(scores.device, scores.dtype))
    grid = torch.stack((sides[1].expand(len(sides[0]), -1), sides[0][:, None].expand(-1, len(sides[1]))), -1)
    grid = grid.expand(scores.shape[0], *grid.shape)
    return F.grid_sample(scores, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _finer(begin: float, end: float) -> int:
    """Choose a number of pixels between two places of a network's, so that all of its own are among them if possible.

    Then interpolating once more between them loses nothing.
    """
    for factor in range(1, 9):
        if ((end - begin) * factor).is_integer() and (begin * factor + (1 - factor) / 2).is_integer():
            return int((end - begin) * factor)
    return 4 * math.ceil(end - begin)
