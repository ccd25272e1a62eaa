"""Picture differences on the CPU."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def difference_rows(begin, end, current, past, motion, out):
    height, width, channels = current.shape
    one, right, bottom = np.float32(1.0), np.float32(width - 1), np.float32(height - 1)
    for y in range(begin, end):
        for x in range(width):
            at_x, at_y = np.float32(x) + motion[y, x, 0], np.float32(y) + motion[y, x, 1]
            if not (np.float32(0.0) <= at_x <= right and np.float32(0.0) <= at_y <= bottom):
                out[y, x] = np.inf
                continue
            x0, y0 = int(at_x), int(at_y)
            wx, wy = at_x - np.float32(x0), at_y - np.float32(y0)
            x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
            total = np.float32(0.0)
            for c in range(channels):
                upper = np.float32(past[y0, x0, c]) * (one - wx) + np.float32(past[y0, x1, c]) * wx
                lower = np.float32(past[y1, x0, c]) * (one - wx) + np.float32(past[y1, x1, c]) * wx
                total += abs(upper * (one - wy) + lower * wy - np.float32(current[y, x, c]))
            out[y, x] = total / np.float32(channels)


@njit(nogil=True, cache=True)
def difference_rows_at_rest(begin, end, current, past, out):
    height, width, channels = current.shape
    for y in range(begin, end):
        for x in range(width):
            total = np.float32(0.0)
            for c in range(channels):
                total += abs(np.float32(current[y, x, c]) - np.float32(past[y, x, c]))
            out[y, x] = total / np.float32(channels)
