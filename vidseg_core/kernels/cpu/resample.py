"""Resizing of logits, and resizing and normalising of images, on the CPU."""

from __future__ import annotations

import numpy as np
from numba import njit

from vidseg_core.kernels.cpu.lanes import LANES, add, load, mul, spread, store


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


@njit(nogil=True, cache=True)
def interpolate_rows(begin, end, planes, y0, fy, x0, fx, out):
    """For `over_rows` over all rows of `out`, n x h x w x C, one plane after the other; `planes` n x H x W x C.

    Then, for each row and column of a plane of `out`, the place before it in `planes` and how far it lies behind that.
    """
    height, width, channels = out.shape[1:]
    row = np.empty(planes.shape[2] * channels, dtype=np.float32)
    for number in range(begin, end):
        plane, y = number // height, number % height
        interpolate_down(planes[plane], y0[y], fy[y], row)
        interpolate_across(row, channels, x0, fx, out, number * width * channels)


@njit(nogil=True, cache=True)
def interpolate_down(plane, top, behind, row):
    """Write what lies `behind` row `top` of H x W x C, as W * C values."""
    bottom, above = min(top + 1, plane.shape[0] - 1), np.float32(1.0) - behind
    values = plane.shape[1] * plane.shape[2]
    upper, lower = plane[top].reshape(values), plane[bottom].reshape(values)
    for i in range(values):
        row[i] = upper[i] * above + lower[i] * behind


@njit(nogil=True, cache=True)
def interpolate_across(row, channels, x0, fx, out, to):
    """Interpolate a row of W * C values at the places of columns, into `out` of any shape from its element `to` on."""
    last = len(row) - channels
    values = out.reshape(-1)
    for x in range(len(x0)):
        left, behind = x0[x] * channels, fx[x]
        right, before = min(left + channels, last), np.float32(1.0) - behind
        if channels < LANES:
            for c in range(channels):
                values[to + c] = row[left + c] * before + row[right + c] * behind
        else:
            v0, v1 = spread(before), spread(behind)
            for group in range(0, channels, LANES):
                c = min(group, channels - LANES)  # the last eight may be partly those before them
                store(out, to + c, add(mul(v1, load(row, right + c)), mul(v0, load(row, left + c))))
        to += channels
