"""A network that OpenVINO has compiled, executed on arrays: without PyTorch, whose loading takes time and memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openvino


class CompiledNetwork:
    """A network compiled for inputs of fixed shapes, that can be called from several threads at once.

    Attributes:
        model: OpenVINO's.
    """

    def __init__(self, model: openvino.CompiledModel):
        self.model = model
        self._shapes = [tuple(output.shape) for output in model.outputs]
        self._idle: list[openvino.InferRequest] = []

    def __call__(self, given: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Execute it.

        Args:
            given: B x h x w x C, float32, contiguous.

        Returns:
            Its outputs, float32, as they are; nobody else writes to them.
        """
        from openvino import Tensor as View

        try:
            request = self._idle.pop()
        except IndexError:
            request = self.model.create_infer_request()
        # Both have to live until `infer` is through.
        outputs = [np.empty(shape, dtype=np.float32) for shape in self._shapes]
        for k, x in enumerate(given):
            request.set_input_tensor(k, View(x, shared_memory=True))
        for k, y in enumerate(outputs):
            request.set_output_tensor(k, View(y, shared_memory=True))
        request.infer()
        self._idle.append(request)
        return outputs


def read_network(core: openvino.Core, path: Path, num_threads: int) -> CompiledNetwork:
    """Read a compiled network from its file.

    Raises:
        OSError, RuntimeError: it cannot be read, or is of no use here.
    """
    return CompiledNetwork(core.import_model(path.read_bytes(), "CPU", options_of(core, num_threads)))


def options_of(core: openvino.Core, num_threads: int) -> dict:
    """Return the options with which networks are compiled."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": floating_point(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        "INFERENCE_NUM_THREADS": num_threads,
        # A thread that is tied to a processor cannot give way to a camera's frame that is worked on there.
        "ENABLE_CPU_PINNING": False,
    }


def floating_point(capabilities: Sequence[str]) -> str:
    """Return the precision for a processor with these capabilities: the one that OpenVINO itself takes for it.

    Args:
        capabilities: the property OPTIMIZATION_CAPABILITIES.
    """
    if "BF16" in capabilities:
        return "bf16"
    return "f16" if "FP16" in capabilities else "f32"


@cache
def openvino_core() -> openvino.Core:
    """Return the process's OpenVINO; raises ImportError where that cannot be imported."""
    import openvino

    return openvino.Core()
