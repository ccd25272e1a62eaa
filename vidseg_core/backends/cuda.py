"""Networks in half precision on CUDA devices, called by PyTorch or replayed as a CUDA graph."""

from __future__ import annotations

import logging
import threading
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vidseg_core.backends.backend import Network, Outputs, Ranges, is_graph, loaded
from vidseg_core.devices import Device
from vidseg_core.kernels.recording import CudaGraphs

log = logging.getLogger(__name__)
# Of the largest output: what folding may change by rounding. More means that somebody else read what was folded away.
FOLDING_ERROR = 1e-3


class CudaHalf:
    """PyTorch in half precision, channels last, batch norms folded into the convolutions before them."""

    name = "cuda_half"
    needs_ranges = False
    fixed_shapes = True

    def available(self, device: Device | torch.device) -> str | None:
        """Return None for a CUDA device, else the reason."""
        return None if device.type == "cuda" else f"{self.name} is for CUDA devices, the device is {device}"

    def executes(self, network: Network) -> bool:
        """Return whether the network is PyTorch's own."""
        return not is_graph(network)

    def is_worth_trying(self) -> bool:
        """Return True."""
        return True

    def compile(
        self, network: Network, inputs: tuple[Tensor, ...], ranges: Ranges | None, num_threads: int
    ) -> Half | Recorded:
        """Copy the network; see `Backend.compile`."""
        return Half(folded(loaded(network), inputs))


class CudaHalfGraph(CudaHalf):
    """The same as one CUDA graph: no time between the kernels of a network."""

    name = "cuda_half_graph"

    def compile(
        self, network: Network, inputs: tuple[Tensor, ...], ranges: Ranges | None, num_threads: int
    ) -> Half | Recorded:
        """Copy the network and record it; see `Backend.compile`."""
        return Recorded(Half(folded(loaded(network), inputs)), inputs)


class Half:
    """A network rounded to half precision, in place, called by PyTorch."""

    runtime = "cuda half"

    def __init__(self, network: nn.Module):
        # Inputs of a size come again and again: the first call tries all algorithms, before anything is recorded.
        torch.backends.cudnn.benchmark = True
        # PyTorch's stubs do not know `memory_format` of modules.
        self._network = network.to(torch.float16, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, *inputs: Tensor) -> Outputs:
        halves = (x.to(torch.float16, memory_format=torch.channels_last) for x in inputs)
        outputs = self._network(*halves)
        return outputs.float() if isinstance(outputs, Tensor) else tuple(y.float() for y in outputs)


class Recorded:
    """A network's kernels for inputs of given shapes, replayed on the caller's stream.

    Args:
        network: to be recorded.
        inputs: examples, on their device.
    """

    runtime = "cuda half graph"

    def __init__(self, network: Half, inputs: tuple[Tensor, ...]):
        self._lock = threading.Lock()
        self._inputs = tuple(x.clone() for x in inputs)
        self._network = network  # its weights are what the graph reads
        with torch.inference_mode():
            self._replay, self._outputs = CudaGraphs(inputs[0].device).record(lambda: network(*self._inputs))
        self._free = torch.cuda.Event()

    def __call__(self, *inputs: Tensor) -> Outputs:
        with self._lock:
            stream = torch.cuda.current_stream(inputs[0].device)
            stream.wait_event(self._free)  # another stream may still read the outputs
            for own, given in zip(self._inputs, inputs, strict=True):
                own.copy_(given, non_blocking=True)
            self._replay()
            outputs = self._outputs
            copies = outputs.clone() if isinstance(outputs, Tensor) else tuple(y.clone() for y in outputs)
            self._free.record(stream)
        return copies


@torch.no_grad()
def folded(network: nn.Module, inputs: tuple[Tensor, ...]) -> nn.Module:
    """Copy a network with each batch norm folded into the convolution whose output it reads.

    Args:
        network: in evaluation mode.
        inputs: examples, of any values: they show which norm follows which convolution.

    Returns:
        A copy; without any folding where the result is not the same but for rounding.
    """
    copy = deepcopy(network)
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    readers: dict[nn.Conv2d, list[nn.BatchNorm2d]] = {}

    def after_convolution(module: nn.Conv2d, given: tuple[Tensor], output: Tensor) -> None:
        made[id(output)] = module, output  # kept, so that no other tensor gets its id

    def before_norm(module: nn.BatchNorm2d, given: tuple[Tensor]) -> None:
        if id(given[0]) in made:
            readers.setdefault(made[id(given[0])][0], []).append(module)

    hooks = []
    for module in copy.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after_convolution))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(before_norm))
    expected = copy(*inputs)
    for hook in hooks:
        hook.remove()
    pairs = {norm[0]: convolution for convolution, norm in readers.items() if len(norm) == 1}
    if len(pairs) != sum(len(norm) for norm in readers.values()):
        log.info("batch norms stay: some read the output of several convolutions, or several read one's")
        return copy
    replaced: dict[nn.Module, nn.Module] = dict.fromkeys(pairs, nn.Identity())
    for norm, convolution in pairs.items():
        replaced[convolution] = fuse_conv_bn_eval(convolution, norm)
    for parent in list(copy.modules()):
        for name, child in list(parent.named_children()):
            if child in replaced:
                setattr(parent, name, replaced[child])
    found = copy(*inputs)
    for one, other in zip(_tensors(found), _tensors(expected), strict=True):
        if (one - other).abs().max() > FOLDING_ERROR * other.abs().max():
            log.info("batch norms stay: something else reads what they read")
            return deepcopy(network)
    return copy


def _tensors(outputs: Outputs) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else outputs
