"""Grey levels of a colour picture on the CPU."""

from __future__ import annotations

import numpy as np
from numba import njit

# ITU-R BT.601, in units of 2^-15.
RED, GREEN, BLUE = 9798, 19235, 3735
SHIFT = 15


@njit(nogil=True, cache=True)
def grey_rows(begin, end, image, step, pixel, red, green, blue, side, out):
    """For `over_rows` over rows of `out`, h x w: mean grey levels of squares of `side` pixels, a power of 2.

    Args:
        image: bytes, rows `step` apart and pixels `pixel` apart.
        red, green, blue: where in a pixel.
    """
    width = out.shape[1]
    values = width * side * pixel - (pixel - 1 - max(red, green, blue))
    sums = np.zeros(width * side * pixel + side * pixel, np.uint16)  # up to 16 x 16 pixels of 255
    half = (side * side) << (SHIFT - 1)
    shift = SHIFT
    while 1 << (shift - SHIFT) < side * side:
        shift += 1
    for y in range(begin, end):
        # Down first, then from pixel to pixel: both are sums of neighbours in memory.
        top = y * side * step
        for j in range(0, side, 2):
            upper, lower = image[top + j * step :], image[top + (j + 1) * step :]
            if j == 0:
                for i in range(values):
                    sums[i] = np.uint16(upper[i]) + np.uint16(lower[i])
            else:
                for i in range(values):
                    sums[i] += np.uint16(upper[i]) + np.uint16(lower[i])
        apart = pixel
        while apart < side * pixel:
            for i in range(values):
                sums[i] += sums[i + apart]
            apart *= 2
        for x in range(width):
            at = x * side * pixel
            level = sums[at + red] * RED + sums[at + green] * GREEN + sums[at + blue] * BLUE
            out[y, x] = (level + half) >> shift
