"""Labels at another size in plain torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


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
