"""Blending of fresh logits into carried ones on the CPU."""

from __future__ import annotations

import numpy as np
from numba import njit

from vidseg_core.kernels.cpu.lanes import LANES, add, load, mul, spread, store, sub


@njit(nogil=True, cache=True)
def update_rows(begin, end, carried, fresh, share, y0, fy, x0, fx, out):
    """Carried and out h x w x C, fresh of any size, share h x w: of the past; then, for each row and column of `out`,
    the place before it in `fresh` and how far it lies behind that.
    """
    height, width, channels = out.shape
    bottom, right = fresh.shape[0] - 1, fresh.shape[1] - 1
    one, zero = np.float32(1.0), np.float32(0.0)
    for y in range(begin, end):
        top, below = y0[y], min(y0[y] + 1, bottom)
        for x in range(width):
            past = share[y, x]
            if past == one:
                out[y, x] = carried[y, x]
                continue
            left, beside = x0[x], min(x0[x] + 1, right)
            w00, w01 = (one - fy[y]) * (one - fx[x]), (one - fy[y]) * fx[x]
            w10, w11 = fy[y] * (one - fx[x]), fy[y] * fx[x]
            if channels < LANES:
                for c in range(channels):
                    new = w00 * fresh[top, left, c] + w01 * fresh[top, beside, c]
                    new = new + w10 * fresh[below, left, c] + w11 * fresh[below, beside, c]
                    # Where the past is worth nothing it may be anything, infinite even.
                    out[y, x, c] = new if past == zero else new + past * (carried[y, x, c] - new)
                continue
            to = (y * width + x) * channels
            at00, at01 = (top * (right + 1) + left) * channels, (top * (right + 1) + beside) * channels
            at10, at11 = (below * (right + 1) + left) * channels, (below * (right + 1) + beside) * channels
            v00, v01, v10, v11, v = spread(w00), spread(w01), spread(w10), spread(w11), spread(past)
            for group in range(0, channels, LANES):
                c = min(group, channels - LANES)  # the last eight may be partly those before them
                new = add(mul(v01, load(fresh, at01 + c)), mul(v00, load(fresh, at00 + c)))
                new = add(mul(v10, load(fresh, at10 + c)), new)
                new = add(mul(v11, load(fresh, at11 + c)), new)
                if past != zero:
                    new = add(mul(v, sub(load(carried, to + c), new)), new)
                store(out, to + c, new)
