import platform

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vidseg_core.arrays import as_tensor
from vidseg_core.backends import compiled_network, openvino
from vidseg_core.backends.choose import Runtime
from vidseg_core.backends.integers import measured
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.geometry import network_size
from vidseg_core.engine.segmenter import ready
from vidseg_core.errors import CheckpointError, ConfigError
from vidseg_core.frame import Frame
from vidseg_core.kernels.resample import network_input
from vidseg_core.models import checkpoint
from vidseg_core.models.open import open_model
from vidseg_core.models.registry import find_weights
from vidseg_core.networks.efficientnet_lite import SameConv2d
from vidseg_core.networks.swiftnet import SwiftNet

CPU = torch.device("cpu")
SILENT = "camvid-swiftnet-r18"  # its file tells no ranges, the registry does


class Two(nn.Module):
    """Convolutions of one tensor and of another that may be below 0, the first with a ReLU before it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.left, self.right = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 3, padding=1)
        self.norm.running_mean.uniform_(-1, 1)
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        return self.left(x) + self.right(x)


@pytest.fixture
def network():
    return Two().eval().requires_grad_(False)


@pytest.fixture
def pictures():
    return torch.randn(3, 1, 3, 20, 24, generator=torch.Generator().manual_seed(1))


def measure(network, pictures):
    with torch.inference_mode(), measured(network) as ranges:
        for x in pictures:
            network(x)
    return ranges


def executor(network, ranges, choice="openvino_int8"):
    return Runtime(choice, CPU, 1).executor(network, "net", ranges)


def rounded(x, low, high, levels):
    step = (high - low) / (levels - 1)
    return ((x.clamp(low, high) - low) / step).round() * step + low


def by_hand(network, x, ranges):
    """What integers of 8 bits make of it, in floating point."""

    def convolve(name, x, padding):
        layer = getattr(network, name)
        low, high = ranges[name]
        if low < 0:
            high = max(-low, high)
            low = -high * 128 / 127
        weights = torch.stack([rounded(w, -w.abs().max(), w.abs().max(), 255) for w in layer.weight])
        return F.conv2d(rounded(x, low, high, 256), weights, layer.bias, padding=padding)

    x = torch.relu(network.norm(convolve("first", x, 1)))
    return convolve("left", x, 0) + convolve("right", x, 1)


def test_ranges_are_the_limits_of_what_convolutions_are_given(network, pictures):
    ranges = measure(network, pictures)
    hidden = torch.relu(network.norm(network.first(pictures[:, 0])))
    assert ranges == {
        "first": (pictures.min().item(), pictures.max().item()),
        "left": (0.0, pytest.approx(hidden.max().item(), rel=1e-6)),
        "right": (0.0, pytest.approx(hidden.max().item(), rel=1e-6)),
    }
    assert not any(module._forward_pre_hooks for module in network.modules())


@torch.inference_mode()
def test_integers_give_what_they_give_by_hand(network, pictures):
    ranges = measure(network, pictures)
    for x in pictures:
        exact, expected, got = network(x), by_hand(network, x, ranges), executor(network, ranges)(x)
        error, scale = (got - expected).abs().max(), exact.abs().max()
        assert error < 0.01 * scale  # what else there is, is computed in bfloat16
        assert 0 < (expected - exact).abs().max() < 0.05 * scale


@torch.inference_mode()
def test_what_is_larger_than_measured_is_the_largest_value(network, pictures):
    ranges = measure(network, pictures)
    small = {name: (low / 8, high / 8) for name, (low, high) in ranges.items()}
    x = pictures[0]
    expected, got = by_hand(network, x, small), executor(network, small)(x)
    assert (got - expected).abs().max() < 0.02 * network(x).abs().max()
    assert (got - network(x)).abs().mean() > 0.1 * network(x).abs().mean()


@torch.inference_mode()
def test_convolutions_without_a_range_stay_as_they_are(network, pictures):
    ranges = measure(network, pictures)
    x = pictures[0]
    floating, none = executor(network, None)(x), executor(network, {})(x)
    torch.testing.assert_close(none, floating, rtol=0, atol=0.01 * floating.abs().max().item())
    one = executor(network, {"left": (0.0, ranges["left"][1] / 100)})(x)
    assert (one - floating).abs().max() > 0.05


@torch.inference_mode()
def test_uniform_pictures_and_weights_of_zero(network):
    network.left.weight[0] = 0
    x = torch.zeros(1, 3, 20, 24)
    ranges = measure(network, [x])
    assert ranges["first"] == (0.0, 0.0)
    torch.testing.assert_close(executor(network, ranges)(x), network(x), rtol=0, atol=0.02)


class Depthwise(nn.Module):
    """A filter for each channel, of very different sizes, that samples every second pixel, padded behind only."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.filter = SameConv2d(6, 6, 3, 2, groups=6)
        with torch.no_grad():
            self.filter.weight *= torch.tensor([1e-3, 1e-2, 0.1, 1, 10, 100]).view(6, 1, 1, 1)

    def forward(self, x):
        return self.filter(x)


