"""An engine that is not on the CPU gives the labels of one that is.

Where there is no GPU, `Elsewhere` stands in for one: no kernel of the CPU takes its tensors, so the engine goes the way
that it goes on a GPU. Tests that need a real one are marked `gpu`.
"""

from concurrent.futures import wait
from copy import deepcopy
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from vidseg_core.classes import VOID
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.flow import DIS, NetworkFlow
from vidseg_core.engine.key_frames.background import Background
from vidseg_core.engine.key_frames.jobs import Delayed
from vidseg_core.engine.key_frames.queues import CudaQueues
from vidseg_core.engine.refine import Refinement
from vidseg_core.engine.segmenter import NetworkSegmenter, TruthSegmenter
from vidseg_core.engine.stream import Networks, Stream
from vidseg_core.kernels.decode import decode
from vidseg_core.kernels.flow import DENSE_FLOW
from vidseg_core.networks.flow_light import FlowLight
from vidseg_core.overlay import Colours, overlay
from vidseg_core.street import Street, StreetConfig

SIZE = (240, 320)
NUM_FRAMES = 4
INTERVAL = 2
CONFIG = EngineConfig(
    refine_weights="camvid-swnet-seq", refine=True, update_weights="camvid-swiftnet-r18", update_scale=0.5,
    input_scale=0.75, interval=INTERVAL, confidence=True, device="cpu", runtime="eager",
)  # fmt: skip
GPU = torch.device("cuda")
# Of pixels. A GPU may also round what convolutions multiply to TensorFloat-32; so rounded on the CPU, 0.9999 agree.
AGREEMENT = {"meta": 0.999, "cuda": 0.995}


class There(torch.Tensor):
    """A tensor on another device; `values` has its values."""

    @staticmethod
    def __new__(cls, values):
        self = torch.Tensor._make_wrapper_subclass(
            cls, values.size(), values.stride(), values.storage_offset(), dtype=values.dtype, device="meta"
        )
        self.values = values
        return self

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _elsewhere(operation, args, kwargs or {})


class Elsewhere(TorchDispatchMode):
    """Inside, the device "meta" computes, as a device does that the CPU cannot reach into."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return _elsewhere(operation, args, kwargs or {})


CROSSINGS = []
"""Of whole arrays between the CPU and the device: direction, type and shape."""


def _elsewhere(operation, args, kwargs):
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    to = kwargs.get("device")
    there = any(isinstance(x, There) for x in tensors) if to is None else torch.device(to).type == "meta"
    if to is None and there:  # a number may come from the CPU
        here = [x.shape for x in tensors if x.ndim and not isinstance(x, There)]
        assert not here, f"{operation} has tensors there and others on the CPU, of {here}"
    if to is not None and tensors and isinstance(tensors[0], There) != there and tensors[0].numel() > 99:
        CROSSINGS.append(("in" if there else "out", tensors[0].dtype, tuple(tensors[0].shape)))
    kwargs = kwargs if to is None else {**kwargs, "device": "cpu"}
    args, kwargs = tree_map_only(There, lambda x: x.values, (args, kwargs))
    result = operation(*args, **kwargs)
    return tree_map_only(torch.Tensor, There, result) if there else result


@pytest.fixture(params=["meta", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    if request.param == "cuda":
        yield GPU
        return
    with Elsewhere():
        yield torch.device("meta")


@pytest.fixture(scope="module")
def engine():
    """On the CPU."""
    return build_engine(CONFIG)


@pytest.fixture(scope="module")
def light():
    """A flow network that finds some pixels of motion, if not the right ones."""
    torch.manual_seed(0)
    network = FlowLight().eval().requires_grad_(False)
    network.toflow.weight *= 100
    return network


@pytest.fixture(scope="module")
def frames():
    street = Street(StreetConfig(seed=0, width=SIZE[1], height=SIZE[0], num_frames=NUM_FRAMES))
    return [street.render(i) for i in range(NUM_FRAMES)]


def networks_on(device, engine, light, flow="dis", refine=True, update=True):
    """The engine's networks, on `device`."""

    def segmenter(of):
        return NetworkSegmenter(deepcopy(of.network).to(device), of.input_scale, device)

    ours = engine.networks
    return Networks(
        segmenter(ours.segmenter), DIS("fine") if flow == "dis" else NetworkFlow(deepcopy(light).to(device)),
        Refinement(deepcopy(ours.refine.network).to(device)) if refine else None, device,
        ours.feedback, segmenter(ours.updater) if update else None,
    )  # fmt: skip


