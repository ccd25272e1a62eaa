"""Labels at full size on the CPU."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def argmax_rows(begin, end, logits, top):
    """For `over_rows`: logits, h x w x C, to the class of the largest, the first one of equals, h x w."""
    height, width, classes = logits.shape
    for y in range(begin, end):
        for x in range(width):
            best, value = 0, logits[y, x, 0]
            for c in range(1, classes):
                if logits[y, x, c] > value:
                    best, value = c, logits[y, x, c]
            top[y, x] = best


@njit(nogil=True, cache=True)
def _candidates(v00, v01, v10, v11, winners, found):
    """Ids of the classes that can win somewhere between four corners, ascending, into `found`; returns how many."""
    count = 0
    for c in range(v00.shape[0]):
        beaten = False
        for k in range(4):
            w = winners[k]
            if w != c and v00[w] >= v00[c] and v01[w] >= v01[c] and v10[w] >= v10[c] and v11[w] >= v11[c]:
                # Of classes that are equal everywhere the first one stays.
                equal = v00[w] == v00[c] and v01[w] == v01[c] and v10[w] == v10[c] and v11[w] == v11[c]
                if not equal or w < c:
                    beaten = True
                    break
        if not beaten:
            found[count] = c
            count += 1
    return count


@njit(nogil=True, cache=True)
def decode_rows(begin, end, logits, top, row_start, fy, column_start, fx, out):
    height, width, classes = logits.shape
    found = np.empty(classes, dtype=np.int64)
    winners = np.empty(4, dtype=np.int64)
    best = np.empty(out.shape[1], dtype=np.float32)
    for gy in range(begin, end):
        first, last = row_start[gy], row_start[gy + 1]
        if first == last:
            continue
        below = min(gy + 1, height - 1)
        run_start = 0  # pixels from here on have one class that is not written yet
        run_class = -1
        for gx in range(width):
            left, right = column_start[gx], column_start[gx + 1]
            if left == right:
                continue
            beside = min(gx + 1, width - 1)
            a = top[gy, gx]
            same = a == top[gy, beside] and a == top[below, gx] and a == top[below, beside]
            if same and a == run_class:
                continue
            if run_class >= 0:
                for y in range(first, last):
                    out[y, run_start:left] = run_class
            run_start, run_class = left, -1
            if same:
                run_class = a
                continue
            v00, v01, v10, v11 = logits[gy, gx], logits[gy, beside], logits[below, gx], logits[below, beside]
            winners[0], winners[1], winners[2], winners[3] = a, top[gy, beside], top[below, gx], top[below, beside]
            count = _candidates(v00, v01, v10, v11, winners, found)
            for y in range(first, last):
                wy = fy[y]
                for x in range(left, right):
                    best[x] = -np.inf
                    out[y, x] = a
                for k in range(count):
                    c = found[k]
                    a00, a01, a10, a11 = v00[c], v01[c], v10[c], v11[c]
                    for x in range(left, right):
                        wx = fx[x]
                        upper = a00 * (np.float32(1) - wx) + a01 * wx
                        lower = a10 * (np.float32(1) - wx) + a11 * wx
                        value = upper * (np.float32(1) - wy) + lower * wy
                        if value > best[x]:
                            best[x] = value
                            out[y, x] = c
            run_start = right
        if run_class >= 0:
            for y in range(first, last):
                out[y, run_start:] = run_class
