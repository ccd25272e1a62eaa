"""Labelled points on the CPU."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def with_label(fine, label, row, column, top, bottom, left, right):
    """Row and column of the pixel next to (row, column) that has a label, within a block; -1 for none."""
    best, found_row, found_column = np.int64(1) << 40, -1, -1
    for y in range(top, bottom):
        for x in range(left, right):
            away = (y - row) * (y - row) + (x - column) * (x - column)
            if fine[y, x] == label and away < best:
                best, found_row, found_column = away, y, x
    return found_row, found_column


@njit(nogil=True, cache=True)
def depth_rows(
    begin, end, depth, image, labels, confidence, levels, fine, is_finer, unit, inverse, origin, rows, columns,
    shown_rows, shown_columns, tops, lefts, stride, words, numbers,
):  # fmt: skip
    """For `over_rows`: rows of `words`, h x w x 6, which are `numbers`, too.

    Places in `depth` (rows, columns) and `image` (shown_*) of each row and column; those in labels and confidence are
    `stride` apart. `inverse` (3 x 3) and `origin` (3): from z (u, v, 1) to a point. If `is_finer`, places are searched
    for in `fine`, in blocks that begin at `tops` and `lefts`.
    """
    for y in range(begin, end):
        at = y * stride
        for x in range(columns.size):
            row, column, label = rows[y], columns[x], labels[at, x * stride]
            shown, place = shown_rows[y], shown_columns[x]
            has_label = True
            if is_finer and fine[row, column] != label:
                top, bottom, left, right = tops[at], tops[at + 1], lefts[x * stride], lefts[x * stride + 1]
                found, beside = with_label(fine, label, row, column, top, bottom, left, right)
                has_label = found >= 0
                if has_label:
                    row, column, shown, place = found, beside, found, beside
            z = depth[row, column] * unit
            if not (has_label and z > 0.0 and z < np.inf):
                z = np.nan
            for i in range(3):
                ray = inverse[i, 0] * column + inverse[i, 1] * row + inverse[i, 2]
                numbers[y, x, i] = z * ray + origin[i]
            red, green, blue = image[shown, place, 0], image[shown, place, 1], image[shown, place, 2]
            words[y, x, 3] = np.uint32(red) << 16 | np.uint32(green) << 8 | np.uint32(blue)
            words[y, x, 4] = label
            numbers[y, x, 5] = levels[confidence[at, x * stride]]


@njit(nogil=True, cache=True)
def cloud_rows(begin, end, points, image, labels, confidence, levels, projection, void, words, numbers):
    """For `over_rows`: points, n x 3, to `words`, n x 6, which are `numbers`, too; `projection`: to the image."""
    height, width = labels.shape
    p = projection
    for i in range(begin, end):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        numbers[i, 0], numbers[i, 1], numbers[i, 2] = x, y, z
        words[i, 3], words[i, 4], numbers[i, 5] = 0, void, 0.0
        w = p[2, 0] * x + p[2, 1] * y + p[2, 2] * z + p[2, 3]
        if not w > 0.0:
            continue
        u = (p[0, 0] * x + p[0, 1] * y + p[0, 2] * z + p[0, 3]) / w + 0.5
        v = (p[1, 0] * x + p[1, 1] * y + p[1, 2] * z + p[1, 3]) / w + 0.5
        if u >= 0.0 and u < width and v >= 0.0 and v < height:
            column, row = int(u), int(v)
            red, green, blue = image[row, column, 0], image[row, column, 1], image[row, column, 2]
            words[i, 3] = np.uint32(red) << 16 | np.uint32(green) << 8 | np.uint32(blue)
            words[i, 4] = labels[row, column]
            numbers[i, 5] = levels[confidence[row, column]]