def agreement(results, expected):
    return np.mean([a.labels == b.labels for a, b in zip(results, expected, strict=True)])


CHOICES = list(product(("dis", "light"), (False, True), (False, True), (False, True)))


@pytest.mark.parametrize(("flow", "refine", "fusion", "update"), CHOICES)
def test_labels_are_those_of_the_cpu(device, engine, light, frames, flow, refine, fusion, update):
    config = replace(engine.config, fusion=fusion)
    ego_mask = np.zeros(SIZE, dtype=bool)
    ego_mask[-20:] = True
    results, expected = (
        [stream.step(frame) for frame in frames]
        for place in (device, torch.device("cpu"))
        for stream in [Stream(config, networks_on(place, engine, light, flow, refine, update), ego_mask)]
    )
    assert agreement(results, expected) >= AGREEMENT[device.type]
    assert [result.is_key for result in results] == [i % (INTERVAL + 1) == 0 for i in range(NUM_FRAMES)]
    for result, other in zip(results, expected, strict=True):
        assert (result.labels[ego_mask] == VOID).all() and set(result.timings) == set(other.timings)
        assert np.abs(result.confidence - other.confidence).mean() < 0.001
    assert len(np.unique(results[-1].labels)) > 3 and (results[0].labels != results[-1].labels).mean() > 0.01


def test_key_frames_that_come_later(device, engine, light, frames):
    results, expected = (
        [stream.step(frame) for frame in frames]
        for place in (device, torch.device("cpu"))
        for stream in [Stream(engine.config, networks_on(place, engine, light), key_frames=Delayed(2))]
    )
    assert agreement(results, expected) >= AGREEMENT[device.type]


def test_the_image_crosses_once_and_labels_come_back(engine, light, frames, monkeypatch):
    """On a device that computes flow: "fine" in rounds, on levels that never were on the CPU."""
    monkeypatch.setitem(DENSE_FLOW.implementations, "meta", DENSE_FLOW.reference)
    config = replace(engine.config, confidence=False, fusion=True)
    results, states = {}, {}
    for name, place, preset in (("there", torch.device("meta"), "fine"), ("here", torch.device("cpu"), "rounds")):
        with Elsewhere():
            networks = networks_on(place, engine, light, refine=False, update=False)
            stream = Stream(config, replace(networks, flow=DIS(preset, 0.1)))
            results[name] = []
            for frame in frames[:2]:
                CROSSINGS.clear()
                results[name].append(stream.step(frame))
                if name == "there":  # tables of the references are of other types
                    whole = [crossing for crossing in CROSSINGS if crossing[1] in (torch.uint8, torch.float32)]
                    assert whole == [("in", torch.uint8, (*SIZE, 3)), ("out", torch.uint8, SIZE)]
        states[name] = stream._state.flow_input[0]
    assert {level.device.type for level in states["there"]} == {"meta"} and len(states["there"]) == len(states["here"])
    assert agreement(results["there"], results["here"]) >= AGREEMENT["meta"]


