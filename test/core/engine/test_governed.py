"""An engine under a governor: which of its options move, and what is told."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.flow import DIS, NoFlow
from vidseg_core.engine.governed import GOVERNED, SETTLED_S, UNUSED_S, GovernedEngine
from vidseg_core.engine.governor import Move
from vidseg_core.engine.ladder import Forecast, Step
from vidseg_core.engine.segmenter import NetworkSegmenter, TruthSegmenter
from vidseg_core.engine.stream import Networks, Stream
from vidseg_core.frame import Frame, Segmentation
from vidseg_core.models.accuracy import PRIOR, Updated
from vidseg_core.models.card import InputCard

CPU = torch.device("cpu")
SIZE = (96, 128)
WAIT_S = 60


class Blank(torch.nn.Module):
    """Zeros at stride 4."""

    num_classes = 3

    def forward(self, x):
        return torch.zeros(1, 3, x.shape[2] // 4, x.shape[3] // 4)


class Gated(Blank):
    """Tells the sizes that it was called with; at others than the camera's it waits for `gate`."""

    def __init__(self):
        super().__init__()
        self.gate, self.sizes = threading.Event(), []

    def forward(self, x):
        size = tuple(x.shape[2:])
        if size != SIZE:
            assert self.gate.wait(WAIT_S)
        self.sizes.append(size)
        return super().forward(x)


def frame(i, labels=None):
    image = np.random.default_rng(i).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    return Frame(image, i * 33_333_333, name=str(i), labels=labels)


def test_another_input_size_is_used_once_it_is_compiled_and_nothing_waits_for_it():
    network = Gated()
    segmenter = NetworkSegmenter(network, 1.0, CPU, input=InputCard(multiple=32))
    assert segmenter.input_rows(SIZE) == 96
    for i in range(2):
        segmenter(frame(i))
    segmenter.share = 1 / 3
    for i in range(3):  # it would not come back if it waited
        segmenter(frame(2 + i))
    assert network.sizes == [SIZE] * 5
    network.gate.set()
    end_s = time.monotonic() + WAIT_S
    while segmenter.costs[-1][1] != 1 / 3:
        assert time.monotonic() < end_s
        segmenter(frame(5))
    shares = [share for _, share in segmenter.costs]
    assert network.sizes[-1] == (32, 32) and network.sizes.count((32, 32)) == 2  # to compile, and the frame
    assert shares == sorted(shares, reverse=True) and set(shares) == {1.0, 1 / 3}


def test_a_size_that_cannot_be_compiled_is_not_asked_for_again(caplog):
    class Broken(Blank):
        def forward(self, x):
            if x.shape[2] < 96:
                raise RuntimeError("too small")
            return super().forward(x)

    segmenter = NetworkSegmenter(Broken(), 1.0, CPU, input=InputCard(multiple=32))
    segmenter(frame(0))
    segmenter.share = 1 / 3
    end_s = time.monotonic() + WAIT_S
    while "too small" not in caplog.text:
        assert time.monotonic() < end_s
        segmenter(frame(1))
    for i in range(5):
        segmenter(frame(i))
    assert caplog.text.count("cannot be compiled for an input of 32 x 32") == 1


@pytest.mark.parametrize("flow", [NoFlow(), DIS()])
def test_the_past_is_kept_on_another_grid(flow):
    labels = np.zeros(SIZE, dtype=np.uint8)
    labels[:, 48:] = 1
    image = frame(0).image
    stream = Stream(EngineConfig(interval=9, grid_stride=4), Networks(TruthSegmenter(3), flow, None, CPU))
    results = []
    for i in range(6):
        if i in (2, 4):
            stream.set_grid_stride(8 if i == 2 else 2)
        results.append(stream.step(Frame(image, i * 33_333_333, labels=labels)))
    assert [one.is_key for one in results] == [True] + [False] * 5
    assert [one.age for one in results] == list(range(6))
    assert all(one.reset is None and (one.labels == labels).mean() > 0.95 for one in results)


