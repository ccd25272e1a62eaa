"""Edges of labels and the guided sum on the CPU."""

from __future__ import annotations

import numpy as np
from numba import njit

NEIGHBOURS = 8


@njit(nogil=True, cache=True)
def edge_rows(begin, end, labels, edge):
    """`labels` has a border of one zero around."""
    for y in range(begin, end):
        for x in range(edge.shape[1]):
            total = -9 * np.int32(labels[y + 1, x + 1])
            for i in range(3):
                for j in range(3):
                    total += labels[y + i, x + j]
            edge[y, x] = np.float32(total != 0)


@njit(nogil=True, cache=True)
def sum_rows(begin, end, guide, warped, intra, out):
    height, width, classes = warped.shape
    for y in range(begin, end):
        for x in range(width):
            own, image = guide[y, x, 0], guide[y, x, guide.shape[2] - 1]
            for c in range(classes):
                out[y, x, c] = own * warped[y, x, c] + image * intra[y, x, c]
            for k in range(1, NEIGHBOURS + 1):
                place = k - 1 if k < 5 else k  # without the centre
                at_y, at_x = y + place // 3 - 1, x + place % 3 - 1
                if 0 <= at_y < height and 0 <= at_x < width:
                    weight = guide[y, x, k]
                    for c in range(classes):
                        out[y, x, c] += weight * warped[at_y, at_x, c]
