"""Bring labels to another size by vote: ids are names, and nothing lies between two of them."""

from __future__ import annotations

import numpy as np

from vidseg_core.kernels.cpu.vote import vote_rows
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.threads import over_rows


def vote(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Give each pixel of the new size the class that covers most of it.

    Args:
        labels: H x W, uint8.
        size: (h, w) wanted, of the same picture, larger or smaller; each pixel covers an equal part of it.

    Returns:
        h x w, uint8: only ids of pixels that the new one covers, each weighted by the area that it has in common with
        the new one, counted exactly; of equals the smallest. `labels` themselves where that is their size.
    """
    if labels.shape == tuple(size):
        return labels
    return VOTE.on("cpu")(labels, size)  # labels lie in the host's memory


VOTE = Operation("vote", "vote.vote_reference")


@VOTE.register("cpu")
def _vote_on_cpu(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    out = np.empty(size, dtype=np.uint8)
    over_rows(vote_rows, size[0], np.ascontiguousarray(labels), out)
    return out