def test_flow_on_another_grid_is_in_that_one_s_pixels():
    from vidseg_core.engine.state import flow_on_grid

    flow = torch.stack((torch.full((5, 9), 2.0), torch.full((5, 9), -1.0)))[None]
    there = flow_on_grid(flow, (9, 17))
    assert there.shape == (1, 2, 9, 17)
    torch.testing.assert_close(there[0, :, 0, 0], torch.tensor([4.0, -2.0]))
    assert flow_on_grid(flow, (5, 9)) is flow and flow_on_grid(None, (5, 9)) is None


ACCURACY = replace(PRIOR, update=Updated("small", ((0.0, 0.0), (1.0, 2.0))))


def governed(free=GOVERNED, update=None, **config):
    engine = Engine.__new__(Engine)  # its networks alone are asked for
    config = EngineConfig(**{"key_frames": "async", **config})
    engine._config, engine._models = config, {}
    segmenter = NetworkSegmenter(Blank(), 1.0, CPU, input=InputCard(multiple=32))
    engine._networks = Networks(segmenter, DIS(), None, CPU)
    engine.stream = lambda ego_mask=None, phase=0.0: Stream(replace(config, key_frames="sync"), engine._networks)
    return GovernedEngine(engine, free, update=update), segmenter


def run(engine, stream, frames, frame_s=0.001, key_s=0.002):
    """Frames at 30 Hz by their stamps; returns the moves."""
    moves = []
    for i in range(frames):
        result = Segmentation(np.zeros(SIZE, dtype=np.uint8), i, False, 1, "propagated")
        engine._engine.networks.segmenter.costs.append((key_s, engine._engine.networks.segmenter.share))
        moves.append(engine.note(stream, result, frame_s, i / 30, i, 0))
    return [move for move in moves if move is not None]


def test_what_is_given_is_never_touched(monkeypatch):
    engine, segmenter = governed({"interval"}, grid_stride=4)
    stream = engine.stream()
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) / 30)
    moves = run(engine, stream, 200)
    assert moves and all((m.step.key_frames, m.step.rows, m.step.grid_stride) == ("async", 0, 4) for m in moves)
    assert segmenter.share == 1.0
    assert stream._stream._config.interval == moves[-1].step.interval


def test_a_move_reaches_streams_network_and_status(monkeypatch, caplog):
    caplog.set_level("INFO", "vidseg_core")
    engine, segmenter = governed()
    streams = [engine.stream() for _ in range(2)]
    streams[1].set_interval(7)
    step = Step("sync", 2, 48, 8)
    run(engine, streams[0], 1)
    monkeypatch.setattr(engine._governor, "decide", lambda now_s: Move(step, "because", Forecast(1, 1, 1, 1)))
    engine._governor.step = step
    run(engine, streams[0], 1)
    assert segmenter.share == 0.5
    assert [one._stream._config.interval for one in streams] == [2, 7]
    assert all(one._stream._config.grid_stride == 8 and one._stream._at_once for one in streams)
    assert engine.status()["Governor step"] == "sync, interval 2, 48 rows, grid stride 8"
    assert engine.status()["Governor moved because"] == "because"
    assert caplog.text.count("governor: sync, interval 2, 48 rows, grid stride 8; because") == 1
    streams[1].set_interval(None)
    assert streams[1]._stream._config.interval == 2
    assert engine.stream()._stream._config.grid_stride == 8  # a camera that comes later, too


def test_another_size_is_asked_for_before_the_step_that_needs_it_is_taken(monkeypatch):
    engine, segmenter = governed({"key_frames", "input_scale"}, interval=0)
    stream = engine.stream()
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) / 30)

    def label(i, share):
        segmenter.costs.append((0.3 * share**2, share))
        result = Segmentation(np.zeros(SIZE, dtype=np.uint8), i, False, 1, "propagated")
        engine.note(stream, result, 0.001, i / 30, i, 0)

    for i in range(60):
        label(i, 1.0)  # the network is not ready at another size
    assert segmenter.share < 1.0
    assert engine.step.rows == 96
    asked = segmenter.share
    for i in range(60, 90):
        label(i, segmenter.share)
        if engine.step.rows != 96:
            break
    assert engine.step.rows == round(96 * asked)


