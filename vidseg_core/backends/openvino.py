"""Networks compiled by OpenVINO for this processor and for fixed shapes.

It computes in bfloat16 where the processor does, in float16 where ARM's does, else in float32. Convolutions are
computed in 8 bit integers where that is asked for and their activation ranges are known, see `integers.py`. Compiled
networks are kept for the next process, see `blob_cache.py`.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidseg_core.backends.backend import Network, Outputs, Ranges, is_foreign, is_graph, loaded
from vidseg_core.backends.blob_cache import cache_directory, find_blob, identity_of, key_of, store_blob
from vidseg_core.backends.compiled_network import CompiledNetwork, openvino_core, options_of
from vidseg_core.backends.cpu_features import integer_instructions
from vidseg_core.backends.integers import convolutions_of, meets, quantize

if TYPE_CHECKING:
    import openvino
    import torch
    from torch import Tensor, nn

    from vidseg_core.devices import Device
    from vidseg_core.networks.graph import Graph

log = logging.getLogger(__name__)


class OpenVINO:
    """OpenVINO on the CPU, in bfloat16 where the processor has that, else in float32."""

    name = "openvino"
    needs_ranges = False
    fixed_shapes = True

    def available(self, device: Device | torch.device) -> str | None:
        """Return None where the device is the CPU and OpenVINO is installed, else the reason."""
        if device.type != "cpu":
            return f"OpenVINO is for the CPU, the device is {device}"
        if problem := _import_problem():
            return f"OpenVINO cannot be imported ({problem}); `pip install openvino` installs it"
        return None

    def executes(self, network: Network) -> bool:
        """Return True."""
        return True

    def is_worth_trying(self) -> bool:
        """Return True."""
        return True

    def compile(
        self, network: Network, inputs: tuple[Tensor, ...], ranges: Ranges | None, num_threads: int
    ) -> Compiled:
        """Compile the network in floating point; see `Backend.compile`."""
        return Compiled(network, inputs, num_threads)


class OpenVINOIntegers(OpenVINO):
    """OpenVINO on the CPU, convolutions in 8 bit integers where their activation ranges are known."""

    name = "openvino_int8"
    needs_ranges = True

    def executes(self, network: Network) -> bool:
        """Return whether its convolutions have names that stay: those of others in modules have none."""
        return is_graph(network) or not is_foreign(network)

    def is_worth_trying(self) -> bool:
        """Return whether the processor has instructions for 8 bit integers."""
        return integer_instructions()

    def compile(
        self, network: Network, inputs: tuple[Tensor, ...], ranges: Ranges | None, num_threads: int
    ) -> Compiled:
        """Compile the network, its convolutions in integers; see `Backend.compile`."""
        return Compiled(network, inputs, num_threads, ranges)


class Compiled:
    """A network, compiled by OpenVINO for the shapes of `inputs`.

    Its inputs and outputs lie channels last in memory, as the engine's other parts have and want them.

    Attributes:
        blob: the file that it is kept in.
    """

    def __init__(self, network: Network, inputs: tuple[Tensor, ...], num_threads: int, ranges: Ranges | None = None):
        core = openvino_core()
        options = options_of(core, num_threads)
        precision = options["INFERENCE_PRECISION_HINT"]
        shapes = [x.shape for x in inputs]
        self.blob = find_blob(f"{key_of(core, identity_of(network), shapes, options, ranges)}.blob")
        self._network = CompiledNetwork(load(core, network, inputs, options, ranges, self.blob))
        self.runtime = f"openvino {precision}"
        if ranges is not None and executes_integers(self._network.model):
            self.runtime = f"openvino int8 {precision}"
        elif ranges is not None:
            log.warning("OpenVINO computes no convolution in integers on this processor, all of them in %s", precision)

    def __call__(self, *inputs: Tensor) -> Outputs:
        import torch

        outputs = self._network([x.permute(0, 2, 3, 1).contiguous().numpy() for x in inputs])
        first = outputs[0]
        results = [torch.from_numpy(first if first.ndim == 4 else first[..., None]).permute(0, 3, 1, 2)]
        for y in outputs[1:]:  # three dimensions: classes of queries
            results.append(torch.from_numpy(y).permute(0, 3, 1, 2) if y.ndim == 4 else torch.from_numpy(y)[..., None])
        return results[0] if len(results) == 1 else tuple(results)


def executes_integers(model: openvino.CompiledModel) -> bool:
    """Return whether a convolution of a compiled network is computed in 8 bit integers, by its execution graph."""
    informations = (layer.get_rt_info() for layer in model.get_runtime_model().get_ops())
    return any(
        str(information["layerType"].astype(str)).startswith("Convolution")
        and information["runtimePrecision"].astype(str).lower() in ("i8", "u8")
        for information in informations
        if "layerType" in information and "runtimePrecision" in information
    )


def load(
    core: openvino.Core,
    network: Network,
    inputs: tuple[Tensor, ...],
    options: dict,
    ranges: Ranges | None,
    path: Path,
) -> openvino.CompiledModel:
    """Load a compiled network from `path`, or else compile it and put it into the user's cache."""
    if path.is_file():
        try:
            model = core.import_model(path.read_bytes(), "CPU", options)
            if path.parent == cache_directory():
                os.utime(path)  # the longest unused one goes first
        except (OSError, RuntimeError) as error:
            log.warning("%s: cannot be used, compiled anew: %s", path, " ".join(str(error).split()))
        else:
            return model
    model = _read(core, network, inputs) if is_graph(network) else _convert(loaded(network), inputs)
    if ranges is not None:
        quantize(model, ranges, from_file=is_graph(network))
    try:
        model = core.compile_model(model, "CPU", options)
    except RuntimeError as error:  # float16, as on ARM, does not hold the scale of a small range
        if ranges is None:
            raise
        log.warning("OpenVINO cannot compile the network in integers here: %s", " ".join(str(error).split()))
        return load(core, network, inputs, options, None, path)
    blob = io.BytesIO()
    model.export_model(blob)
    try:
        store_blob(cache_directory() / path.name, blob.getbuffer())
    except OSError as error:
        log.warning("%s: not kept for the next process: %s", path, error.strerror)
    return model


