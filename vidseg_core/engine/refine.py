"""Guided refinement on the engine's tensors: convolutions by the runtime, edges and the sum of candidates by kernels.

The result is that of `GuidedRefine.forward`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vidseg_core.arrays import Array, as_tensor
from vidseg_core.kernels.refine import guided_sum, label_edges
from vidseg_core.networks.guided_refine import GuidedRefine, Refined


class Refinement:
    """A `GuidedRefine`, called as the module is.

    Args:
        network: in evaluation mode.
        executor: makes of a network and its name what calls it, see `backends.choose`; None calls the network itself.
    """

    def __init__(self, network: GuidedRefine, executor: Callable[[nn.Module, str], Callable] | None = None):
        self.network = network
        weigh = _Weigh(network).eval()
        self.execute = weigh if executor is None else executor(weigh, "refinement")

    def __call__(self, warped: Array, image: Array) -> Refined:
        """Refine as `GuidedRefine.forward` does; batches of one. The result is made of tensors."""
        logits = as_tensor(warped).contiguous(memory_format=torch.channels_last)  # once for both operations
        picture, edge = as_tensor(image), as_tensor(label_edges(logits)) if self.network.edge else None
        guide, intra = self.execute(picture) if edge is None else self.execute(picture, edge)
        return Refined(as_tensor(guided_sum(guide, logits, intra)), guide, edge)


class _Weigh(nn.Module):
    """The part of the network that is convolutions, as a module of its own."""

    def __init__(self, network: GuidedRefine):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, edge: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.network.weigh(image, edge)
