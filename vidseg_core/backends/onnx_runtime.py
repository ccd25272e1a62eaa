"""Networks of ONNX files executed by ONNX Runtime on the CPU, in the type of numbers that the file has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidseg_core.backends.backend import Network, Outputs, Ranges, is_graph

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vidseg_core.devices import Device
    from vidseg_core.networks.graph import Graph

_NUMPY = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


class OnnxRuntime:
    """ONNX Runtime; for networks of ONNX files only."""

    name = "onnxruntime"
    needs_ranges = False
    fixed_shapes = False

    def available(self, device: Device | torch.device) -> str | None:
        """Return None where the device is the CPU and ONNX Runtime is installed, else the reason."""
        if device.type != "cpu":
            return f"ONNX Runtime is used on the CPU, the device is {device}"
        try:
            import onnxruntime  # noqa: F401
        except ImportError as error:
            return f"ONNX Runtime cannot be imported ({error}); `pip install onnxruntime` installs it"
        return None

    def executes(self, network: Network) -> bool:
        """Return whether the network is in an ONNX file."""
        return is_graph(network)

    def is_worth_trying(self) -> bool:
        """Return True."""
        return True

    def compile(self, network: Network, inputs: tuple[Tensor, ...], ranges: Ranges | None, num_threads: int) -> Call:
        """Load the graph; see `Backend.compile`."""
        assert is_graph(network)  # `executes` has said so
        return Call(network, num_threads)


class Call:
    """A graph, loaded by ONNX Runtime."""

    runtime = "onnxruntime"

    def __init__(self, graph: Graph, num_threads: int):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin while they wait take the processor from the frames in between.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        source = source_of(graph, options)
        self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self._graph = graph
        kinds = {one.name: one.type for one in self._session.get_inputs()}
        self._type: Any = _NUMPY[kinds[graph.input]]

    def __call__(self, *inputs: Tensor) -> Outputs:
        import torch

        graph = self._graph
        [image] = inputs
        values = (image.permute(0, 2, 3, 1) if graph.input_layout == "nhwc" else image).numpy()
        if self._type is np.uint8:
            values = np.rint(values)
        values = np.ascontiguousarray(values, dtype=self._type)
        names = [name for name in (graph.output, graph.class_queries) if name]
        results = self._session.run(names, {graph.input: values})
        return arranged(graph, [torch.from_numpy(np.ascontiguousarray(one, dtype=np.float32)) for one in results])


def source_of(graph: Graph, options: Any) -> str | bytes:
    """Return what a session of `options` loads: the file, or its content where it ends earlier."""
    if not graph.cut:
        return str(graph.path)
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(graph.path.absolute().parent)
    )
    return with_output(graph.path, graph.output)


def arranged(graph: Graph, results: list[Tensor]) -> Outputs:
    """Return a graph's outputs as its executors give them, see `Graph`."""
    found, *classes = results
    if classes:
        return found, classes[0][..., None]
    if graph.output_layout == "nhw":
        return found[:, None]
    return found.permute(0, 3, 1, 2) if graph.output_layout == "nhwc" else found


def with_output(path: Path, tensor: str) -> bytes:
    """Return the graph of a file with `tensor` as its only output, serialized; data in other files stay there."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    known = [one for one in model.graph.value_info if one.name == tensor]
    output = known[0] if known else onnx.helper.make_empty_tensor_value_info(tensor)
    del model.graph.output[:]
    model.graph.output.append(output)
    return model.SerializeToString()