def _convert(network: nn.Module, inputs: tuple[Tensor, ...]) -> openvino.Model:
    """Convert a network by the frontend itself: `openvino.convert_model` reports its use over the network."""
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    examples = tuple(torch.zeros(x.shape).permute(0, 2, 3, 1).contiguous() for x in inputs)
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # sizes become constants, as they shall
        traced = torch.jit.trace(_channels_last(network).eval(), examples, check_trace=False)
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(traced, example_input=examples)  # the frontend keeps no reference to it
        model = frontend.convert(frontend.load(decoder))
    model.reshape({k: list(example.shape) for k, example in enumerate(examples)})
    return model


def _channels_last(network: nn.Module) -> nn.Module:
    """Wrap a network so that its inputs and outputs are B x h x w x C."""
    from torch import nn

    class ChannelsLast(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            outputs = self.network(*(x.permute(0, 3, 1, 2) for x in inputs))
            return tuple(y.permute(0, 2, 3, 1) for y in (outputs if isinstance(outputs, tuple) else (outputs,)))

    return ChannelsLast()


def _read(core: openvino.Core, graph: Graph, inputs: tuple[Tensor, ...]) -> openvino.Model:
    """Read a graph for pictures of the shape of `inputs`; what goes in and comes out is float32, channels last."""
    import openvino
    from openvino.preprocess import PrePostProcessor

    model = core.read_model(graph.path)
    names = [name for name in (graph.output, graph.class_queries) if name]
    tensors = {name: one for node in model.get_ops() for one in node.outputs() for name in one.get_names()}
    model = openvino.Model([tensors[name] for name in names], model.get_parameters(), graph.path.stem)
    batch, channels, height, width = inputs[0].shape
    shape = [batch, channels, height, width] if graph.input_layout == "nchw" else [batch, height, width, channels]
    model.reshape({graph.input: shape})
    prepared = PrePostProcessor(model)
    given = prepared.input(graph.input)
    given.tensor().set_layout(openvino.Layout("NHWC")).set_element_type(openvino.Type.f32)
    given.model().set_layout(openvino.Layout(graph.input_layout.upper()))
    if model.input(graph.input).get_element_type().is_integral():
        given.preprocess().custom(_rounded)
    for place in range(len(names)):
        prepared.output(place).tensor().set_element_type(openvino.Type.f32)
    result = prepared.output(0)
    if graph.output_layout != "nhw":
        result.model().set_layout(openvino.Layout(graph.output_layout.upper()))
        result.tensor().set_layout(openvino.Layout("NHWC"))
    return prepared.build()


class Measuring:
    """A graph in float32 that tells which values its convolutions meet, whenever it is called.

    Args:
        graph: from an ONNX file.
        num_threads: of the CPU, 1 or more.

    Attributes:
        ranges: of its convolutions, by the names of the tensors that they give.
    """

    def __init__(self, graph: Graph, num_threads: int):
        self._graph, self._num_threads = graph, num_threads
        self.ranges: Ranges = {}
        self._compiled: dict[tuple[int, ...], tuple[openvino.CompiledModel, list[str]]] = {}

    def __call__(self, image: Tensor) -> Tensor:
        """Execute the graph; see `Compiled`."""
        shape = tuple(image.shape)
        if shape not in self._compiled:
            self._compiled[shape] = self._compile(image)
        model, names = self._compiled[shape]
        results = model(image.permute(0, 2, 3, 1).contiguous().numpy())
        limits = [float(results[place]) for place in range(1, len(model.outputs))]
        for name, low, high in zip(names, limits[::2], limits[1::2], strict=True):
            before = self.ranges.get(name, (low, high))
            self.ranges[name] = min(low, before[0]), max(high, before[1])
        import torch

        found = np.array(results[0])
        return torch.from_numpy(found if found.ndim == 4 else found[..., None]).permute(0, 3, 1, 2)

    def _compile(self, image: Tensor) -> tuple[openvino.CompiledModel, list[str]]:
        import openvino
        from openvino import opset13

        core = openvino_core()
        model = _read(core, self._graph, (image,))
        outputs, names = [model.output(0).get_node().input_value(0)], []
        for name, layer in convolutions_of(model, from_file=True):
            _, source = meets(layer)
            axes = opset13.constant(np.arange(4))
            outputs += [opset13.reduce_min(source, axes).output(0), opset13.reduce_max(source, axes).output(0)]
            names.append(name)
        told = openvino.Model(outputs, model.get_parameters(), "measuring")
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": self._num_threads}
        return core.compile_model(told, "CPU", options), names


def _rounded(node: openvino.Output) -> openvino.Output:
    from openvino import opset10

    return opset10.round(node, "half_to_even").output(0)


def _import_problem() -> str | None:
    try:
        import openvino  # noqa: F401
    except ImportError as error:
        return str(error)
    return None
