"""Between the camera image, a network's input and the grid on which logits are carried.

Convention: sizes are (height, width). Resizing is bilinear with `align_corners=True` and without anti-aliasing, so
pixel x of n falls on pixel x (m - 1) / (n - 1) of m. A stream's grid has stride 8 or 4: `H // stride x W // stride`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from vidseg_core.arrays import Array
from vidseg_core.devices import Device
from vidseg_core.frame import Frame
from vidseg_core.kernels.change import small_picture
from vidseg_core.kernels.flow import computes_flow
from vidseg_core.kernels.look import look
from vidseg_core.kernels.picture import grid_picture
from vidseg_core.kernels.resample import network_input
from vidseg_core.kernels.transfer import lies_on, upload

if TYPE_CHECKING:
    import torch

NETWORK_STRIDE = 32


def grid_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """(h, w) of the grid of an image of `size`."""
    return size[0] // stride, size[1] // stride


def network_size(size: tuple[int, int], scale: float, multiple: int = NETWORK_STRIDE) -> tuple[int, int]:
    """(h, w) of a segmentation network's input: the image's `size` times `scale`, in whole multiples of `multiple`.

    The network halves its input five times and doubles it again. Only where each half is whole does every resize
    inside it shift features by what training has taught it.
    """
    height, width = (max(1, round(side * scale / multiple)) * multiple for side in size)
    return height, width


class View:
    """One camera image in the forms that networks on the grid want; each is made at most once, when first asked for.

    It reads the image's memory, so it must not outlive the frame; the forms it has made may.

    Args:
        image: H x W x 3, uint8, RGB.
        grid: (h, w).
        device: where the forms shall be.
        pixels: the image on that device, if it is there already.
        shrunk: see `kernels.look`, if it is there already.

    Attributes:
        compares: whether the frame is compared with others: then `pyramid`, if it comes first, shrinks the image, too.
        shrunk: 1 x 3 x any size, the image shrunk as far as the pyramid's finest level; None where it is not there.
    """

    def __init__(
        self,
        image: np.ndarray,
        grid: tuple[int, int],
        device: Device | torch.device,
        pixels: Array | None = None,
        shrunk: Array | None = None,
    ):
        self.image = image
        self.grid = grid
        self.device = device
        self.compares = False
        self.shrunk = shrunk
        self._given = pixels

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.image.shape[0], self.image.shape[1]

    @cached_property
    def pixels(self) -> Array:
        """The image where the device's kernels read it."""
        given = self._given
        return given if given is not None and lies_on(given, self.device) else upload(self.image, self.device)

    def shared(self, frame: Frame) -> Frame:
        """Return the frame whose image this is, with what is on the device, so that nobody brings it there again."""
        return frame if self.pixels is self.image else replace(frame, pixels=self.pixels)

    def pyramid(self, size: tuple[int, int]) -> Sequence[Array]:
        """Return the levels that `kernels.flow.dense_flow` compares, where it computes; the finest is of `size`."""
        pixels = self.pixels if computes_flow(self.device) else self.image
        levels, shrunk = look(pixels, size, self.compares)
        if type(pixels) is type(self.pixels):  # a picture of the host's is none of the device's
            self.shrunk = shrunk
        return levels

    @cached_property
    def grid_bgr(self) -> Array:
        """1 x 3 x h x w, float32, normalised."""
        return network_input(self.pixels, self.grid, bgr=True)

    @cached_property
    def grid_rgb(self) -> Array:
        """1 x 3 x h x w, float32, 0..255."""
        return network_input(self.pixels, self.grid, normalised=False)

    @cached_property
    def picture(self) -> Array:
        """1 x 3 x h x w, uint8, RGB, smoothed: what later frames compare with."""
        return grid_picture(self.pixels, self.grid, self.shrunk)

    def small(self) -> Array:
        """Return what the schedule compares, see `kernels.change.small_picture`."""
        return small_picture(self.pixels, self.shrunk)