@torch.inference_mode()
def test_depthwise_convolutions_have_a_step_for_each_channel():
    network = Depthwise().eval()
    x = torch.randn(1, 6, 20, 24, generator=torch.Generator().manual_seed(1))
    ranges = measure(network, [x])
    assert ranges["filter"] == (x.min().item(), x.max().item())
    high = max(-ranges["filter"][0], ranges["filter"][1])
    weights = torch.stack([rounded(w, -w.abs().max(), w.abs().max(), 255) for w in network.filter.weight])
    padded = F.pad(rounded(x, -high * 128 / 127, high, 256), (0, 1, 0, 1))
    expected = F.conv2d(padded, weights, stride=2, groups=6)
    got, exact = executor(network, ranges)(x), network(x)
    assert got.shape == exact.shape == (1, 6, 10, 12)
    for channel in range(6):
        size = exact[:, channel].abs().max()
        assert (got - expected)[:, channel].abs().max() < 0.01 * size, channel
        assert 0 < (got - exact)[:, channel].abs().max() < 0.03 * size, channel


@torch.inference_mode()
def test_all_but_the_first_convolutions_of_lite0_can_be_integers():
    torch.manual_seed(0)
    network = SwiftNet(5, "lite0", 16).eval()
    x = torch.rand(1, 3, 64, 96) * 2 - 1
    ranges = measure(network, [x])
    names = {name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    first = ["_conv_stem", "_blocks.0._depthwise_conv", "_blocks.0._project_conv"]
    first += [f"_blocks.1.{one}_conv" for one in ("_expand", "_depthwise", "_project")]
    assert set(ranges) == names - {f"backbone.encoder.{one}" for one in first} and len(names) == 60
    integers, exact = executor(network, ranges)(x), network(x)
    assert torch.corrcoef(torch.stack([integers.flatten(), exact.flatten()]))[0, 1] > 0.95


def test_ranges_of_another_network(network, pictures):
    with pytest.raises(ValueError, match="of another network: it has no convolution 'stranger'"):
        executor(network, {"stranger": (0.0, 1.0)})(pictures[0])


def test_auto_uses_integers_where_the_processor_has_instructions_for_them(network, monkeypatch):
    ranges = {"left": (0.0, 1.0)}
    for can, given in ((True, ranges), (False, None)):
        monkeypatch.setattr(openvino, "integer_instructions", lambda can=can: can)
        assert executor(network, ranges, "auto")._ranges == given
        assert executor(network, ranges, "openvino")._ranges is None
        assert executor(network, ranges)._ranges == ranges


@pytest.mark.parametrize("name", ["camvid-swiftnet-lite0", "camvid-swiftnet-r18", "camvid-update-lite0"])
def test_shipped_networks_have_a_range_for_each_convolution(name):
    model = open_model(name)
    network, ranges = model.networks["segmenter"], model.card.activation_ranges
    convolutions = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    exact = {name for name, module in convolutions.items() if getattr(module, "keeps_precision", False)}
    assert set(ranges) == convolutions.keys() - exact and len(ranges) == (32 if name.endswith("r18") else 54)
    assert all(low <= 0 < high for low, high in ranges.values())


@torch.inference_mode()
@pytest.mark.parametrize("name", ["camvid-swiftnet-lite0", "camvid-swiftnet-r18"])
def test_labels_of_a_real_image_agree(shared_data, name):
    path = shared_data / "camvid" / "val" / "0016E5_07959.png"
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    model = open_model(name)
    network = ready(model.networks["segmenter"], CPU)
    seen = model.card.input
    size = network_size(image.shape[:2], seen.scale_for(image.shape[:2]))
    x = as_tensor(network_input(image, size, mean=seen.mean, std=seen.std))
    ours = executor(network, model.card.activation_ranges)
    labels, exact = ours(x).argmax(1), network(x).argmax(1)
    assert ours.runtime.startswith("openvino int8 ") or platform.machine() != "x86_64"
    assert (labels == exact).float().mean() > 0.995


@pytest.mark.parametrize(
    "ranges", [["backbone.conv1"], {"backbone.conv1": 1.0}, {"backbone.conv1": [1.0, 0.0]}, {"stranger": [0.0, 1.0]}]
)
def test_a_file_with_other_things_in_the_place_of_ranges(tmp_path, ranges):
    path = tmp_path / "odd.safetensors"
    source = find_weights(SILENT)
    checkpoint.convert(source, path, known={"activation_ranges": ranges})
    with pytest.raises(CheckpointError, match=f"{path}: activation_ranges: expected two numbers for names of its conv"):
        build_engine(EngineConfig(weights=str(path)))


def test_integers_need_weights_that_tell_their_ranges(tmp_path, monkeypatch):
    path = tmp_path / "silent.safetensors"
    checkpoint.convert(find_weights(SILENT), path)
    with pytest.raises(ConfigError, match=f"openvino_int8 needs weights that tell .* {path} does not: `vidseg weights"):
        build_engine(EngineConfig(weights=str(path), runtime="openvino_int8"))
    with build_engine(EngineConfig(weights=str(path), runtime="openvino", input_scale=0.5)) as engine:
        image = np.zeros((64, 96, 3), dtype=np.uint8)
        engine.stream().step(Frame(image, 0))
        assert "int8" not in engine.runtimes()["segmenter"]


def test_integers_are_named_by_what_the_execution_graph_runs(network, pictures, monkeypatch, caplog):
    ranges = measure(network, pictures)
    ours = executor(network, ranges)
    ours(pictures[0])
    runs = {"avx512_vnni", "avx_vnni", "amx_int8"} & set(open("/proc/cpuinfo").read().split())
    # An emulated ARM processor shows the file of the real one.
    assert ours.runtime.startswith("openvino int8 ") or not runs or platform.machine() != "x86_64"
    monkeypatch.setattr(openvino, "executes_integers", lambda model: False)  # as on ARM
    other = executor(network, ranges)
    other(pictures[0])
    assert other.runtime in ("openvino bf16", "openvino f16", "openvino f32")
    assert "computes no convolution in integers" in caplog.text


class CannotQuantize:
    """OpenVINO where it cannot compile what is rounded to integers, as in float16 with a small range."""

    def __init__(self, core):
        self._core = core

    def __getattr__(self, name):
        return getattr(self._core, name)

    def compile_model(self, model, *arguments):
        if any(one.get_type_name() == "FakeQuantize" for one in model.get_ops()):
            raise RuntimeError("257103 assigned value out of range for f16")
        return self._core.compile_model(model, *arguments)


@torch.inference_mode()
def test_where_integers_cannot_be_compiled_it_is_said_and_floating_point_taken(
    network, pictures, monkeypatch, caplog, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ranges = measure(network, pictures)
    core = openvino.openvino_core()
    monkeypatch.setattr(openvino, "openvino_core", lambda: CannotQuantize(core))
    got = executor(network, ranges)
    y = got(pictures[0])
    assert torch.equal(y, executor(network, ranges, "openvino")(pictures[0])) and "int8" not in got.runtime
    assert "cannot compile the network in integers here: 257103 assigned value" in caplog.text


def test_the_precision_is_openvino_s_own():
    assert compiled_network.floating_point(["BF16", "FP32", "FP16"]) == "bf16"
    assert compiled_network.floating_point(["FP32", "FP16", "INT8"]) == "f16"  # ARM from v8.2 on
    assert compiled_network.floating_point(["FP32", "INT8"]) == "f32"
