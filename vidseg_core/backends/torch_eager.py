"""Networks executed by PyTorch as they stand."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from vidseg_core.backends.backend import Outputs


class Rounded:
    """A network in bfloat16, executed by PyTorch."""

    runtime = "eager bf16"

    def __init__(self, network: nn.Module):
        self._network = deepcopy(network).to(torch.bfloat16)

    def __call__(self, *inputs: Tensor) -> Outputs:
        outputs = self._network(*(x.to(torch.bfloat16) for x in inputs))
        return outputs.float() if isinstance(outputs, Tensor) else tuple(y.float() for y in outputs)
