"""Resizing and normalising images on the CPU."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def sample_rows(begin, end, image, y0, fy, x0, fx, gain, offset, first, out):
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
