"""The picture on the grid with which later frames compare theirs."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.kernels.dispatch import Operation
from vidseg_core.kernels.transfer import Pixels, device_type_of, tensor_of

SMOOTHING = 1.0  # pixels of the grid: sensor noise and steep edges must not count as disagreement
REACH = 3  # pixels of the grid, of the Gaussian


def grid_picture(image: Pixels, grid: tuple[int, int], shrunk: Tensor | None = None) -> Tensor:
    """Shrink an image to the grid by means of areas, and smooth it by a Gaussian of `SMOOTHING`.

    Args:
        image: H x W x 3, uint8; rows may be padded.
        grid: (h, w), each at most as large as the image's.
        shrunk: 1 x 3 x any size, uint8: the image shrunk already, see `kernels.look`. It is taken instead of the image
            where it has the grid's size, on the CPU where it is larger, too: then the first step rounds twice.

    Returns:
        1 x 3 x h x w, uint8, the channels in the image's order, newly allocated, on the image's device. Both steps
        round to whole grey levels; outside the picture is its mirror image, without the outermost pixel once more.
    """
    return GRID_PICTURE.on(device_type_of(image))(image, grid, shrunk)


def grid_picture_reference(image: Pixels, grid: tuple[int, int], shrunk: Tensor | None = None) -> Tensor:
    """Compute `grid_picture` in plain torch."""
    is_there = shrunk is not None and tuple(shrunk.shape[2:]) == tuple(grid)
    small = shrunk[0].double() if shrunk is not None and is_there else shrunk_reference(image, grid)
    weights = torch.exp(-(torch.arange(-REACH, REACH + 1).double() ** 2) / (2 * SMOOTHING**2))
    kernel = (torch.outer(weights, weights) / weights.sum() ** 2).to(small.device)
    rows, columns = (mirrored(side).to(small.device) for side in grid)
    padded = small.index_select(1, rows).index_select(2, columns)
    return F.conv2d(padded[:, None], kernel[None, None]).round().to(torch.uint8).permute(1, 0, 2, 3)


def shrunk_reference(image: Pixels, size: tuple[int, int]) -> Tensor:
    """Shrink an image by means of areas: 3 x h x w, float64, whole numbers."""
    x = tensor_of(image).permute(2, 0, 1).double()  # 3 x H x W
    down, across = (areas(side, shrunk).to(x.device) for side, shrunk in zip(image.shape[:2], size, strict=True))
    return (down @ x @ across.T).round()


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


def finer(image: np.ndarray, size: tuple[int, int], shrunk: Tensor | None) -> np.ndarray:
    """Return what to shrink to (h, w): `shrunk`, 1 x 3 x any size on the CPU, if it is as large; else the image."""
    if shrunk is None or shrunk.shape[2] < size[0] or shrunk.shape[3] < size[1]:
        return image
    return shrunk[0].permute(1, 2, 0).numpy()


GRID_PICTURE = Operation("grid_picture", grid_picture_reference)


@GRID_PICTURE.register("cpu")
def _grid_picture_on_cpu(image: np.ndarray, grid: tuple[int, int], shrunk: Tensor | None = None) -> Tensor:
    # Rounded a little otherwise than what others shrink.
    small = cv2.resize(finer(image, grid, shrunk), grid[::-1], interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (2 * REACH + 1, 2 * REACH + 1), SMOOTHING)
    return torch.from_numpy(small).permute(2, 0, 1)[None]
