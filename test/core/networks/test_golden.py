"""The golden vectors, computed by an independent implementation, through the public names."""

import cv2
import numpy as np
import pytest
import torch

from vidseg_core.arrays import as_tensor
from vidseg_core.engine.geometry import View
from vidseg_core.kernels.decode import decode
from vidseg_core.kernels.resample import resize
from vidseg_core.kernels.warp import warp
from vidseg_core.models.architectures import FLOW, SEGMENTER
from vidseg_core.models.checkpoint import load_swnet_seq
from vidseg_core.models.open import open_model
from vidseg_core.networks.flow_light import FLOW_UNIT
from vidseg_core.networks.flownet_s import FlowNet2S, UpstreamFlowNetS
from vidseg_core.networks.swiftnet import SwiftNet

TOLERANCE = 2e-3
CPU = torch.device("cpu")


def assert_close(ours, expected):
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() <= TOLERANCE * np.abs(expected).max()


def read_frame(shared_data, city, number):
    folder = shared_data / "cityscapes_sequence" / "leftImg8bit_sequence" / "val" / city.split("_")[0]
    image = cv2.imread(str(folder / f"{city}_{number:06d}_leftImg8bit.png"))
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def seeded_file(net, path):
    """Reproducible weights, as NETWORKS describes them, in a file of the public layout."""
    state = net.state_dict()
    for number, key in enumerate(sorted(state)):
        value = state[key]
        u = np.random.RandomState(number).uniform(-1, 1, value.numel()).reshape(value.shape)
        if key.endswith("num_batches_tracked"):
            u = np.zeros(value.shape)
        elif key.endswith(("img_mean", "img_std")):
            continue
        elif key.endswith("running_var"):
            u = 1 + 0.2 * u
        elif key.endswith("running_mean"):
            u = 0.1 * u
        elif value.ndim == 4:
            u = u * np.sqrt(3 / value[0].numel())
        elif key.endswith("weight"):
            u = 1 + 0.1 * u
        else:
            u = 0.1 * u
        value.copy_(torch.from_numpy(u))
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def seeded(golden):
    return np.load(golden / "seeded_nets_munster_000036.npz")


@pytest.fixture(scope="module")
def crops(shared_data, seeded):
    y, x = seeded["crop_yx"]
    return [read_frame(shared_data, "munster_000036", n)[y : y + 256, x : x + 512] for n in (17, 18)]


@torch.inference_mode()
def test_swiftnet(seeded, crops, tmp_path):
    net = open_model(seeded_file(SwiftNet(19), tmp_path / "net.pt")).networks[SEGMENTER]
    rgb = as_tensor(View(crops[0], (256, 512), CPU).grid_bgr).flip(1)
    assert_close(net(rgb), seeded["swiftnet_logits"])


@torch.inference_mode()
def test_public_flownet_s(seeded, crops, tmp_path):
    net = open_model(seeded_file(UpstreamFlowNetS(), tmp_path / "net.pt")).networks[FLOW]
    assert isinstance(net, UpstreamFlowNetS)
    a, b = (as_tensor(View(image, (256, 512), CPU).grid_bgr) for image in crops)
    assert_close(net(current=b, previous=a), seeded["gsv_flownets_flow"])


@torch.inference_mode()
def test_flownet2_s(seeded, crops, tmp_path):
    net = FlowNet2S()
    assert [f"{key} {tuple(value.shape)}" for key, value in net.state_dict().items()] == list(seeded["flownet2s_keys"])
    path = seeded_file(net, tmp_path / "plain.pt")
    wrapped = tmp_path / "wrapped.pth.tar"
    torch.save({"epoch": 1, "state_dict": torch.load(path, weights_only=True), "best_EPE": 1.0}, wrapped)
    a, b = (as_tensor(View(image, (256, 512), CPU).grid_rgb) for image in crops)
    for file in (path, wrapped):
        net = open_model(file).networks[FLOW]
        assert isinstance(net, FlowNet2S)
        assert_close(net(current=a, previous=b)[..., ::4, ::4], seeded["flownet2s_flow"])


@torch.inference_mode()
@pytest.mark.parametrize("align_corners", [True, False])
def test_swnet_seq(golden, shared_data, upstream_weights, align_corners):
    vectors = np.load(golden / "swnet_seq_lindau_000009.npz")
    flow_net, refine = load_swnet_seq(upstream_weights / "cityscapes-swnet_model_best.pth.tar")
    grid = (128, 256)
    frames = {n: read_frame(shared_data, "lindau_000009", n) for n in (17, 18, 19)}
    images = {n: as_tensor(View(frame, grid, CPU).grid_bgr) for n, frame in frames.items()}
    logits = torch.from_numpy(vectors["key_logits"].astype(np.float32))
    for step, (current, previous) in enumerate(((18, 19), (17, 18)), start=1):
        name = f"step{step}_ac{int(align_corners)}"
        raw = flow_net(images[current], images[previous])
        assert_close(raw, vectors[f"step{step}_flow_raw"])
        warped = warp(logits, resize(raw, grid) / FLOW_UNIT, align_corners)
        assert_close(warped, vectors[f"{name}_warped"])
        refined = refine(warped, images[current])
        assert_close(refined.logits, vectors[f"{name}_refined"])
        if step == 1:
            np.testing.assert_array_equal(refined.edge.numpy(), vectors[f"{name}_edge"])
            assert_close(refined.guide, vectors[f"{name}_guide"])
        labels = decode(refined.logits, (1024, 2048))
        assert (labels == vectors[f"{name}_labels"]).mean() >= 0.999
        logits = refined.logits
