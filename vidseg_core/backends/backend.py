"""The protocol of backends: what executes a network. Importing it needs no PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeGuard

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from vidseg_core.devices import Device
    from vidseg_core.networks.graph import Foreign, Graph

Outputs: TypeAlias = "Tensor | tuple[Tensor, ...]"
Network: TypeAlias = "nn.Module | Reloadable"
Ranges = dict[str, tuple[float, float]]
"""The smallest and the largest value that a convolution, by its name in the network, has been given."""


class Reloadable:
    """A network that is not in memory: enough of it to find its compiled form, and to load it where there is none.

    Args:
        identity: see `blob_cache.identity_of`.
        load: makes the network, one that PyTorch executes.
        num_classes: of the network; 0 where nobody asks for it.
    """

    def __init__(self, identity: str, load: Callable[[], nn.Module], num_classes: int = 0):
        self.identity = identity
        self.load = load
        self.num_classes = num_classes


def loaded(network: Network) -> nn.Module:
    """Return the network itself, which is loaded where it is not in memory."""
    return network.load() if isinstance(network, Reloadable) else network


def is_foreign(network: Network) -> TypeGuard[Foreign]:
    """Return whether a network is one of others, see `networks.graph`; loads nothing."""
    graphs = sys.modules.get("vidseg_core.networks.graph")
    return graphs is not None and isinstance(network, graphs.Foreign)


def is_graph(network: Network) -> TypeGuard[Graph]:
    """Return whether a network is in an ONNX file; loads nothing."""
    graphs = sys.modules.get("vidseg_core.networks.graph")
    return graphs is not None and isinstance(network, graphs.Graph)


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

    def available(self, device: Device | torch.device) -> str | None:
        """Return None where it can execute networks on `device`, else the reason why it cannot."""
        ...

    def executes(self, network: Network) -> bool:
        """Return whether it can execute a network of this kind: PyTorch's modules, or graphs of ONNX files."""
        ...

    def is_worth_trying(self) -> bool:
        """Return whether this machine can profit by it, so that `auto` tries it where it is available."""
        ...

    def compile(
        self, network: Network, inputs: tuple[Tensor, ...], ranges: Ranges | None, num_threads: int
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
