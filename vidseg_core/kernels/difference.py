"""Difference between a picture and the past one moved to it."""

from __future__ import annotations

import numpy as np

from vidseg_core.arrays import Array, as_tensor, device_type_of, pixels_last
from vidseg_core.kernels.cpu.difference import difference_rows
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.threads import over_rows


def difference(current: Array, past: Array, motion: Array | None) -> Array:
    """Compare each pixel's colour with the past picture's at the place that motion leads to.

    Args:
        current, past: `picture` of the two frames.
        motion: 1 x 2 x h x w, flow from the current frame to the past one; None where nothing moved.

    Returns:
        1 x 1 x h x w, float32: mean absolute difference of the channels in grey levels; infinite where motion leads
        out of the past picture or is not a number.
    """
    if motion is None:
        return _difference_at_rest(current, past)
    return DIFFERENCE.on(device_type_of(current))(current, past, motion)


def _difference_at_rest(current: Array, past: Array) -> Array:
    if isinstance(current, np.ndarray) and isinstance(past, np.ndarray):
        return np.abs(current.astype(np.float32) - past).mean(1, keepdims=True)
    current, past = as_tensor(current), as_tensor(past)
    return (current.float() - past.float()).abs().mean(1, keepdim=True)


# On one thread, see `threads.over_rows`.
PIXEL_NS = 9.0
DIFFERENCE = Operation("difference", "difference.difference_reference")


@DIFFERENCE.register("cpu")
def _difference_on_cpu(current: np.ndarray, past: np.ndarray, motion: np.ndarray) -> np.ndarray:
    h, w = current.shape[2:]
    out = np.empty((h, w), dtype=np.float32)
    pixels = (np.ascontiguousarray(x[0].transpose(1, 2, 0)) for x in (current, past))
    over_rows(difference_rows, h, *pixels, pixels_last(motion), out, work_us=PIXEL_NS * out.size / 1e3)
    return out[None, None]
