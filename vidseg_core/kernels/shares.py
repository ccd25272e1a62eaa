"""Probabilities of the classes."""

from __future__ import annotations

import numpy as np

from vidseg_core.arrays import Array, channels_first, device_type_of, pixels_last
from vidseg_core.kernels.cpu.shares import share_rows, top_share_rows
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.threads import over_rows

VALUE_NS = 0.85
"""On one thread, see `threads.over_rows`."""


def shares(logits: Array) -> Array:
    """Return each class's probability.

    Args:
        logits: 1 x C x h x w.

    Returns:
        1 x C x h x w, float32, newly allocated: 0..1, of each pixel summing to 1.
    """
    return SHARES.on(device_type_of(logits))(logits)


def top_shares(logits: Array) -> Array:
    """Return the likeliest class's probability.

    Args:
        logits: 1 x C x h x w.

    Returns:
        1 x 1 x h x w, float32, newly allocated: the largest of `shares`.
    """
    return TOP_SHARES.on(device_type_of(logits))(logits)


SHARES = Operation("shares", "shares.shares_reference")
TOP_SHARES = Operation("top_shares", "shares.top_shares_reference")


@SHARES.register("cpu")
def _shares_on_cpu(logits: np.ndarray) -> np.ndarray:
    values = pixels_last(logits)
    out = np.empty_like(values)
    over_rows(share_rows, len(values), values, out, work_us=VALUE_NS * out.size / 1e3)
    return channels_first(out)


@TOP_SHARES.register("cpu")
def _top_shares_on_cpu(logits: np.ndarray) -> np.ndarray:
    values = pixels_last(logits)
    out = np.empty(values.shape[:2], dtype=np.float32)
    over_rows(top_share_rows, len(values), values, out, work_us=VALUE_NS * values.size / 1e3)
    return out[None, None]
