"""Difference between a picture and the past one moved to it."""

from __future__ import annotations

import numpy as np

from vidseg_core.arrays import Array, device_type_of, pixels_last
from vidseg_core.kernels.cpu.difference import difference_rows, difference_rows_at_rest
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
        return DIFFERENCE_AT_REST.on(device_type_of(current))(current, past)
    return DIFFERENCE.on(device_type_of(current))(current, past, motion)


# On one thread, see `threads.over_rows`; at rest, where nothing moved.
PIXEL_NS, REST_NS = 9.0, 1.5
DIFFERENCE = Operation("difference", "difference.difference_reference")
DIFFERENCE_AT_REST = Operation("difference_at_rest", "difference.difference_at_rest_reference")


@DIFFERENCE.register("cpu")
def _difference_on_cpu(current: np.ndarray, past: np.ndarray, motion: np.ndarray) -> np.ndarray:
    now, before = map(_pixels, (current, past))
    out = np.empty(now.shape[:2], dtype=np.float32)
    work_us = PIXEL_NS * out.size / 1e3
    over_rows(difference_rows, len(out), now, before, pixels_last(motion), out, work_us=work_us)
    return out[None, None]


@DIFFERENCE_AT_REST.register("cpu")
def _difference_at_rest_on_cpu(current: np.ndarray, past: np.ndarray) -> np.ndarray:
    now, before = map(_pixels, (current, past))
    out = np.empty(now.shape[:2], dtype=np.float32)
    over_rows(difference_rows_at_rest, len(out), now, before, out, work_us=REST_NS * out.size / 1e3)
    return out[None, None]


def _pixels(picture: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(picture[0].transpose(1, 2, 0))
