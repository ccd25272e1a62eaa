"""Resizing of images in bytes with smoothing, to the bit as Pillow does it."""

from __future__ import annotations

import numpy as np
from numba import njit

BITS = 22  # Pillow's: 32 bits less those of a byte and two for what overshoots


@njit(nogil=True, cache=True)
def _clipped(total):
    value = total >> BITS
    return min(max(value, 0), 255)


@njit(nogil=True, cache=True)
def across(begin, end, image, first, count, weights, out):
    """Resize rows `begin` to `end` of `image`, H x W x 3, to the width of `out`, H x w x 3."""
    half = 1 << (BITS - 1)
    for y in range(begin, end):
        for x in range(out.shape[1]):
            red = green = blue = half
            for k in range(count[x]):
                at, weight = first[x] + k, weights[x, k]
                red += image[y, at, 0] * weight
                green += image[y, at, 1] * weight
                blue += image[y, at, 2] * weight
            out[y, x, 0], out[y, x, 1], out[y, x, 2] = _clipped(red), _clipped(green), _clipped(blue)


@njit(nogil=True, cache=True)
def down(begin, end, rows, first, count, weights, out):
    """Make rows `begin` to `end` of `out`, h x values, of `rows`, H x values."""
    total = np.empty(out.shape[1], dtype=np.int32)
    for y in range(begin, end):
        total[:] = 1 << (BITS - 1)
        for k in range(count[y]):
            row, weight = rows[first[y] + k], weights[y, k]
            for i in range(len(total)):
                total[i] += np.int32(row[i]) * weight
        for i in range(len(total)):
            out[y, i] = _clipped(total[i])
