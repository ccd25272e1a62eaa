"""Exponential moving average of a network's weights (Polyak averaging)."""

from __future__ import annotations

import copy

import torch
from torch import nn


class WeightAverage:
    """A copy of a network that follows it slowly, batch-normalisation statistics included.

    Args:
        net: what to follow.
        decay: share of the old average that each update keeps, once there were many updates; 0 follows at once.
    """

    def __init__(self, net: nn.Module, decay: float):
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        self.updates += 1
        # Early on the average must not remember the random start.
        decay = min(self.decay, self.updates / (self.updates + 9))
        source = net.state_dict()
        floats, targets = [], []
        for key, target in self.net.state_dict().items():
            if target.is_floating_point():
                targets.append(target)
                floats.append(source[key])
            else:
                target.copy_(source[key])
        torch._foreach_lerp_(targets, floats, 1 - decay)
