"""Dense inverse search: optical flow of grey pictures.

Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016. From coarse to fine, patches of 8 x 8 pixels
of the current picture are looked for in the previous one by gradient descent on the squared difference, of which
the patch's mean is left out so that a change of exposure moves nothing. The Hessian is that of the current picture's
patch and does not change on the way ("inverse"). A pixel's flow is a weighted mean of the patches over it.

Other than in the paper:

- A patch also tries what its neighbours have found, and goes on from the best (as in PatchMatch, Barnes et al.,
  SIGGRAPH 2009): what is lost on a coarse level comes back from where it was found. In which order is `ORDERS`.
- Weights are sharper: with d a pixel's difference under a patch in grey levels, 1 / max(1, |d|)^3, times
  1 / (1 + mean of d^2) for the whole patch. Edges of motion stay sharp without the paper's variational refinement.
- The finest level is summed up on the grid where the flow is wanted, not on its own pixels.

Orders:

- "raster": row by row, a patch tries those to the left and above, then, in a second pass back, those to the right and
  below; none that is about where it has looked already. One patch waits for another, within stripes of fixed height,
  so that threads change no result.
- "rounds": all patches descend from the coarser level's flow at once. Then, in rounds, each looks at the four that are
  a given distance away, descends from the best of what those had found before the round, and keeps the result if it is
  better. About as accurate, two to three times the time on a CPU, and what a GPU can do: its kernels' definition.

In both a patch that fits to `CONVERGED` does not look.

Pictures are float32 grey levels, 0..255, with their border pixels repeated `PAD` times around them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vidseg_core.arrays import Array, device_type_of
from vidseg_core.devices import Device
from vidseg_core.kernels.cpu import dis
from vidseg_core.kernels.cpu.dis import COARSEST_PATCHES, SIDE
from vidseg_core.kernels.dispatch import Operation

if TYPE_CHECKING:
    import torch

ORDERS = ("raster", "rounds")


def pyramid(grey: np.ndarray) -> list[np.ndarray]:
    """Make the pyramid that `dense_flow` needs of a picture.

    Args:
        grey: H x W, uint8, each side 8 or more.

    Returns:
        Pictures, (h + 2 PAD) x (w + 2 PAD), float32, owning their memory: of the same size, of half of it
        (rounded up; means of 2 x 2 pixels), and so on.

    Raises:
        ValueError: too small.
    """
    if min(grey.shape) < SIDE:
        raise ValueError(f"expected {SIDE} x {SIDE} pixels or more, got {grey.shape[1]} x {grey.shape[0]}")
    return PYRAMID.on("cpu")(grey, levels_of(*grey.shape))  # images come in the host's memory


def levels_of(height: int, width: int) -> int:
    """Count the levels of a picture's pyramid, 1 or more."""
    longer, shorter = max(height, width) / (SIDE * COARSEST_PATCHES), min(height, width) / SIDE
    return 1 + max(0, min(round(math.log2(longer)), int(math.log2(shorter))))


def dense_flow(
    current: Sequence[Array], previous: Sequence[Array], size: tuple[int, int], order: str = "raster"
) -> Array:
    """Find the current picture's pixels in the previous one.

    Args:
        current, previous: see `pyramid`.
        size: (h, w) of the grid on which flow is wanted.
        order: of `ORDERS`.

    Returns:
        1 x 2 x h x w, float32, newly allocated: u (along x) and v (along y) in pixels of the grid, finite. The same for
        any number of threads.

    Raises:
        ValueError: the pictures have different sizes, or unknown `order`.
    """
    if order not in ORDERS:
        raise ValueError(f"order: expected one of {ORDERS}, got {order!r}")
    if current[0].shape != previous[0].shape:
        got = f"{tuple(current[0].shape)} and {tuple(previous[0].shape)}"
        raise ValueError(f"expected pictures of one size, got {got}, padded")
    return DENSE_FLOW.on(device_type_of(current[0]))(current, previous, size, order)


def computes_flow(device: Device | torch.device) -> bool:
    """Return whether `dense_flow` has an implementation for a device, and need not be computed on the CPU instead.

    In plain torch it would take longer than that.
    """
    return DENSE_FLOW.has_own(device.type)


def order_on(device: Device | torch.device, order: str) -> str:
    """Return the order that computes what was asked for on a device: where all patches search at once, rounds."""
    return order if device.type == "cpu" else "rounds"


PYRAMID = Operation("pyramid", "flow.pyramid_reference")
DENSE_FLOW = Operation("dense_flow", "flow.dense_flow_reference")


@PYRAMID.register("cpu")
def _pyramid_on_cpu(grey: np.ndarray, levels: int) -> list[np.ndarray]:
    return dis.pyramid(grey, levels)


@DENSE_FLOW.register("cpu")
def _dense_flow_on_cpu(
    current: Sequence[np.ndarray], previous: Sequence[np.ndarray], size: tuple[int, int], order: str
) -> np.ndarray:
    return dis.dense_flow(list(current), list(previous), size, order == "rounds")[None]
