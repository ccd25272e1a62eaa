"""Probabilities in plain torch."""

from __future__ import annotations

from torch import Tensor


def shares_reference(logits: Tensor) -> Tensor:
    """Compute `shares` in plain torch."""
    return logits.float().softmax(1)
