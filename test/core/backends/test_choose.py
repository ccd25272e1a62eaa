import importlib
import logging
import os
import subprocess
import sys
import time

import cv2
import pytest
import torch
from torch import nn

from vidseg_core import backends
from vidseg_core.arrays import as_tensor
from vidseg_core.backends import blob_cache, choose, openvino, torch_eager
from vidseg_core.backends.backend import Reloadable
from vidseg_core.backends.blob_cache import cache_directory
from vidseg_core.backends.choose import Runtime, _challengers
from vidseg_core.errors import ConfigError
from vidseg_core.kernels.resample import network_input
from vidseg_core.models.open import open_model

CPU = torch.device("cpu")
ON_CUDA = ("cuda_half", "cuda_half_graph")


class Pair(nn.Module):
    """Two inputs of different sizes, two outputs, a size that is computed: what networks here do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 3, 2, 1)

    def forward(self, fine, coarse):
        x = self.conv(fine)
        return nn.functional.interpolate(coarse, x.shape[2:], mode="bilinear", align_corners=True) + x, x


def executor(choice, network=None):
    return Runtime(choice, CPU, 2).executor((network or Pair()).eval().requires_grad_(False), "net")


def tensors(height=32, width=48):
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(1, *shape, generator=generator) for shape in ((3, height, width), (5, 9, 7)))


@torch.inference_mode()
def test_openvino_gives_what_eager_gives():
    inputs = tensors()
    expected, got = executor("eager")(*inputs), executor("openvino")(*inputs)
    for a, b in zip(expected, got, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=0, atol=0.02 * a.abs().max().item())


@torch.inference_mode()
def test_labels_of_a_real_image_agree(shared_data):
    image = cv2.cvtColor(cv2.imread(str(shared_data / "camvid" / "val" / "0016E5_07959.png")), cv2.COLOR_BGR2RGB)
    network = open_model("camvid-swiftnet-r18").networks["segmenter"]
    x = as_tensor(network_input(image, (352, 480)))
    labels = [executor(choice, network)(x).argmax(1) for choice in ("eager", "openvino")]
    assert (labels[0] == labels[1]).float().mean() > 0.995
    assert labels[0].unique().numel() > 5


@torch.inference_mode()
def test_each_shape_is_compiled_once_and_results_stay_as_they_are(monkeypatch):
    net, eager, small, large = executor("openvino"), executor("eager"), tensors(), tensors(40, 64)
    made = []
    monkeypatch.setattr(openvino, "load", lambda *args, load=openvino.load: made.append(args) or load(*args))
    first = net(*small)[0]
    kept = first.clone()
    assert net(*large)[0].shape == eager(*large)[0].shape
    net(*(x + 1 for x in small))
    assert torch.equal(first, kept)
    assert len(made) == 2


SECOND = """
import logging, sys, torch
from test_choose import executor, tensors, openvino
logging.basicConfig(level=logging.INFO)
openvino._convert = None  # what is not found cannot be made
with torch.inference_mode():
    for values in executor("openvino")(*tensors()):
        print(values.double().sum().item())
"""


@torch.inference_mode()
def test_what_one_process_compiled_the_next_one_uses(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ours = executor("openvino")(*tensors())
    [blob] = cache_directory().glob("*.blob")
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    command = [sys.executable, "-c", SECOND]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [float(line) for line in done.stdout.split()] == [values.double().sum().item() for values in ours]
    assert list(cache_directory().glob("*.blob")) == [blob] and len(list(cache_directory().iterdir())) == 2


@torch.inference_mode()
def test_a_damaged_cache_and_one_that_cannot_be_written_are_no_obstacle(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    expected = executor("openvino")(*tensors())
    [blob] = cache_directory().glob("*.blob")
    blob.write_bytes(blob.read_bytes()[:100])
    assert torch.equal(executor("openvino")(*tensors())[0], expected[0])
    assert f"{blob}: cannot be used, compiled anew" in caplog.text
    monkeypatch.setenv("XDG_CACHE_HOME", str(blob))
    assert torch.equal(executor("openvino")(*tensors())[0], expected[0])
    assert "not kept for the next process: Not a directory" in caplog.text


@torch.inference_mode()
def test_other_weights_and_shapes_are_other_cache_entries_and_there_are_never_many(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(blob_cache, "MOST_CACHED", 2)
    other = Pair()
    other.conv.bias.data += 1
    names = set()
    for network, inputs in ((Pair(), tensors()), (other, tensors()), (other, tensors(40, 64))):
        executor("openvino", network)(*inputs)
        names |= {path.name for path in cache_directory().iterdir()}
    for kind in (".blob", ".choice"):
        assert len([name for name in names if name.endswith(kind)]) == 3
        assert len(list(cache_directory().glob(f"*{kind}"))) == 2


class Slow(nn.Module):
    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def forward(self, x):
        if not torch.jit.is_tracing():
            time.sleep(self.seconds)
        return torch.tanh(x)


@torch.inference_mode()
@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_auto_takes_the_faster_one_and_says_so_once(caplog, monkeypatch, seconds):
    caplog.set_level(logging.INFO)
    if not seconds:  # then OpenVINO is the slow one
        slow = openvino.Compiled.__call__
        monkeypatch.setattr(openvino.Compiled, "__call__", lambda *args: time.sleep(0.05) or slow(*args))
    net = executor("auto", Slow(seconds))
    assert net.runtime is None
    for _ in range(2):
        net(torch.zeros(1, 3, 8, 8))
    assert net.runtime.split()[0] == ("openvino" if seconds else "eager")
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"runtime of the net: {net.runtime}; eager took ") and "(1 x 3 x 8 x 8)" in line


class Wide(nn.Module):
    """Takes a time by the pixels, and remembers how many it has seen."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        if not torch.jit.is_tracing():
            self.seen.append(tuple(x.shape[2:]))
            time.sleep(1e-6 * x.shape[2] * x.shape[3])
        return torch.tanh(x)


