"""Run the same networks on the same frames in other modes, with step times that are measured or given."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial

import numpy as np

from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.flow import NoFlow
from vidseg_core.engine.key_frames.background import Background, BackgroundJob
from vidseg_core.engine.key_frames.jobs import Result
from vidseg_core.engine.key_frames.turns import Turns
from vidseg_core.engine.remember import RememberedSegmenter
from vidseg_core.engine.warm_up import warm_up
from vidseg_core.evaluation.replay.live import Log, Step, WorkerTimes, arrivals, play
from vidseg_core.frame import Frame, Segmentation

MODES = ("per_frame", "sync", "async")


def config_of(config: EngineConfig, mode: str) -> EngineConfig:
    """Return the configuration for another mode.

    Args:
        mode: `per_frame`: the segmenter sees every frame, and nothing else is computed; `sync` and `async`: see
            `EngineConfig.key_frames`.
    """
    if mode == "per_frame":
        return replace(
            config, key_frames="sync", schedule="fixed", interval=0, flow="none", fusion=False, refine=False,
            update_weights=None, update_scale=None,
        )  # fmt: skip
    return replace(config, key_frames=mode)


def in_mode(engine: Engine, mode: str) -> Engine:
    """Return the engine's own networks in another mode."""
    config = config_of(engine.config, mode)
    if mode == "per_frame":
        return engine.variant(config, flow=NoFlow(), refine=None, updater=None)
    return engine.variant(config)


def measured(engine: Engine) -> Step:
    """Make a step that takes as long as it takes here, for key frames that are waited for."""
    stream = engine.stream()

    def step(frame: Frame, now_ns: int) -> tuple[Segmentation, int]:
        begin_ns = time.perf_counter_ns()
        segmentation = stream.step(frame)
        return segmentation, time.perf_counter_ns() - begin_ns

    return step


def given(engine: Engine, timings: WorkerTimes) -> Step:
    """Make a step that takes the given times, as do asynchronous key frames."""
    clock = _Clock(round(timings.key_ms * 1e6), at_once=engine.config.key_frames == "sync")
    step_ns = round(timings.step_ms * 1e6)
    stream = engine.variant(key_frames=clock).stream()

    def step(frame: Frame, now_ns: int) -> tuple[Segmentation, int]:
        clock.now_ns, clock.waited = now_ns, False
        segmentation = stream.step(frame)
        return segmentation, clock.key_ns if clock.waited else step_ns

    return step


class _Clock:
    """Key frames that take their time on a clock which only we move. See `vidseg_core.engine.key_frames.KeyFrames`."""

    frame = nullcontext

    def __init__(self, key_ns: int, at_once: bool):
        self.at_once = at_once
        self.key_ns = key_ns
        self.now_ns = 0
        self.waited = False
        """Whether somebody had to wait for one."""
        self._free_ns = 0

    def busy_s(self) -> float:
        """Nothing works beside the stream."""
        return 0.0

    def begin(self, work: Callable[[Frame], Result], frame: Frame) -> _TimedJob:
        self._free_ns = max(self._free_ns, self.now_ns) + self.key_ns
        return _TimedJob(self, work, frame, self._free_ns)


class _TimedJob:
    def __init__(self, clock: _Clock, work: Callable[[Frame], Result], frame: Frame, ready_ns: int):
        self._clock, self._work, self._frame, self._ready_ns = clock, work, frame, ready_ns

    def poll(self) -> Result | None:
        return self._work(self._frame) if self._ready_ns <= self._clock.now_ns else None

    def wait(self) -> Result:
        self._clock.waited = True
        return self._work(self._frame)

    def discard(self) -> None:
        """The simulated job keeps occupying the worker; its result is dropped."""


def play_for_real(engine: Engine, frames: list[Frame], period_ns: int, speed: float = 1.0) -> tuple[Log, WorkerTimes]:
    """Play with real threads at real pace: return the events, and the medians of what steps took.

    With key frames beside the stream, `key_ms` is what they take there, and `step_ms` what a frame takes meanwhile.

    Args:
        frames: in memory.
        period_ns: between two of them, as recorded.
        speed: how many times faster to play.
    """
    waiting_ms, alone_ms, beside_ms = [], [], []
    with ExitStack() as stack:
        if engine.config.key_frames == "async":
            background = stack.enter_context(_TimedBackground(engine.turns))
            engine, key_ms = engine.variant(key_frames=background), background.took_ms
        else:
            key_ms = waiting_ms
        warm_up(engine.stream(), frames)
        key_ms.clear()
        stream = engine.stream()

        def step(frame: Frame) -> Segmentation:
            is_beside = engine.segmenting_s() > 0
            begin = time.perf_counter()
            segmentation = stream.step(frame)
            took_ms = (time.perf_counter() - begin) * 1e3
            is_beside |= engine.segmenting_s() > 0
            (waiting_ms if segmentation.age == 0 else beside_ms if is_beside else alone_ms).append(took_ms)
            return segmentation

        log = play(step, list(arrivals(frames, period_ns, speed)), len(engine.classes), round(period_ns / speed))
    return log, WorkerTimes(float(np.median(key_ms)), float(np.median(beside_ms or alone_ms or waiting_ms)))


class _TimedBackground(Background):
    """Notes how long key frames take."""

    def __init__(self, turns: Turns | None):
        self.took_ms: list[float] = []
        super().__init__(turns)

    def begin(self, work: Callable[[Frame], Result], frame: Frame) -> BackgroundJob[Result]:
        return super().begin(partial(self._timed, work), frame)

    def _timed(self, work: Callable[[Frame], Result], frame: Frame) -> Result:
        begin = time.perf_counter()
        result = work(frame)
        self.took_ms.append((time.perf_counter() - begin) * 1e3)
        return result


def remembering(engine: Engine) -> Engine:
    """Return a variant that segments no frame (by its name) twice; it needs about the memory of the frames."""
    return engine.variant(segmenter=RememberedSegmenter(engine.networks.segmenter, recognise=lambda frame: frame.name))
