"""Networks of ONNX files executed by ONNX Runtime's CUDA and TensorRT providers, by their documentation.

Neither has been run on a card yet. Inputs and outputs stay on the device (I/O binding).
https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html and TensorRT-ExecutionProvider.html
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidseg_core.backends.backend import Network, Outputs, Ranges, is_graph
from vidseg_core.backends.blob_cache import cache_directory
from vidseg_core.backends.onnx_runtime import arranged, source_of
from vidseg_core.devices import Device
from vidseg_core.errors import ConfigError
from vidseg_core.networks.graph import Graph

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_TYPES = {
    "tensor(float)": (np.float32, torch.float32),
    "tensor(float16)": (np.float16, torch.float16),
    "tensor(uint8)": (np.uint8, torch.uint8),
    "tensor(int32)": (np.int32, torch.int32),
    "tensor(int64)": (np.int64, torch.int64),
}


class OnnxRuntimeCuda:
    """ONNX Runtime on a CUDA device; for networks of ONNX files only."""

    name = "onnxruntime_cuda"
    needs_ranges = False
    fixed_shapes = True
    provider = CUDA

    def available(self, device: Device | torch.device) -> str | None:
        """Return None where the device is a CUDA one and ONNX Runtime has the provider, else the reason."""
        if device.type != "cuda":
            return f"{self.name} is for CUDA devices, the device is {device}"
        try:
            import onnxruntime
        except ImportError as error:
            return f"ONNX Runtime cannot be imported ({error}); `pip install onnxruntime-gpu` installs it"
        if self.provider not in onnxruntime.get_available_providers():
            return f"this ONNX Runtime has no {self.provider}; `pip install onnxruntime-gpu` installs one that has"
        return None

    def executes(self, network: Network) -> bool:
        """Return whether the network is in an ONNX file."""
        return is_graph(network)

    def is_worth_trying(self) -> bool:
        """Return True."""
        return True

    def compile(
        self, network: Network, inputs: tuple[Tensor, ...], ranges: Ranges | None, num_threads: int
    ) -> OnDevice:
        """Load the graph for the shape and the device of `inputs`; see `Backend.compile`.

        Raises:
            ConfigError: ONNX Runtime does not use the provider after all.
        """
        assert is_graph(network)  # `executes` has said so
        return OnDevice(network, inputs[0], self.provider, self.options(inputs[0].device.index or 0))

    def options(self, index: int) -> dict[str, Any]:
        """Return the provider's options for the device with that number."""
        return {"device_id": index}


class OnnxRuntimeTensorRT(OnnxRuntimeCuda):
    """ONNX Runtime with TensorRT, in half precision; its engines are kept for the next process."""

    name = "onnxruntime_tensorrt"
    provider = TENSORRT

    def options(self, index: int) -> dict[str, Any]:
        """Return the provider's options for the device with that number."""
        kept = cache_directory().parent / "tensorrt"
        kept.mkdir(parents=True, exist_ok=True)
        return {
            "device_id": index, "trt_fp16_enable": True, "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(kept),
        }  # fmt: skip


class OnDevice:
    """A graph, loaded by ONNX Runtime for one shape on one device."""

    def __init__(self, graph: Graph, example: Tensor, provider: str, options: dict[str, Any]):
        import onnxruntime

        session_options = onnxruntime.SessionOptions()
        session_options.log_severity_level = 3
        source = source_of(graph, session_options)
        providers = [(provider, options), *([(CUDA, {"device_id": options["device_id"]})] if provider != CUDA else [])]
        self._session = onnxruntime.InferenceSession(
            source, session_options, providers=[*providers, "CPUExecutionProvider"]
        )
        if (used := self._session.get_providers()[0]) != provider:  # it falls back, and says so in its log only
            raise ConfigError(f"{graph.path}: expected ONNX Runtime to use {provider}, it uses {used}")
        self.runtime = f"onnxruntime {provider.removesuffix('ExecutionProvider').lower()}"
        self._graph, self._index = graph, options["device_id"]
        self._names = [name for name in (graph.output, graph.class_queries) if name]
        self._input = _TYPES[{one.name: one.type for one in self._session.get_inputs()}[graph.input]]
        told = {one.name: one.type for one in self._session.get_outputs()}
        self._outputs = [_TYPES[told[name]] for name in self._names]
        binding = self._bound(self._given(example))
        for name in self._names:
            binding.bind_output(name, "cuda", self._index)
        self._session.run_with_iobinding(binding)
        self._shapes = [tuple(one.shape()) for one in binding.get_outputs()]

    def __call__(self, *inputs: Tensor) -> Outputs:
        given = self._given(inputs[0])
        binding = self._bound(given)
        results = []
        for name, shape, (kind, dtype) in zip(self._names, self._shapes, self._outputs, strict=True):
            result = torch.empty(shape, dtype=dtype, device=given.device)
            binding.bind_output(name, "cuda", self._index, kind, shape, result.data_ptr())
            results.append(result)
        if given.is_cuda:  # it has a stream of its own
            torch.cuda.current_stream(given.device).synchronize()
        self._session.run_with_iobinding(binding)
        return arranged(self._graph, [one.float() for one in results])

    def _given(self, image: Tensor) -> Tensor:
        values = image.permute(0, 2, 3, 1) if self._graph.input_layout == "nhwc" else image
        values = values.round() if self._input[0] is np.uint8 else values
        return values.to(self._input[1]).contiguous()

    def _bound(self, values: Tensor) -> Any:
        binding = self._session.io_binding()
        binding.bind_input(
            self._graph.input, "cuda", self._index, self._input[0], tuple(values.shape), values.data_ptr()
        )
        return binding