def test_an_adaptive_schedule(device, engine, light, frames):
    config = replace(engine.config, schedule="adaptive", change_threshold=0.15, min_interval=0)
    results, expected = (
        [stream.step(frame) for frame in frames]
        for place in (device, torch.device("cpu"))
        for stream in [Stream(config, networks_on(place, engine, light))]
    )
    assert agreement(results, expected) >= AGREEMENT[device.type]
    assert [result.is_key for result in results] == [result.is_key for result in expected]


def test_the_truth_in_a_network_s_place(device, engine, light, frames):
    truth = TruthSegmenter(len(engine.classes))
    stream = Stream(engine.config, replace(networks_on(device, engine, light), segmenter=truth))
    results = [stream.step(frame) for frame in frames]
    assert (results[0].labels == frames[0].labels).mean() >= 0.99 and results[3].is_key


def test_cameras_share_networks(device, engine, light, frames):
    networks = networks_on(device, engine, light)
    alone, first, second = (Stream(engine.config, networks) for _ in range(3))
    expected = [alone.step(frame) for frame in frames]
    together = [(first.step(frame), second.step(replace(frame, image=255 - frame.image))) for frame in frames]
    assert agreement([ours for ours, _ in together], expected) >= AGREEMENT[device.type]


def test_the_overlay_is_drawn_on_the_device(device, engine, light, frames):
    """By the engine, only while it is asked for; on the CPU that is left to whoever shows it."""
    colours = Colours(np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8), 0.7)
    ego_mask = np.zeros(SIZE, dtype=bool)
    ego_mask[-20:] = True
    stream = Stream(engine.config, networks_on(device, engine, light, refine=False, update=False), ego_mask)
    stream.set_overlay(colours)
    for frame in frames[:2]:
        result = stream.step(frame)
        np.testing.assert_array_equal(result.overlay, overlay(frame.image, result.labels, colours.lut, 0.7))
        assert (result.overlay[ego_mask] == frame.image[ego_mask]).all()
    stream.set_overlay(None)
    assert stream.step(frames[2]).overlay is None
    on_cpu = Stream(engine.config, networks_on(torch.device("cpu"), engine, light))
    on_cpu.set_overlay(colours)
    assert on_cpu.step(frames[0]).overlay is None


def test_labels_of_rounded_scores_are_not_rounded_again(device):
    scores = torch.randn(1, 11, 20, 28, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert (decode(scores.to(device), SIZE) == decode(scores, SIZE)).mean() > 0.9999


@pytest.mark.gpu
def test_asynchronous_key_frames_on_a_gpu(engine, light, frames):
    """Each is let finish before the next frame, so that its labels come one frame later."""
    cpu, results = torch.device("cpu"), []
    networks = networks_on(GPU, engine, light)
    with Background(queues=CudaQueues(GPU)) as background:
        stream = Stream(engine.config, networks, key_frames=background)
        for frame in frames:
            results.append(stream.step(frame))
            if stream._state.waiting is not None:
                assert wait([stream._state.waiting.job._result], 60).done
    delayed = Stream(engine.config, networks_on(cpu, engine, light), key_frames=Delayed(1))
    assert agreement(results, [delayed.step(frame) for frame in frames]) >= AGREEMENT["cuda"]


@pytest.mark.gpu
def test_an_engine_that_is_built_on_a_gpu(engine, frames):
    built = build_engine(replace(CONFIG, device=str(GPU), runtime="auto"))
    assert set(built.runtimes().values()) == {"eager"}
    stream, reference = built.stream(), engine.stream()
    results, expected = ([each.step(frame) for frame in frames] for each in (stream, reference))
    assert agreement(results, expected) >= AGREEMENT["cuda"]
    settled = 0
    for i in range(NUM_FRAMES, 50 * NUM_FRAMES):
        stream.step(replace(frames[i % NUM_FRAMES], stamp_ns=i * 33_333_333))
        if i == 10 * NUM_FRAMES - 1:  # as long after a key frame as the last one
            settled = torch.cuda.memory_allocated()
    assert torch.cuda.memory_allocated() - settled < 1_000_000
