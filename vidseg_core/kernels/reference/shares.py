"""Probabilities in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def shares_reference(logits: Tensor) -> Tensor:
    """Compute `shares` in plain torch."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(1)


def top_shares_reference(logits: Tensor) -> Tensor:
    """Compute `top_shares` in plain torch."""
    return shares_reference(logits).amax(1, keepdim=True)
