"""The picture on the grid with which later frames compare theirs."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.kernels.dispatch import Operation

SMOOTHING = 1.0  # pixels of the grid: sensor noise and steep edges must not count as disagreement
REACH = 3  # pixels of the grid, of the Gaussian


def grid_picture(image: np.ndarray, grid: tuple[int, int]) -> Tensor:
    """Shrink an image to the grid by means of areas, and smooth it by a Gaussian of `SMOOTHING`.

    Args:
        image: H x W x 3, uint8; rows may be padded.
        grid: (h, w), each at most as large as the image's.

    Returns:
        1 x 3 x h x w, uint8, the channels in the image's order, newly allocated, on the CPU. Both steps round to whole
        grey levels; outside the picture is its mirror image, without the outermost pixel once more.
    """
    return GRID_PICTURE.on("cpu")(image, grid)  # images come in the host's memory


def grid_picture_reference(image: np.ndarray, grid: tuple[int, int]) -> Tensor:
    """Compute `grid_picture` in plain torch."""
    x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).double()  # 3 x H x W
    down, across = (areas(side, shrunk) for side, shrunk in zip(image.shape[:2], grid, strict=True))
    small = (down @ x @ across.T).round()
    weights = torch.exp(-(torch.arange(-REACH, REACH + 1).double() ** 2) / (2 * SMOOTHING**2))
    kernel = torch.outer(weights, weights) / weights.sum() ** 2
    padded = small[torch.arange(3)[:, None, None], mirrored(grid[0])[:, None], mirrored(grid[1])]
    return F.conv2d(padded[:, None], kernel[None, None]).round().to(torch.uint8).permute(1, 0, 2, 3)


def areas(inputs: int, outputs: int) -> Tensor:
    """Return outputs x inputs, float64: the share of each output pixel that each input pixel covers."""
    edges = torch.arange(outputs + 1, dtype=torch.float64) * (inputs / outputs)
    pixels = torch.arange(inputs, dtype=torch.float64)
    covered = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return covered.clamp_min(0) * (outputs / inputs)


def mirrored(side: int) -> Tensor:
    """Return side + 2 `REACH` indices into a row of pixels, those outside of it mirrored at the outermost pixels."""
    at = torch.arange(-REACH, side + REACH) % max(2 * (side - 1), 1)
    return torch.where(at < side, at, 2 * (side - 1) - at)


GRID_PICTURE = Operation("grid_picture", grid_picture_reference)


@GRID_PICTURE.register("cpu")
def _grid_picture_on_cpu(image: np.ndarray, grid: tuple[int, int]) -> Tensor:
    small = cv2.resize(image, grid[::-1], interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (2 * REACH + 1, 2 * REACH + 1), SMOOTHING)
    return torch.from_numpy(small).permute(2, 0, 1)[None]
