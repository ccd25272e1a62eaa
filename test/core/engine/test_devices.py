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
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from vidseg_core.arrays import as_tensor
from vidseg_core.classes import VOID, load_classes
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.flow import DIS, NetworkFlow, NoFlow
from vidseg_core.engine.key_frames.background import Background
from vidseg_core.engine.key_frames.cuda_queues import CudaQueues
from vidseg_core.engine.key_frames.jobs import Delayed
from vidseg_core.engine.protocol import capabilities
from vidseg_core.engine.refine import Refinement
from vidseg_core.engine.segmenter import NetworkSegmenter, TruthSegmenter
from vidseg_core.engine.stream import Networks, Stream
from vidseg_core.frame import Frame
from vidseg_core.kernels.decode import decode
from vidseg_core.kernels.flow import DENSE_FLOW
from vidseg_core.models.card import InputCard
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
    crosses = to is not None and bool(tensors) and isinstance(tensors[0], There) != there
    if crosses and tensors[0].numel() > 99:
        CROSSINGS.append(("in" if there else "out", tensors[0].dtype, tuple(tensors[0].shape)))
    kwargs = kwargs if to is None else {**kwargs, "device": "cpu"}
    args, kwargs = tree_map_only(There, lambda x: x.values, (args, kwargs))
    result = operation(*args, **kwargs)
    result = result.clone() if crosses else result  # what is here is not what is there
    if TAPES:
        assert there or not any(isinstance(x, There) for x in tensors), f"{operation}: the host waits for the device"
        if there:
            TAPES[-1].append((operation, args, kwargs, result))
    return tree_map_only(torch.Tensor, There, result) if there else result


TAPES = []
"""What the device was asked for, while it is recorded: operation, arguments and result."""


class Tapes:
    """Records as CUDA graphs do: a replay does the same operations with the same numbers on the same memory again.

    No line of Python runs then, so that what the engine baked in by mistake stays as it was.
    """

    def __init__(self):
        self.recorded = self.replayed = 0
        self.reasons = []

    def record(self, work):
        work()  # to warm up
        TAPES.append([])
        CROSSINGS.clear()
        made = work()
        assert not [crossing for crossing in CROSSINGS if crossing[1] in (torch.uint8, torch.bool)]
        tape = TAPES.pop()
        self.recorded += 1

        def replay():
            self.replayed += 1
            for operation, args, kwargs, result in tape:
                for old, new in zip(tree_leaves(result), tree_leaves(operation(*args, **kwargs)), strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)

        return replay, made

    def refuse(self, reason):
        self.reasons.append(reason)


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


# Every pair of choices is in the first five; the others take as long for little more.
PAIRS = {
    ("dis", False, False, False), ("dis", True, True, True), ("light", False, True, True), ("light", True, False, True),
    ("light", True, True, False),
}  # fmt: skip
CHOICES = [
    pytest.param(*choice, marks=[] if choice in PAIRS else [pytest.mark.long])
    for choice in product(("dis", "light"), (False, True), (False, True), (False, True))
]


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


def test_frames_of_several_cameras_are_segmented_in_one_call(device, engine, frames):
    of = engine.networks.segmenter
    segmenter = NetworkSegmenter(deepcopy(of.network).to(device), 0.5, device, takes_batches=True)
    alone = [segmenter(frame) for frame in frames[:3]]
    calls, network = [], segmenter.execute
    segmenter.execute = lambda image: calls.append(tuple(image.shape)) or network(image)
    together = capabilities(segmenter).together(frames[:3])
    assert len(calls) == 1 and calls[0][0] == 3
    for one, other in zip(alone, together, strict=True):
        assert one.shape == other.shape and (one.argmax(1) == other.argmax(1)).float().mean().item() > 0.999
    assert capabilities(NetworkSegmenter(of.network, 0.5, torch.device("cpu"))).together is None


