"""Between the camera image, a network's input and the grid on which logits are carried.

Convention: sizes are (height, width). Resizing is bilinear with `align_corners=True` and without anti-aliasing, so
pixel x of n falls on pixel x (m - 1) / (n - 1) of m. A stream's grid has stride 8 or 4: `H // stride x W // stride`.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.networks.normalisation import MEAN_RGB, STD_RGB
from vidseg_core.threads import over_rows

NETWORK_STRIDE = 32


def grid_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """(h, w) of the grid of an image of `size`."""
    return size[0] // stride, size[1] // stride


def network_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(h, w) of a segmentation network's input: the image's `size` times `scale`, in whole multiples of 32.

    The network halves its input five times and doubles it again. Only where each half is whole does every resize
    inside it shift features by what training has taught it.
    """
    height, width = (max(1, round(side * scale / NETWORK_STRIDE)) * NETWORK_STRIDE for side in size)
    return height, width


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """B x C x any size -> B x C x `size`; `x` itself where nothing changes."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def positions(inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """For each output pixel the input pixel before it (int32) and how far it lies behind that (float32, 0..1)."""
    step = np.float32(inputs - 1) / np.float32(max(outputs - 1, 1))
    at = np.arange(outputs, dtype=np.float32) * step
    before = np.minimum(at.astype(np.int32), inputs - 1)
    return before, at - before.astype(np.float32)


@njit(nogil=True, cache=True)
def _sample(begin, end, image, y0, fy, x0, fx, gain, offset, first, out):
    """`image` is H x (W * 3). Down whole rows first, where neighbours in memory get the same weights."""
    height, values = image.shape
    row = np.empty(values, dtype=np.float32)
    for y in range(begin, end):
        top, bottom = y0[y], min(y0[y] + 1, height - 1)
        above, below = np.float32(1.0) - fy[y], fy[y]
        for i in range(values):
            row[i] = image[top, i] * above + image[bottom, i] * below
        for x in range(out.shape[1]):
            left, right = 3 * x0[x], min(3 * x0[x] + 3, values - 3)
            before, behind = np.float32(1.0) - fx[x], fx[x]
            for c in range(3):
                value = row[left + c] * before + row[right + c] * behind
                out[y, x, abs(first - c)] = value * gain[c] + offset[c]


def network_input(image: np.ndarray, size: tuple[int, int], *, bgr: bool = False, normalised: bool = True) -> Tensor:
    """The image as a network wants it, resized and normalised in one pass.

    Args:
        image: H x W x 3, uint8, RGB.
        size: (h, w) wanted.
        bgr: whether the channels come in the order blue, green, red.
        normalised: subtract the mean and divide by the standard deviation; else values stay 0..255.

    Returns:
        1 x 3 x h x w, float32, in memory as h x w x 3 (channels last), on the CPU.
    """
    y0, fy = positions(image.shape[0], size[0])
    x0, fx = positions(image.shape[1], size[1])
    mean, std = (MEAN_RGB, STD_RGB) if normalised else ((0.0,) * 3, (1.0,) * 3)
    gain = (1.0 / np.array(std)).astype(np.float32)
    offset = (-np.array(mean) / np.array(std)).astype(np.float32)
    out = np.empty((*size, 3), dtype=np.float32)
    rows = image.reshape(image.shape[0], -1)
    over_rows(_sample, size[0], rows, y0, fy, x0, fx, gain, offset, 2 if bgr else 0, out)
    return torch.from_numpy(out)[None].permute(0, 3, 1, 2)


class View:
    """One camera image in the forms that networks on the grid want; each is made at most once, when first asked for.

    It reads the image's memory, so it must not outlive the frame; the forms it has made may.

    Args:
        image: H x W x 3, uint8, RGB.
        grid: (h, w).
        device: where tensors shall be.
    """

    def __init__(self, image: np.ndarray, grid: tuple[int, int], device: torch.device):
        self.image = image
        self.grid = grid
        self.device = device

    @cached_property
    def grid_bgr(self) -> Tensor:
        """1 x 3 x h x w, float32, normalised."""
        return network_input(self.image, self.grid, bgr=True).to(self.device)

    @cached_property
    def grid_rgb(self) -> Tensor:
        """1 x 3 x h x w, float32, 0..255."""
        return network_input(self.image, self.grid, normalised=False).to(self.device)
