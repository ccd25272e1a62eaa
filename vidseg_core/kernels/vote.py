"""Bring labels to another size by vote: ids are names, and nothing lies between two of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

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


def vote_reference(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Compute `vote` in plain torch."""
    ids = torch.from_numpy(np.ascontiguousarray(labels))
    down, across = (overlaps(inputs, outputs) for inputs, outputs in zip(labels.shape, size, strict=True))
    found = torch.unique(ids)  # ascending
    votes = torch.stack([down @ (ids == one).double() @ across.T for one in found])
    return found[votes.argmax(0)].numpy()


def overlaps(inputs: int, outputs: int) -> Tensor:
    """Return outputs x inputs, float64: what each pair of pixels along one side has in common, as whole numbers.

    A side is `inputs` times `outputs` long, so that edges of both lie at whole numbers.
    """
    ours, theirs = torch.arange(outputs) * inputs, torch.arange(inputs) * outputs
    common = torch.minimum(ours[:, None] + inputs, theirs + outputs) - torch.maximum(ours[:, None], theirs)
    return common.clamp_min(0).double()


VOTE = Operation("vote", vote_reference)


@VOTE.register("cpu")
def _vote_on_cpu(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    out = np.empty(size, dtype=np.uint8)
    over_rows(vote_rows, size[0], np.ascontiguousarray(labels), out)
    return out
