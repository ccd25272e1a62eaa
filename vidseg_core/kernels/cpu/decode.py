"""Labels at full size on the CPU."""

from __future__ import annotations

import numpy as np
from numba import njit

from vidseg_core.kernels.cpu.lanes import (
    LANES,
    add_rounded,
    all_equal,
    first_bit,
    larger,
    largest,
    least,
    load,
    mul_rounded,
    pick,
    spread,
    store,
    store_bytes,
    sub,
)
from vidseg_core.kernels.cpu.warp import warp_pixels

MIXED = np.uint8(255)
"""Stands for "not the same class"; ids of classes are smaller."""
# Pixels of the grid whose classes are compared at once.
BLOCK = 16


@njit(nogil=True, cache=True)
def top_class(values, at, classes):
    """The class of the largest of `classes` values from `at` on, the first one of equals."""
    if classes < LANES:
        best = 0
        for c in range(1, classes):
            if values[at + c] > values[at + best]:
                best = c
        return best
    most = load(values, at)
    for group in range(LANES, classes, LANES):
        most = larger(load(values, at + min(group, classes - LANES)), most)
    wanted = spread(largest(most))
    for group in range(0, classes, LANES):
        c = min(group, classes - LANES)  # the last eight may be partly those before them
        bits = least(load(values, at + c), wanted)
        if bits != 0:
            return c + first_bit(bits)
    return 0


@njit(nogil=True, cache=True)
def argmax_rows(begin, end, logits, top):
    """For `over_rows`: logits, h x w x C, to the class of the largest, the first one of equals, h x w."""
    _, width, classes = logits.shape
    values = logits.reshape(-1)
    for y in range(begin, end):
        for x in range(width):
            top[y, x] = top_class(values, (y * width + x) * classes, classes)


@njit(nogil=True, cache=True)
def one_class_rows(begin, end, logits, out):
    """For `over_rows`: logits, h x w x C, to h x w: see `kernels.decode.one_class`."""
    height, width, classes = logits.shape
    values, rows = logits.reshape(-1), np.empty((2, width), np.uint8)
    for y in range(begin, min(end + 1, height)):
        for x in range(width):
            rows[y & 1, x] = top_class(values, (y * width + x) * classes, classes)
        if y == begin:
            continue
        _one_class(rows[(y - 1) & 1], rows[y & 1], out[y - 1])
    if end == height:
        _one_class(rows[(height - 1) & 1], rows[(height - 1) & 1], out[height - 1])


@njit(nogil=True, cache=True)
def _one_class(row, below, out):
    last = row.size - 1
    for x in range(row.size):
        a, beside = row[x], min(x + 1, last)
        out[x] = a if row[beside] == a and below[x] == a and below[beside] == a else MIXED


