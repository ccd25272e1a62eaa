"""Labels at another size on the CPU."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def vote_rows(begin, end, labels, out):
    """For `over_rows`: labels H x W to out h x w, by the areas that pixels have in common, in units of 1 / (h w)."""
    height, width = labels.shape
    rows, columns = out.shape
    votes = np.zeros(256, dtype=np.int64)
    low, high = np.empty(width, dtype=np.uint8), np.empty(width, dtype=np.uint8)
    starts, stops = np.empty(columns, dtype=np.int32), np.empty(columns, dtype=np.int32)
    for x in range(columns):
        starts[x], stops[x] = x * width // columns, ((x + 1) * width - 1) // columns
    for y in range(begin, end):
        top, bottom = y * height, (y + 1) * height
        first, last = top // rows, (bottom - 1) // rows
        # Most pixels see one class only. Smallest and largest ids of whole columns tell, many columns at a time.
        for x in range(width):
            low[x] = labels[first, x]
            high[x] = labels[first, x]
        for row in range(first + 1, last + 1):
            for x in range(width):
                low[x] = min(low[x], labels[row, x])
                high[x] = max(high[x], labels[row, x])
        for x in range(columns):
            start, stop = starts[x], stops[x]
            least, most = low[start], high[start]
            for column in range(start + 1, stop + 1):
                least, most = min(least, low[column]), max(most, high[column])
            if least == most:
                out[y, x] = least
                continue
            left, right = x * width, (x + 1) * width
            best, best_votes = 0, np.int64(0)
            for row in range(first, last + 1):
                down = min(bottom, (row + 1) * rows) - max(top, row * rows)
                for column in range(start, stop + 1):
                    label = labels[row, column]
                    across = min(right, (column + 1) * columns) - max(left, column * columns)
                    votes[label] += down * across
                    if votes[label] > best_votes or (votes[label] == best_votes and label < best):
                        best, best_votes = label, votes[label]
            out[y, x] = best
            for row in range(first, last + 1):
                for column in range(start, stop + 1):
                    votes[labels[row, column]] = 0