def test_what_a_frame_has_waited_for_is_no_cost_of_its_own():
    engine, segmenter = governed()
    stream = engine.stream()
    for i in range(2):
        segmenter.costs.append((0.020, 1.0))
        timings = {"segment": 21.0, "fuse": 3.0}
        engine.note(
            stream, Segmentation(np.zeros(SIZE, np.uint8), i, True, 0, "interval", None, timings), 0.030, i, i, 0
        )
    noted = engine._governor._times[-1]
    assert noted.frame_s == pytest.approx(0.010)
    assert noted.key_s == 0.020


@pytest.mark.parametrize(("size", "strides"), [((1080, 1920), {4, 8}), ((1860, 2880), {4})])
def test_a_grid_that_the_picture_is_no_multiple_of_is_no_step(size, strides):
    engine, _ = governed()
    result = Segmentation(np.zeros(size, dtype=np.uint8), 0, False, 1, "propagated")
    engine.note(engine.stream(), result, 0.001, 0, 0, 0)
    assert {step.grid_stride for step in engine._governor._steps} == strides


class Updates:
    """Stands for `UpdateNetwork`; is ready for the sizes in `ready`."""

    num_classes, half_pixel = 3, False

    def __init__(self):
        self.ready, self.refused, self.asked, self.let, self.closed = set(), set(), [], 0, 0

    def costs_s(self, sizes):
        return 0.001 if set(sizes) <= self.ready else None

    def refuses(self, sizes):
        return bool(self.refused & set(sizes))

    def ask(self, sizes):
        self.asked.append(list(sizes))

    def let_go(self):
        self.let += 1

    def close(self):
        self.closed += 1

    def __call__(self, frame):
        return np.zeros((1, 3, 4, 4), np.float32)


def test_the_update_network_is_asked_for_used_and_let_go_of(monkeypatch):
    updates, step = Updates(), Step("async", 4, 96, 4, update=True)
    engine, segmenter = governed(update=updates)
    monkeypatch.setattr(Engine, "accuracy", ACCURACY)
    monkeypatch.setattr(Engine, "close", lambda self, timeout_s: True)
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    streams = [engine.stream() for _ in range(2)]
    run(engine, streams[0], 1)
    governor = engine._governor
    assert any(one.update for one in governor._steps) and updates.asked == [] and not governor._has_updater
    monkeypatch.setattr(governor, "decide", lambda now_s: None)
    governor._ahead = step
    run(engine, streams[0], 1)
    assert updates.asked == [[SIZE]] and streams[0]._stream._networks.updater is None
    updates.ready.add(SIZE)
    governor.step, governor._ahead = step, None
    run(engine, streams[0], 1)
    assert governor._has_updater and streams[0]._stream._networks.updater is updates
    other = Segmentation(np.zeros((96, 96), np.uint8), 0, False, 1, "propagated")
    engine.note(streams[1], other, 0.001, now_s, 0, 0)
    assert updates.asked[-1] == [SIZE, (96, 96)] and not governor._has_updater
    assert [one._stream._networks.updater for one in streams] == [updates, None]
    governor.step = replace(step, update=False)
    now_s += UNUSED_S
    run(engine, streams[0], 1)
    assert streams[0]._stream._networks.updater is None
    let = updates.let
    now_s += 1.0
    run(engine, streams[0], 1)
    assert updates.let == let + 1
    engine.close()
    assert updates.closed == 1