@njit(nogil=True, cache=True)
def decode_rows(
    begin, end, logits, way, one_class, stretch_y, stretch_x, shift, border, row_start, fy, column_start, fx, out
):
    """For `over_rows` over rows of the grid, each with the rows of `out` down to the next one.

    Args:
        logits: h x w x C.
        way: 2 x h x w, from each pixel of the grid to where its logits are read; or 2 x 0 x 0 for no motion.
        one_class: h x w, see `one_class_rows`; where there is motion.
        stretch_y, stretch_x, shift, border: see `warp_rows`.
        row_start, column_start: h + 1 and w + 1, the first row (column) of `out` behind each row (column) of the grid.
        fy, fx: how far each row (column) of `out` lies behind that of the grid; `fx` has `LANES` more.
        out: H x W.
    """
    height, width, classes = logits.shape
    pitch = -(-classes // LANES) * LANES
    # Of the last two rows of the grid: classes; logits where they were needed; and whether they were.
    top, has = np.empty((2, width), np.uint8), np.empty((2, width), np.uint8)
    kept = np.empty(2 * width * pitch, np.float32)
    for i in range(kept.size):
        kept[i] = -np.inf  # so that what fills up the last eight classes wins nowhere
    newest = -1
    found = np.empty(pitch, np.int64)
    upper, lower = np.empty((pitch, LANES), np.float32), np.empty((pitch, LANES), np.float32)
    beyond = np.empty(LANES, np.uint8)
    one = spread(np.float32(1.0))
    out_width = out.shape[1]
    for gy in range(begin, end):
        first, last = row_start[gy], row_start[gy + 1]
        if first == last:
            continue
        under = min(gy + 1, height - 1)
        for y in (gy, under):
            if y > newest:
                newest = y
                _classes_of_row(
                    y, logits, way, one_class, stretch_y, stretch_x, shift, border, top[y & 1], kept, has[y & 1]
                )
        row, below = gy & 1, under & 1
        run_start = 0  # pixels from here on have one class that is not written yet
        run_class = -1
        gx = 0
        while gx < width:
            if run_class >= 0 and gx + BLOCK < width:
                at, value = row * width + gx + 1, np.uint8(run_class)
                if all_equal(top, at, value) and all_equal(top, below * width + gx + 1, value):
                    if top[row, gx] == value and top[below, gx] == value:
                        gx += BLOCK
                        continue
            left, right = column_start[gx], column_start[gx + 1]
            beside = min(gx + 1, width - 1)
            a, b, c, d = top[row, gx], top[row, beside], top[below, gx], top[below, beside]
            same = a == b and a == c and a == d
            if left == right or (same and a == run_class):
                gx += 1
                continue
            if run_class >= 0:
                for y in range(first, last):
                    out[y, run_start:left] = run_class
            run_start, run_class = left, -1
            if same:
                run_class = a
                gx += 1
                continue
            for y, where in ((gy, row), (under, below)):
                for x in (gx, beside):
                    if has[where, x] == 0:
                        has[where, x] = 1
                        _fetch(y, x, logits, way, stretch_y, stretch_x, shift, border, kept)
            at00, at01 = (row * width + gx) * pitch, (row * width + beside) * pitch
            at10, at11 = (below * width + gx) * pitch, (below * width + beside) * pitch
            count = _candidates(kept, at00, at01, at10, at11, classes, a, b, c, d, found)
            for x in range(left, right, LANES):
                wx = load(fx, x)
                vx = sub(one, wx)
                for k in range(count):
                    i = found[k]
                    a00, a01, a10, a11 = kept[at00 + i], kept[at01 + i], kept[at10 + i], kept[at11 + i]
                    store(upper, LANES * k, add_rounded(mul_rounded(spread(a00), vx), mul_rounded(spread(a01), wx)))
                    store(lower, LANES * k, add_rounded(mul_rounded(spread(a10), vx), mul_rounded(spread(a11), wx)))
                for y in range(first, last):
                    wy, vy = spread(fy[y]), spread(np.float32(1.0) - fy[y])
                    best, label = spread(np.float32(-np.inf)), spread(np.float32(a))
                    for k in range(count):
                        value = add_rounded(
                            mul_rounded(load(upper, LANES * k), vy), mul_rounded(load(lower, LANES * k), wy)
                        )
                        label = pick(value, best, spread(np.float32(found[k])), label)
                        best = larger(value, best)
                    # What lies behind the cell is written over by what comes there.
                    if x + LANES <= out_width:
                        store_bytes(out, y * out_width + x, label)
                    else:
                        store_bytes(beyond, 0, label)
                        for i in range(out_width - x):
                            out[y, x + i] = beyond[i]
            run_start = right
            gx += 1
        if run_class >= 0:
            for y in range(first, last):
                out[y, run_start:] = run_class


@njit(nogil=True, cache=True)
def _classes_of_row(y, logits, way, one_class, stretch_y, stretch_x, shift, border, top, kept, has):
    """The classes of a row of the grid; what had to be interpolated for them is kept."""
    height, width, classes = logits.shape
    values, pitch = logits.reshape(-1), kept.size // (2 * width)
    zero, bottom, right = np.float32(0.0), np.float32(height - 1), np.float32(width - 1)
    for x in range(width):
        has[x] = 0
        if way.shape[1] == 0:
            top[x] = top_class(values, (y * width + x) * classes, classes)
            continue
        at_x = (np.float32(x) + way[0, y, x]) * stretch_x + shift
        at_y = (np.float32(y) + way[1, y, x]) * stretch_y + shift
        if border:
            at_x, at_y = min(max(at_x, zero), right), min(max(at_y, zero), bottom)
        if zero <= at_x <= right and zero <= at_y <= bottom:
            only = one_class[int(at_y), int(at_x)]
            if only != MIXED:
                top[x] = only
                continue
        to = ((y & 1) * width + x) * pitch
        warp_pixels(y, x, x + 1, logits, way, stretch_y, stretch_x, shift, border, kept, to)
        has[x] = 1
        top[x] = top_class(kept, to, classes)


@njit(nogil=True, cache=True)
def _fetch(y, x, logits, way, stretch_y, stretch_x, shift, border, kept):
    height, width, classes = logits.shape
    to = ((y & 1) * width + x) * (kept.size // (2 * width))
    if way.shape[1] == 0:
        for c in range(classes):
            kept[to + c] = logits[y, x, c]
        return
    warp_pixels(y, x, x + 1, logits, way, stretch_y, stretch_x, shift, border, kept, to)


@njit(nogil=True, cache=True)
def _candidates(kept, at00, at01, at10, at11, classes, a, b, c, d, found):
    """Ids of the classes that can win somewhere between four corners, ascending, into `found`; returns how many.

    Beaten is what one of the corners' winners reaches at all four. (A winner that is equal to a class everywhere comes
    before it, else it would have won nowhere.)
    """
    count = 0
    for group in range(0, classes, LANES):
        v00, v01 = load(kept, at00 + group), load(kept, at01 + group)
        v10, v11 = load(kept, at10 + group), load(kept, at11 + group)
        beaten = 0
        for k in range(4):
            w = a if k == 0 else b if k == 1 else c if k == 2 else d
            if (k > 0 and w == a) or (k > 1 and w == b) or (k > 2 and w == c):
                continue
            bits = least(spread(kept[at00 + w]), v00) & least(spread(kept[at01 + w]), v01)
            bits &= least(spread(kept[at10 + w]), v10) & least(spread(kept[at11 + w]), v11)
            if group <= w < group + LANES:
                bits &= ~(1 << (w - group))
            beaten |= bits
        left = ~beaten & ((1 << LANES) - 1)
        while left != 0:
            found[count] = group + first_bit(left)
            count += 1
            left &= left - 1
    return count
