"""The protocol of backends: what executes a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

Outputs = Tensor | tuple[Tensor, ...]
Ranges = dict[str, tuple[float, float]]
"""The smallest and the largest value that a convolution, by its name in the network, has been given."""


class Reloadable(nn.Module):
    """A network that is not in memory: enough of it to find its compiled form, and to load it where there is none.

    Args:
        identity: see `blob_cache.identity_of`.
        load: makes the network.
    """

    def __init__(self, identity: str, load: Callable[[], nn.Module]):
        super().__init__()
        self.identity = identity
        self.load = load


class Compiled(Protocol):
    """A network that is ready to be called, from several threads at once.

    Attributes:
        runtime: what executes it, for logs and diagnostics: "eager", "openvino bf16", ...
    """

    runtime: str

    def __call__(self, *inputs: Tensor) -> Outputs:
        """Execute the network.

        Args:
            inputs: B x C x h x w, float32, on the device that the backend was asked about.

        Returns:
            As the network itself, float32; nobody else writes to it.
        """
        ...


class Backend(Protocol):
    """An executor of networks, stateless.

    Attributes:
        name: its key in `vidseg_core.backends.BACKENDS`.
        needs_ranges: it computes in integers, for networks whose activation ranges are known. A network without them
            it executes in floating point.
        fixed_shapes: what it compiles takes inputs of the shapes that it was compiled for, no others; else `compile`
            needs no inputs.
    """

    name: str
    needs_ranges: bool
    fixed_shapes: bool

    def available(self, device: torch.device) -> str | None:
        """Return None where it can execute networks on `device`, else the reason why it cannot."""
        ...

    def executes(self, network: nn.Module) -> bool:
        """Return whether it can execute a network of this kind: PyTorch's modules, or graphs of ONNX files."""
        ...

    def is_worth_trying(self) -> bool:
        """Return whether this machine can profit by it, so that `auto` tries it where it is available."""
        ...

    def compile(
        self, network: nn.Module, inputs: tuple[Tensor, ...], ranges: Ranges | None, num_threads: int
    ) -> Compiled:
        """Make a network ready to be called.

        Args:
            network: in evaluation mode, float32; takes and gives tensors of four dimensions, one or a tuple of them.
            inputs: examples; their shapes matter where `fixed_shapes`, their values do not.
            ranges: the network's activation ranges; None where they are not known.
            num_threads: of the CPU, 1 or more.

        Raises:
            ValueError: `ranges` are those of another network.
        """
        ...
