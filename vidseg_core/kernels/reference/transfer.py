"""Transfers in plain torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vidseg_core.arrays import Array


def tensor_of(pixels: Array) -> Tensor:
    """Return pixels as a tensor where they are."""
    return torch.from_numpy(np.ascontiguousarray(pixels)) if isinstance(pixels, np.ndarray) else pixels


def upload_reference(pixels: np.ndarray, device: torch.device | str, out: Tensor | None = None) -> Tensor:
    """Compute `upload` in plain torch."""
    there = tensor_of(pixels).to(device)
    return there if out is None else out.copy_(there)


def download_reference(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    """Compute `download` in plain torch."""
    return tuple(x.cpu().numpy() for x in tensors)