@torch.inference_mode()
def test_a_large_picture_is_given_to_eager_in_part_only(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    caplog.set_level(logging.INFO)
    network = Wide()
    net = executor("auto", network)
    assert net(torch.zeros(1, 1, 640, 960)).shape == (1, 1, 640, 960)
    assert set(network.seen) == {(192, 288)} and net.runtime.startswith("openvino")
    assert "eager takes about " in caplog.text and "(1 x 1 x 640 x 960)" in caplog.text
    again = Wide()
    executor("auto", again)(torch.zeros(1, 1, 640, 960))
    assert again.seen == []  # the next process knows


class OneSize(nn.Module):
    """Takes its own size only, as many exported programs do."""

    def forward(self, x):
        if tuple(x.shape[2:]) != (256, 320):
            raise RuntimeError("expected 256 x 320")
        return torch.tanh(x)


@torch.inference_mode()
def test_a_network_of_one_size_is_given_all_of_it(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    caplog.set_level(logging.INFO)
    assert executor("auto", OneSize())(torch.zeros(1, 1, 256, 320)).shape == (1, 1, 256, 320)
    assert "eager took " in caplog.text


@torch.inference_mode()
def test_a_network_that_can_be_read_again_is_not_kept_beside_its_compiled_form(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    read = []

    def again():
        read.append(1)
        return Pair().eval().requires_grad_(False)

    net = Runtime("openvino", CPU, 2).executor(again(), "net", None, again)
    first = net(*tensors())[0]
    assert isinstance(net._network, Reloadable) and len(read) == 1
    assert torch.equal(net(*tensors())[0], first)
    net(*tensors(40, 64))
    assert len(read) == 2 and isinstance(net.network, Pair)
    executor("openvino")(*tensors(48, 64))
    net(*tensors(48, 64))  # found compiled: it need not be read
    assert len(read) == 3


@torch.inference_mode()
def test_where_that_leaves_a_doubt_all_of_it_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network, compiled = Wide(), openvino.Compiled.__call__
    monkeypatch.setattr(openvino.Compiled, "__call__", lambda *args: time.sleep(0.5) or compiled(*args))
    net = executor("auto", network)
    net(torch.zeros(1, 1, 640, 960))
    assert (640, 960) in network.seen


@torch.inference_mode()
def test_what_was_compiled_with_the_installation_serves_a_user_without_a_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(blob_cache, "_INSTALLED", tmp_path / "installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "builder"))
    with blob_cache.stored_in_the_installation():
        expected = executor("openvino")(*tensors())
    [blob] = (tmp_path / "installed").glob("*.blob")
    assert blob.stat().st_mode & 0o777 == 0o644 and not cache_directory().exists()
    monkeypatch.setattr(openvino, "_convert", None)  # what is not found cannot be made
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert torch.equal(executor("openvino")(*tensors())[0], expected[0])
    assert not cache_directory().exists()


def test_without_openvino_it_is_eager_with_the_reason(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(torch_eager, "cpu_bf16", lambda: False)
    net = executor("auto")
    assert net.runtime == "eager"
    assert net(*tensors())[0].shape == (1, 5, 16, 24)
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("runtime: eager; OpenVINO cannot be imported (")
    with pytest.raises(ConfigError, match="expected auto or eager or onnxruntime, got 'openvino': OpenVINO cannot"):
        executor("openvino")


class SlowInFloat32(Slow):
    def forward(self, x):
        return super().forward(x) if x.dtype == torch.float32 else torch.tanh(x)


@torch.inference_mode()
def test_without_openvino_a_processor_with_bfloat16_computes_in_that_if_it_is_faster(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(torch_eager, "cpu_bf16", lambda: True)
    net, x = executor("auto", SlowInFloat32(0.05)), torch.full((1, 1, 8, 8), 0.3)
    y = net(x)
    assert net.runtime == "eager bf16" and y.dtype == torch.float32
    assert y.unique().tolist() == [torch.tensor(0.3, dtype=torch.bfloat16).tanh().item()]
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "runtime: eager or eager bf16",
        "runtime of the net: eager bf16",
    ]


def test_openvino_is_for_the_cpu():
    device = torch.device("cuda")
    with pytest.raises(ConfigError, match="got 'openvino': OpenVINO is for the CPU, the device is cuda"):
        Runtime("openvino", device, 1)
    assert [one.name for one in _challengers(device)] == ["cuda_half_graph", "cuda_half"]


def test_the_cache_is_where_the_user_keeps_such_things(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "vidseg" / "openvino"


class Doubling:
    """A backend that gives twice what the network does."""

    name, needs_ranges, fixed_shapes = "doubling", False, False

    def available(self, device):
        return None if device.type == "cpu" else "it is for the CPU"

    def executes(self, network):
        return True

    def is_worth_trying(self):
        return True

    def compile(self, network, inputs, ranges, num_threads):
        def doubled(*inputs):
            return 2 * network(*inputs)

        doubled.runtime = f"doubling on {num_threads}"
        return doubled


def test_a_backend_is_added_by_one_entry_and_chosen_by_its_name(monkeypatch):
    monkeypatch.setattr(torch_eager, "Doubling", Doubling, raising=False)
    monkeypatch.setitem(backends.BACKENDS, "doubling", ("torch_eager", "Doubling"))
    net = executor("doubling", nn.Identity())
    assert net.runtime == "doubling on 2"
    assert net(torch.ones(1, 1, 2, 2)).sum() == 8
    with pytest.raises(ConfigError, match="expected auto or eager or .*, got 'doubling': it is for the CPU"):
        Runtime("doubling", torch.device("cuda"), 1)
    with pytest.raises(ConfigError, match="runtime: expected one of .*doubling, got 'tripling'"):
        executor("tripling")


def test_names_of_runtimes_need_no_pytorch():
    code = "import sys; from vidseg_core.backends import RUNTIMES; print(*RUNTIMES, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["auto", "eager", "openvino", "openvino_int8", "onnxruntime", *ON_CUDA, "False"]


def test_code_outside_networks_is_part_of_the_key(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    source = "from torch import nn\n\nclass Outside(nn.Module):\n    def forward(self, x):\n        return x * {}\n"
    digests = []
    for factor in (2, 3):
        (tmp_path / "outside.py").write_text(source.format(factor))
        monkeypatch.delitem(sys.modules, "outside", raising=False)
        kinds = frozenset({importlib.import_module("outside").Outside})
        digests.append(blob_cache._source_digest(kinds))
    assert digests[0] != digests[1]
    assert blob_cache._source_digest(kinds) == digests[1]


def test_eager_is_not_tried_where_it_would_end_the_process(monkeypatch):
    monkeypatch.setattr(torch_eager, "eager_runs", lambda: False)
    network = torch.nn.Conv2d(3, 4, 1).eval()
    ours = Runtime("auto", torch.device("cpu"), 1).executor(network, "network")
    x = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        assert torch.allclose(ours(x), network(x), atol=0.05)
    assert ours.runtime.startswith("openvino ")


class Mode(nn.Module):
    def forward(self, x):
        return x + torch.is_inference_mode_enabled()


def test_networks_are_called_in_inference_mode_on_the_budgets_threads(monkeypatch):
    told = []
    monkeypatch.setattr(choose, "tell_torch", lambda: told.append(1))
    assert executor("eager", Mode())(torch.zeros(1, 1, 1, 1)).item() == 1 and told == [1]


def test_a_network_that_is_not_in_memory_is_loaded_by_whoever_needs_it():
    away = Reloadable("1", Mode)
    assert Runtime("eager", CPU, 1).executor(away, "net")(torch.zeros(1, 1, 1, 1)).item() == 1
    assert [one.name for one in Runtime("openvino", CPU, 1).backends_for(away, "net")] == ["openvino"]
    with pytest.raises(ConfigError, match="onnxruntime cannot execute the net, which is in no ONNX file"):
        Runtime("onnxruntime", CPU, 1).backends_for(away, "net")
