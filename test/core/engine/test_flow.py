import cv2
import numpy as np
import pytest
import torch

from vidseg_core.engine.flow import DIS, NetworkFlow, NoFlow
from vidseg_core.engine.geometry import View, grid_size
from vidseg_core.models.checkpoint import load_swnet_seq
from vidseg_core.networks.flownet_s import FlowNet2S

SHIFT = (-12, 8)  # where the picture's content was before, in image pixels


@pytest.fixture(scope="module")
def pair():
    """A textured picture, and the same cut out elsewhere, so that everything moved by SHIFT."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    large = cv2.resize(noise, (800, 600), interpolation=cv2.INTER_CUBIC)
    u, v = SHIFT
    current = large[100:460, 100:580]
    previous = large[100 - v : 460 - v, 100 - u : 580 - u]
    return current, previous


def views(pair, stride):
    return [
        View(np.ascontiguousarray(image), grid_size(image.shape[:2], stride), torch.device("cpu")) for image in pair
    ]


@pytest.mark.parametrize("stride", [4, 8])
@pytest.mark.parametrize(
    ("preset", "scale"), [("ultrafast", None), ("medium", 0.5), ("fast", 0.25), ("fine", None), ("fine", 0.5)]
)
def test_dis_finds_a_shift_in_grid_pixels(pair, stride, preset, scale):
    estimator = DIS(preset, scale)
    current, previous = (estimator.prepare(view) for view in views(pair, stride))
    flow = estimator.flow(current, previous)
    assert flow.shape == (1, 2, *grid_size((360, 480), stride)) and flow.dtype == np.float32
    inner = np.median(flow[0, :, 8:-8, 8:-8].reshape(2, -1), 1)
    assert inner.tolist() == pytest.approx([SHIFT[0] / stride, SHIFT[1] / stride], abs=0.15)


def test_public_flow_light_finds_the_direction(upstream_weights, pair):
    estimator = NetworkFlow(load_swnet_seq(upstream_weights / "cityscapes-swnet_model_best.pth.tar")[0])
    current, previous = (estimator.prepare(view) for view in views(pair, 8))
    with torch.inference_mode():
        flow = estimator.flow(current, previous)
    assert flow.shape == (1, 2, 45, 60)
    u, v = flow[0, :, 8:-8, 8:-8].reshape(2, -1).median(1).values.tolist()
    assert u == pytest.approx(SHIFT[0] / 8, abs=0.5) and v == pytest.approx(SHIFT[1] / 8, abs=0.5)


def test_each_network_gets_its_own_kind_of_image(pair):
    view = views(pair, 8)[0]
    assert np.shares_memory(NetworkFlow(FlowNet2S()).prepare(view).numpy(), view.grid_rgb)


def test_no_flow_is_none():
    assert NoFlow().flow(None, None) is None


@pytest.mark.parametrize("size", [(64, 64), (67, 131)])
@pytest.mark.parametrize("preset", ["ultrafast", "fine"])
def test_smallest_images(size, preset):
    estimator = DIS(preset, 0.05)
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    view = View(image, grid_size(size, 8), torch.device("cpu"))
    flow = estimator.flow(estimator.prepare(view), estimator.prepare(view))
    assert flow.shape == (1, 2, *grid_size(size, 8)) and np.isfinite(flow).all()


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        (
            "fast",
            "by OpenCV on the CPU and copied to meta with every frame; fine and rounds are computed on the device",
        ),
        ("fine", "on the CPU, as meta has no kernels for it"),
    ],
)
def test_it_says_where_flow_is_computed(preset, expected):
    assert DIS(preset).place(torch.device("meta")) == expected
