"""The protocol of what executes a network."""

from __future__ import annotations

from torch import Tensor

Outputs = Tensor | tuple[Tensor, ...]