def test_an_update_network_that_has_failed_at_one_camera_s_frame_is_not_called_for_another_s(monkeypatch):
    updates = Updates()
    engine, _ = governed(update=updates)
    stream, picture = engine.stream(), Frame(np.zeros((64, 64, 3), np.uint8), 0)
    updates.ready.add(picture.size)
    stream.set_updater(updates)
    stream.step(picture)
    assert stream._stream._networks.updater is updates
    updates.ready.clear()
    result = stream.step(replace(picture, stamp_ns=33_000_000))
    assert stream._stream._networks.updater is None and "update" not in result.timings


def test_what_the_update_network_refuses_is_told_to_the_governor(monkeypatch):
    updates = Updates()
    engine, _ = governed(update=updates)
    monkeypatch.setattr(Engine, "accuracy", ACCURACY)
    run(engine, engine.stream(), 1)
    assert not engine._governor._is_refused
    updates.refused.add(SIZE)
    run(engine, engine._streams[0], 1)
    assert engine._governor._is_refused


@pytest.mark.parametrize("without", ["record", "choice", "fusion", "network"])
def test_no_step_has_an_update_network_that_may_not_be_used(monkeypatch, without):
    free = [name for name in GOVERNED if without != "choice" or name != "update_weights"]
    update = None if without == "network" else Updates()
    engine, _ = governed(free, update=update, fusion=without != "fusion")
    monkeypatch.setattr(Engine, "accuracy", PRIOR if without == "record" else ACCURACY)
    run(engine, engine.stream(), 1)
    assert not any(step.update for step in engine._governor._steps)


def updated_frame():
    timings = {"warp": 1.0, "update": 6.0}
    return Segmentation(np.zeros(SIZE, np.uint8), 0, False, 1, "propagated", None, timings)


def test_what_an_update_takes_is_told_apart():
    engine, _ = governed(update=Updates())
    engine.note(engine.stream(), updated_frame(), 0.030, 0, 0, 0)
    noted = engine._governor._times[-1]
    assert (noted.frame_s, noted.update_s, noted.key_s) == (pytest.approx(0.024), 0.006, None)


def test_an_update_network_that_was_given_is_part_of_every_frame(monkeypatch):
    engine, segmenter = governed([name for name in GOVERNED if name != "update_weights"])
    engine._engine._networks = replace(engine._engine._networks, updater=Updates())
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) / 30)
    stream = engine.stream()
    for i in range(100):
        segmenter.costs.append((0.010, segmenter.share))
        engine.note(stream, updated_frame(), 0.012, i / 30, i, 0)
    assert "Governor share of the frame period" in engine.status(), "such frames tell what the step in use costs"
    noted = engine._governor._times[-1]
    assert (noted.frame_s, noted.update_s, noted.key_s) == (0.012, None, None)


def test_a_network_with_a_fixed_input_size_has_no_size_step():
    engine, segmenter = governed()
    segmenter.input = InputCard(size_rule="fixed", size=(64, 64))
    assert segmenter.input_rows is None
    run(engine, engine.stream(), 1)
    assert {step.rows for step in engine._governor._steps} == {0}


def test_it_begins_at_the_size_at_which_it_was_last_and_tells_where_it_has_settled(monkeypatch):
    engine, segmenter = governed({"input_scale"})
    engine.prepare(SIZE, 0.4)
    assert segmenter.share == 1.0, "no step of the ladder is of that size"
    engine.prepare(SIZE, 0.7)
    assert segmenter.share == 0.7 and engine.settled_share is None
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    result = Segmentation(np.zeros(SIZE, dtype=np.uint8), 0, False, 1, "propagated")
    assert engine.note(engine.stream(), result, 0.001, now_s, 0, 0) is None
    assert engine.step.rows == round(96 * 0.7) and engine.settled_share is None
    now_s += SETTLED_S
    assert engine.settled_share == 0.7
    given, segmenter = governed(set())
    given.prepare(SIZE, 0.7)
    assert segmenter.share == 1.0, "what the user has chosen stays"
