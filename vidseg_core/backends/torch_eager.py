"""Networks executed by PyTorch as they stand, in float32 or in bfloat16."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from vidseg_core.backends.backend import Network, Outputs, Ranges, is_graph, loaded
from vidseg_core.backends.cpu_features import cpu_bf16, eager_runs
from vidseg_core.devices import Device


class Eager:
    """PyTorch in float32, on every device."""

    name = "eager"
    needs_ranges = False
    fixed_shapes = False

    def available(self, device: Device | torch.device) -> str | None:
        """Return None: it is available everywhere."""
        return None

    def executes(self, network: Network) -> bool:
        """Return whether the network is PyTorch's own."""
        return not is_graph(network)

    def is_worth_trying(self) -> bool:
        """Return whether it can be tried without ending the process."""
        return eager_runs()

    def compile(
        self, network: Network, inputs: tuple[Tensor, ...], ranges: Ranges | None, num_threads: int
    ) -> AsItStands:
        """Wrap the network; see `Backend.compile`."""
        return AsItStands(loaded(network))


class EagerBFloat16:
    """PyTorch in bfloat16, on processors that multiply such numbers themselves."""

    name = "eager bf16"
    needs_ranges = False
    fixed_shapes = False

    def available(self, device: Device | torch.device) -> str | None:
        """Return None for a CPU with instructions for bfloat16, else the reason."""
        if device.type != "cpu":
            return f"eager bf16 is for the CPU, the device is {device}"
        return None if cpu_bf16() else "the processor has no instructions for bfloat16"

    def executes(self, network: Network) -> bool:
        """Return whether the network is PyTorch's own."""
        return not is_graph(network)

    def is_worth_trying(self) -> bool:
        """Return True."""
        return True

    def compile(self, network: Network, inputs: tuple[Tensor, ...], ranges: Ranges | None, num_threads: int) -> Rounded:
        """Copy the network, rounded to bfloat16; see `Backend.compile`."""
        return Rounded(loaded(network))


class AsItStands:
    """A network, called by PyTorch."""

    runtime = "eager"

    def __init__(self, network: nn.Module):
        self._network = network

    def __call__(self, *inputs: Tensor) -> Outputs:
        return self._network(*inputs)


class Rounded:
    """A copy of a network in bfloat16, called by PyTorch."""

    runtime = "eager bf16"

    def __init__(self, network: nn.Module):
        self._network = deepcopy(network).to(torch.bfloat16)

    def __call__(self, *inputs: Tensor) -> Outputs:
        outputs = self._network(*(x.to(torch.bfloat16) for x in inputs))
        return outputs.float() if isinstance(outputs, Tensor) else tuple(y.float() for y in outputs)
