"""Work of a device that is recorded once and replayed as a whole.

What is recorded reads and writes the same memory each time, so whoever records keeps its inputs where they are, and
takes its outputs before the next replay. Numbers are recorded with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from vidseg_core.devices import Device

if TYPE_CHECKING:
    import torch

Made = TypeVar("Made")
log = logging.getLogger(__name__)
WARM_UP_CALLS = 3  # kernels are compiled, and libraries choose their algorithms, before anything is recorded


class Recorder(Protocol):
    """A way to record."""

    def record(self, work: Callable[[], Made]) -> tuple[Callable[[], None], Made]:
        """Have the device do `work`, once or several times.

        Args:
            work: asks the device for the same each time, and never for something that the host has to wait for.

        Returns:
            What has it done again, and the tensors that `work` made, which each replay overwrites.

        Raises:
            RuntimeError: it cannot be recorded.
        """

    def refuse(self, reason: str) -> None:
        """Log once for each reason why something is not recorded."""


class CudaGraphs:
    """Records CUDA graphs: one launch for all kernels.

    Args:
        device: a CUDA device. Work is recorded in a stream beside the current one, which waits for that.
    """

    def __init__(self, device: Device | torch.device):
        self._device = device
        self._told: set[str] = set()

    def record(self, work: Callable[[], Made]) -> tuple[Callable[[], None], Made]:
        import torch

        graph = torch.cuda.CUDAGraph()
        current, beside = torch.cuda.current_stream(self._device), torch.cuda.Stream(self._device)
        beside.wait_stream(current)
        try:
            with torch.cuda.stream(beside):
                for _ in range(WARM_UP_CALLS):
                    work()
                # Other threads may ask the device for something meanwhile.
                with torch.cuda.graph(graph, stream=beside, capture_error_mode="thread_local"):
                    made = work()
        finally:  # whoever goes on without a recording reads what the calls before it wrote
            current.wait_stream(beside)
        return graph.replay, made

    def refuse(self, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            log.info("propagated frames are not recorded as one CUDA graph: %s", reason)
