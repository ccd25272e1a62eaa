"""ONNX Runtime's providers for CUDA, with a stand-in for a card."""

import ctypes

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx", reason="needs the extra `onnx`")
ort = pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from vidseg_core.backends import choose, onnx_cuda  # noqa: E402
from vidseg_core.backends.onnx_cuda import CUDA, TENSORRT, OnnxRuntimeCuda, OnnxRuntimeTensorRT  # noqa: E402
from vidseg_core.errors import ConfigError  # noqa: E402
from vidseg_core.networks.graph import Graph  # noqa: E402

NONE = (None,)  # activation ranges
DEVICE = torch.device("cuda", 1)


class Value:
    def __init__(self, array):
        self.array = array

    def shape(self):
        return list(self.array.shape)


class Binding:
    """Reads and writes memory by address, as the real one does on a card."""

    def __init__(self):
        self.given, self.taken, self.results = {}, {}, []

    def bind_input(self, name, device, index, kind, shape, address):
        assert device == "cuda"
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        self.given[name] = np.frombuffer(ctypes.string_at(address, size), kind).reshape(shape)

    def bind_output(self, name, device, index, kind=None, shape=None, address=None):
        self.taken[name] = address

    def get_outputs(self):
        return self.results


class Session:
    made: list = []

    def __init__(self, source, options, providers):
        self.real = REAL(source, options, providers=["CPUExecutionProvider"])
        self.providers = providers
        Session.made.append(self)

    def get_providers(self):
        return [self.providers[0][0]] if Session.works else ["CPUExecutionProvider"]

    def get_inputs(self):
        return self.real.get_inputs()

    def get_outputs(self):
        return self.real.get_outputs()

    def io_binding(self):
        return Binding()

    def run_with_iobinding(self, binding):
        found = self.real.run(list(binding.taken), binding.given)
        binding.results = [Value(one) for one in found]
        for one, address in zip(found, binding.taken.values(), strict=True):
            if address is not None:
                ctypes.memmove(address, one.tobytes(), one.nbytes)


REAL = ort.InferenceSession


@pytest.fixture
def card(monkeypatch, tmp_path):
    Session.made, Session.works = [], True
    monkeypatch.setattr(ort, "InferenceSession", Session)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [TENSORRT, CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(onnx_cuda, "cache_directory", lambda: tmp_path / "cache" / "openvino")


@pytest.fixture
def graph(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(5, 3, 4, 4)).astype(np.float32)
    made = helper.make_graph(
        [helper.make_node("Conv", ["x", "kernel"], ["y"], strides=[4, 4])], "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5, None, None])],
        [numpy_helper.from_array(kernel, "kernel")],
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return Graph(
        path, "0" * 64, input="x", input_layout="nchw", output="y", output_layout="nchw", cut=False, num_classes=5
    )


@pytest.mark.parametrize("kind", [OnnxRuntimeCuda, OnnxRuntimeTensorRT])
def test_results_are_those_of_the_cpu(graph, card, kind):
    x = torch.randn(1, 3, 32, 48)
    expected = REAL(str(graph.path), providers=["CPUExecutionProvider"]).run(["y"], {"x": x.numpy()})[0]
    backend = kind()
    assert backend.available(DEVICE) is None and "is for CUDA devices" in backend.available(torch.device("cpu"))
    compiled = backend.compile(graph, (x,), None, 1)
    np.testing.assert_allclose(compiled(x).numpy(), expected, rtol=1e-5, atol=1e-6)
    providers = Session.made[0].providers
    if kind is OnnxRuntimeCuda:
        assert (
            providers == [(CUDA, {"device_id": 0}), "CPUExecutionProvider"] and compiled.runtime == "onnxruntime cuda"
        )
    else:
        (name, options), *others = providers
        assert name == TENSORRT and options["trt_fp16_enable"] and options["trt_engine_cache_path"].endswith("tensorrt")
        assert others == [(CUDA, {"device_id": 0}), "CPUExecutionProvider"]


def test_a_provider_that_is_not_used_is_an_error(graph, card):
    Session.works = False
    with pytest.raises(ConfigError, match="expected ONNX Runtime to use CUDAExecutionProvider, it uses CPUExecution"):
        OnnxRuntimeCuda().compile(graph, (torch.zeros(1, 3, 32, 32),), None, 1)


def test_auto_takes_them_on_cuda_and_never_on_the_cpu(graph, card, monkeypatch):
    runtime = choose.Runtime("auto", torch.device("cpu"), 1)
    assert [one.name for one in runtime._foreign_backends(graph, "segmenter", *NONE)] == ["onnxruntime", "openvino"]
    monkeypatch.setattr(runtime, "_device", DEVICE)
    found = [one.name for one in runtime._foreign_backends(graph, "segmenter", *NONE)]
    assert found == ["onnxruntime_cuda", "onnxruntime_tensorrt"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ConfigError, match="nothing executes the segmenter, an ONNX file: .*no CUDAExecutionProvider"):
        runtime._foreign_backends(graph, "segmenter", *NONE)
