"""Backward warping on the CPU."""

from __future__ import annotations

import numpy as np
from numba import njit

from vidseg_core.kernels.cpu.lanes import LANES, add, load, mul, spread, store


@njit(nogil=True, cache=True)
def warp_rows(begin, end, source, flow, stretch_y, stretch_x, shift, border, out):
    """For `over_rows`: source and out h x w x C, flow 2 x h x w."""
    _, width, channels = source.shape
    for y in range(begin, end):
        warp_pixels(y, 0, width, source, flow, stretch_y, stretch_x, shift, border, out, y * width * channels)


@njit(nogil=True, cache=True, forceinline=True)
def warp_pixels(y, begin, end, source, flow, stretch_y, stretch_x, shift, border, out, to):
    """Warp pixels of row `y` into `out`, of any shape, from its element `to` on."""
    height, width, channels = source.shape
    bottom, right = np.float32(height), np.float32(width)
    one, zero = np.float32(1.0), np.float32(0.0)
    values = out.reshape(-1)
    for x in range(begin, end):
        at_x = (np.float32(x) + flow[0, y, x]) * stretch_x + shift
        at_y = (np.float32(y) + flow[1, y, x]) * stretch_y + shift
        if border:
            at_x = min(max(at_x, zero), right - one)
            at_y = min(max(at_y, zero), bottom - one)
        if not (-one < at_x < right and -one < at_y < bottom):
            for c in range(channels):
                values[to + c] = zero
            to += channels
            continue
        x0, y0 = int(np.floor(at_x)), int(np.floor(at_y))
        wx, wy = at_x - np.float32(x0), at_y - np.float32(y0)
        x1, y1 = x0 + 1, y0 + 1
        w00, w01 = (one - wy) * (one - wx), (one - wy) * wx
        w10, w11 = wy * (one - wx), wy * wx
        # What lies outside weighs nothing, and is read where there is something to read.
        if x0 < 0:
            x0, w00, w10 = 0, zero, zero
        if y0 < 0:
            y0, w00, w01 = 0, zero, zero
        if x1 >= width:
            x1, w01, w11 = width - 1, zero, zero
        if y1 >= height:
            y1, w10, w11 = height - 1, zero, zero
        if channels < LANES:
            for c in range(channels):
                upper = w00 * source[y0, x0, c] + w01 * source[y0, x1, c]
                values[to + c] = upper + w10 * source[y1, x0, c] + w11 * source[y1, x1, c]
            to += channels
            continue
        at00, at01 = (y0 * width + x0) * channels, (y0 * width + x1) * channels
        at10, at11 = (y1 * width + x0) * channels, (y1 * width + x1) * channels
        v00, v01, v10, v11 = spread(w00), spread(w01), spread(w10), spread(w11)
        for group in range(0, channels, LANES):
            c = min(group, channels - LANES)  # the last eight may be partly those before them
            value = add(mul(v01, load(source, at01 + c)), mul(v00, load(source, at00 + c)))
            value = add(mul(v10, load(source, at10 + c)), value)
            store(out, to + c, add(mul(v11, load(source, at11 + c)), value))
        to += channels


@njit(nogil=True, cache=True)
def compose_rows(begin, end, flow, motion, out):
    """All 2 x h x w."""
    _, height, width = flow.shape
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    zero = np.float32(0.0)
    for y in range(begin, end):
        for x in range(width):
            u, v = flow[0, y, x], flow[1, y, x]
            at_x, at_y = np.float32(x) + u, np.float32(y) + v
            # What is not a number is not larger than anything either.
            at_x = min(at_x, right) if at_x > zero else zero
            at_y = min(at_y, bottom) if at_y > zero else zero
            x0, y0 = int(at_x), int(at_y)
            wx, wy = at_x - np.float32(x0), at_y - np.float32(y0)
            x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
            for c in range(2):
                upper = motion[c, y0, x0] + wx * (motion[c, y0, x1] - motion[c, y0, x0])
                lower = motion[c, y1, x0] + wx * (motion[c, y1, x1] - motion[c, y1, x0])
                out[c, y, x] = (u if c == 0 else v) + upper + wy * (lower - upper)