@pytest.mark.parametrize("card", [{"fit": "letterbox", "resize": "bilinear"}, {"resize": "torch_bicubic"}])
def test_the_network_s_input_is_made_on_the_device(device, engine, frames, card):
    """By the rules of others, too: the image crosses in bytes, and no other one."""
    network, card = engine.networks.segmenter.network, InputCard(multiple=64, **card)
    expected = NetworkSegmenter(network, 0.4, torch.device("cpu"), input=card)(frames[0])
    there = NetworkSegmenter(deepcopy(network).to(device), 0.4, device, input=card)
    CROSSINGS.clear()
    found = there(frames[0])
    whole = [crossing for crossing in CROSSINGS if crossing[1] == torch.uint8 or crossing[2][:2] == (1, 3)]
    assert device.type == "cuda" or whole == [("in", torch.uint8, (*SIZE, 3))]
    assert found.shape == expected.shape
    assert (found.cpu().argmax(1) == expected.argmax(1)).float().mean().item() > 0.99


def test_labels_of_rounded_scores_are_not_rounded_again(device):
    scores = torch.randn(1, 11, 20, 28, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert (decode(scores.to(device), SIZE) == decode(scores, SIZE)).mean() > 0.9999


@pytest.fixture
def computes_flow(monkeypatch):
    """Quickly, and wrongly: each pixel's change decides where it comes from."""

    def flow(current, previous, size, order):
        apart = [now - past for now, past in zip(current, previous, strict=True)][:2]
        return torch.cat([F.interpolate(x[None, None] / 50, size) for x in (apart[0], apart[-1])], 1)

    monkeypatch.setitem(DENSE_FLOW.implementations, "meta", flow)


@pytest.fixture(scope="module")
def small_frames(frames):
    """Coarser, to and fro."""
    parts = [(frame.image[::3, ::3][:72, :96], frame.labels[::3, ::3][:72, :96]) for frame in frames]
    order = [*range(NUM_FRAMES), *range(NUM_FRAMES - 2, 0, -1)] * 3
    return [Frame(parts[which][0], stamp_ns=i * 33_333_333, labels=parts[which][1]) for i, which in enumerate(order)]


SMALL = EngineConfig(interval=2, warp_padding="border", device="cpu")


class Noisy(TruthSegmenter):
    """Tells the truth, and no two classes alike."""

    def __call__(self, frame):
        scores = super().__call__(frame)
        return as_tensor(scores) + torch.rand(scores.shape, generator=torch.Generator().manual_seed(0))


def there_with(**parts):
    """Networks on the stand-in: key frames tell about the truth, flow is searched in rounds."""
    return replace(
        Networks(Noisy(len(load_classes("camvid"))), DIS("rounds", 0.5), None, torch.device("meta")), **parts
    )


def replayed_and_asked(config, drive, key_frames=lambda: None):
    """What `drive` makes of a stream whose propagated frames are recorded, and of one that is asked stage by stage."""
    tapes, results = Tapes(), []
    for recorder in (tapes, None):
        with Elsewhere():
            own = np.zeros((72, 96), dtype=bool)
            own[-8:] = True
            results.append(drive(Stream(config, there_with(recorder=recorder), own, key_frames())))
    for ours, other in zip(*results, strict=True):
        np.testing.assert_array_equal(ours.labels, other.labels)
        assert (ours.overlay is None) == (other.overlay is None)
        if ours.overlay is not None:
            np.testing.assert_array_equal(ours.overlay, other.overlay)
        if ours.confidence is not None:
            np.testing.assert_allclose(ours.confidence, other.confidence, atol=1e-6)
        assert (ours.is_key, ours.age, ours.reason, ours.evidence_ns) == (
            other.is_key, other.age, other.reason, other.evidence_ns,
        )  # fmt: skip
    assert len(np.unique(results[0][-1].labels)) > 3
    return tapes, results[0]


@pytest.mark.usefixtures("computes_flow")
@pytest.mark.parametrize("fusion", [False, True])
def test_propagated_frames_are_replayed(small_frames, fusion):
    """With an overlay or without, with confidence or without: none of that is baked in."""
    colours = [Colours(np.random.default_rng(i).integers(0, 256, (256, 3), dtype=np.uint8), 0.7) for i in range(2)]
    crossed = []

    def drive(stream):
        results = []
        for number, frame in enumerate(small_frames[:11]):
            stream.set_overlay(colours[number > 7] if number in (4, 5, 7, 8) else None)
            stream.set_confidence(number == 10)
            CROSSINGS.clear()
            results.append(stream.step(frame))
            crossed.append(list(CROSSINGS))
        return results

    config = replace(SMALL, fusion=fusion)
    tapes, results = replayed_and_asked(config, drive)
    assert [result.is_key for result in results] == [i % 3 == 0 for i in range(11)]
    assert tapes.recorded == 3 and tapes.replayed == 7 and not tapes.reasons  # plain, and each overlay
    assert "replay" in results[1].timings and "replay" not in results[3].timings
    assert crossed[2] == [("in", torch.uint8, (72, 96, 3)), ("out", torch.uint8, (72, 96))]


@pytest.mark.usefixtures("computes_flow")
def test_recorded_frames_take_evidence_that_comes_later(small_frames):
    """And those of two sizes take turns, and a stream that has forgotten its past goes on."""
    config = replace(SMALL, interval=3)

    def drive(stream):
        results = []
        for number, frame in enumerate(small_frames[:13]):
            if number == 10:
                stream.set_grid_stride(4)
            if number == 12:
                stream.reset()
            results.append(stream.step(frame))
        return results

    tapes, results = replayed_and_asked(config, drive, lambda: Delayed(2))
    assert [number for number, result in enumerate(results) if result.is_key] == [0, 6, 10, 12]
    assert tapes.recorded == 3 and not tapes.reasons  # with a key frame under way, without, and on another grid


@pytest.mark.usefixtures("computes_flow")
def test_an_adaptive_schedule_looks_at_recorded_frames(small_frames):
    config = replace(SMALL, schedule="adaptive", change_threshold=0.1, min_interval=1)
    tapes, results = replayed_and_asked(config, lambda stream: [stream.step(frame) for frame in small_frames[:8]])
    assert "picture changed" in {result.reason for result in results} and tapes.replayed >= 3
    assert "change" in results[1].timings


@pytest.mark.usefixtures("computes_flow")
def test_what_cannot_be_recorded_is_asked_for_stage_by_stage(small_frames):
    for other, reason in (
        ({"flow": DIS("fast", 0.5)}, "OpenCV computes flow of the preset fast on the CPU"),
        ({"flow": NoFlow()}, "nothing moves, and there is next to nothing to record"),
        ({"updater": TruthSegmenter(11)}, "networks refine or update propagated frames"),
    ):
        tapes = Tapes()
        with Elsewhere():
            stream = Stream(SMALL, there_with(recorder=tapes, **other))
            assert [stream.step(frame).age for frame in small_frames[:3]] == [0, 1, 2]
        assert set(tapes.reasons) == {reason} and not tapes.recorded

    class Refuses(Tapes):
        def record(self, work):
            work()
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    tapes, found = Refuses(), []
    for recorder in (tapes, None):
        with Elsewhere():
            stream = Stream(SMALL, there_with(recorder=recorder))
            found.append([stream.step(frame) for frame in small_frames[:3]])
    assert agreement(*found) == 1 and tapes.reasons == ["operation not permitted when stream is capturing"]


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
    stream, reference = built.stream(), engine.stream()
    results, expected = ([each.step(frame) for frame in frames] for each in (stream, reference))
    assert agreement(results, expected) >= AGREEMENT["cuda"]
    assert set(built.runtimes().values()) <= {"eager", "cuda half graph"}  # by trial, on the first frames
    settled = 0
    for i in range(NUM_FRAMES, 50 * NUM_FRAMES):
        stream.step(replace(frames[i % NUM_FRAMES], stamp_ns=i * 33_333_333))
        if i == 10 * NUM_FRAMES - 1:  # as long after a key frame as the last one
            settled = torch.cuda.memory_allocated()
    assert torch.cuda.memory_allocated() - settled < 1_000_000
