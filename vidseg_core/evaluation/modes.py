"""Ways to run the same networks on the same frames, and what they cost: measured in the real thing, or given."""

from __future__ import annotations

import time
from collections.abc import Iterable
from copy import copy
from dataclasses import replace

import numpy as np

from vidseg_core.engine.build import Engine
from vidseg_core.engine.flow import NoFlow
from vidseg_core.engine.stream import Stream
from vidseg_core.evaluation.live import Log, Step, Timings, arrivals, play
from vidseg_core.frame import Frame, Segmentation

MODES = ("per_frame", "sync")


def variant(engine: Engine, mode: str) -> Engine:
    """The engine's networks in another mode.

    Args:
        mode: `per_frame`: the segmenter sees every frame, and nothing else is computed; `sync`: the engine as it is.
    """
    other = copy(engine)
    if mode == "per_frame":
        other.config = replace(engine.config, interval=0, flow="none", refine=False, fusion=False)
        other.networks = replace(engine.networks, flow=NoFlow(), refine=None)
    return other


def measured(stream: Stream) -> Step:
    """A step that takes as long as it takes."""

    def step(frame: Frame, now_ns: int) -> tuple[Segmentation, int]:
        begin_ns = time.perf_counter_ns()
        segmentation = stream.step(frame)
        return segmentation, time.perf_counter_ns() - begin_ns

    return step


def given(stream: Stream, timings: Timings) -> Step:
    """A step that takes as long as is said."""
    key_ns, step_ns = round(timings.key_ms * 1e6), round(timings.step_ms * 1e6)

    def step(frame: Frame, now_ns: int) -> tuple[Segmentation, int]:
        segmentation = stream.step(frame)
        return segmentation, key_ns if segmentation.age == 0 else step_ns

    return step


def play_for_real(engine: Engine, frames: list[Frame], period_ns: int, speed: float = 1.0) -> tuple[Log, Timings]:
    """Real threads at real pace: what happened, and how long things took (medians).

    Args:
        frames: in memory.
        period_ns: between two of them, as recorded.
        speed: how many times faster to play.
    """
    stream, took_ms = engine.stream(), {True: [], False: []}

    def step(frame: Frame) -> Segmentation:
        begin = time.perf_counter()
        segmentation = stream.step(frame)
        took_ms[segmentation.age == 0].append((time.perf_counter() - begin) * 1e3)
        return segmentation

    warm_up(engine.stream(), frames)
    log = play(step, list(arrivals(frames, period_ns, speed)), len(engine.classes), round(period_ns / speed))
    key_ms = float(np.median(took_ms[True]))
    return log, Timings(key_ms, float(np.median(took_ms[False])) if took_ms[False] else key_ms)


def warm_up(stream: Stream, frames: Iterable[Frame]) -> None:
    """One key frame and one other: what is compiled or allocated only once is not part of the times."""
    frame = next(iter(frames), None)
    if frame is not None:
        for _ in range(2):
            stream.step(frame)
