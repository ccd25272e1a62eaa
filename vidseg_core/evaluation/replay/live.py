"""Simulate the node on a recording: frames arrive at their times and do not wait for the engine.

Frames arrive at their stamps. The node has a mailbox of one slot, in which a new frame takes the place of one that
still waits, and one worker. As there, only a pause of the camera resets the stream, not the frames that are dropped. A
frame of ground truth is scored against the newest labels that were there at its stamp (`streaming_miou`; Li, Wang,
Ramanan: Towards Streaming Perception, ECCV 2020), and against those that were there one frame period later
(`deadline_miou`). Before the first labels everything is wrong.
"""

from __future__ import annotations

import math
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from vidseg_core.classes import VOID
from vidseg_core.data.clock import played_step_ns
from vidseg_core.errors import ConfigError
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix
from vidseg_core.evaluation.metrics.distribution import distribution
from vidseg_core.frame import Frame, Segmentation

ENDED_S = 0.1


class Arrival(NamedTuple):
    """A frame, and when it comes, in nanoseconds after the first."""

    at_ns: int
    frame: Frame

    def in_place_of(self, dropped: Arrival | None) -> Arrival:
        """Return this with the longest pause since the frame before the dropped one, too; None: none was dropped."""
        if dropped is None:
            return self
        pause_s = max(self.frame.pause_s or 0.0, dropped.frame.pause_s or 0.0)
        return self._replace(frame=replace(self.frame, pause_s=pause_s))


@dataclass(frozen=True)
class WorkerTimes:
    """Times that the worker takes: for a frame whose segmentation it waits for, and for any other, in milliseconds."""

    key_ms: float
    step_ms: float

    @classmethod
    def parse(cls, text: str) -> WorkerTimes:
        """Parse `key_ms=80,step_ms=10`.

        Raises:
            ConfigError: a key is missing, unknown or given twice, or a value is not a number above 0.
        """
        entries = [entry.partition("=") for entry in text.split(",")]
        try:
            values = {name.strip(): float(value) for name, _, value in entries}
        except ValueError:
            values = {}
        good = len(entries) == 2 and set(values) == {"key_ms", "step_ms"}
        if not good or not all(math.isfinite(value) and value > 0 for value in values.values()):
            raise ConfigError(f"timings: expected key_ms=A,step_ms=B in milliseconds above 0, got {text!r}")
        return cls(**values)


class Output(NamedTuple):
    """The result for one frame. Times in nanoseconds after the first frame's arrival."""

    arrived_ns: int
    begun_ns: int
    done_ns: int
    segmentation: Segmentation


class Scoreboard:
    """Compare ground truth with the newest labels; events are reported in order of time, labels before frames.

    Args:
        num_classes: of the labels.
        period_ns: between two frames.

    Attributes:
        streaming: against the labels that were there when the frame arrived.
        deadline: against those that were there one period later.
        frames: how many were compared.
        too_early: how many of them before there were any labels.
    """

    def __init__(self, num_classes: int, period_ns: int):
        self.streaming = ConfusionMatrix(num_classes)
        self.deadline = ConfusionMatrix(num_classes)
        self.frames = 0
        self.too_early = 0
        self._period_ns = period_ns
        self._newest: np.ndarray | None = None
        self._due: deque[tuple[int, np.ndarray]] = deque()

    def published(self, now_ns: int, labels: np.ndarray) -> None:
        """Take labels that are there from now on."""
        self._score_due(now_ns)
        self._newest = labels

    def arrived(self, now_ns: int, truth: np.ndarray | None) -> None:
        """Count a frame with this ground truth, which arrives."""
        if truth is None:
            return
        self.frames += 1
        self.too_early += self._newest is None
        self._score(self.streaming, truth)
        self._due.append((now_ns + self._period_ns, truth))

    def finish(self) -> None:
        """Count what still waits, since nothing more will come."""
        self._score_due(math.inf)

    def _score_due(self, before_ns: float) -> None:
        while self._due and self._due[0][0] < before_ns:
            self._score(self.deadline, self._due.popleft()[1])

    def _score(self, matrix: ConfusionMatrix, truth: np.ndarray) -> None:
        labels = self._newest
        if labels is None or labels.shape != truth.shape:  # none, or of before the images changed their size
            labels = np.full_like(truth, VOID)
        matrix.update(labels, truth)


class Log:
    """Events of a replay as live.

    Attributes:
        board: the scores.
        outputs: one for each frame that was processed, in order; without labels once these have been scored.
        frames: how many came.
        dropped: how many of them gave way to newer ones.
        duration_ns: from the first frame's arrival until one period after the last one's.
    """

    def __init__(self, num_classes: int, period_ns: int):
        self.board = Scoreboard(num_classes, period_ns)
        self.outputs: list[Output] = []
        self.frames = 0
        self.dropped = 0
        self.duration_ns = 0
        self._period_ns = period_ns

    def arrived(self, arrival: Arrival) -> None:
        self.frames += 1
        self.duration_ns = arrival.at_ns + self._period_ns
        self.board.arrived(arrival.at_ns, arrival.frame.labels)

    def published(self, output: Output) -> None:
        self.board.published(output.done_ns, output.segmentation.labels)
        self.outputs.append(output._replace(segmentation=replace(output.segmentation, labels=None)))

    def summary(self) -> dict:
        """JSON-safe. mIoU in percent, None without ground truth."""
        results = [output.segmentation for output in self.outputs]
        latency_ms = [(output.done_ns - output.arrived_ns) / 1e6 for output in self.outputs]
        busy_ms = {
            is_key: [(o.done_ns - o.begun_ns) / 1e6 for o in self.outputs if o.segmentation.is_key == is_key]
            for is_key in (True, False)
        }
        return {
            "frames": self.frames,
            "outputs": len(self.outputs),
            "dropped": self.dropped,
            "rate_hz": round(len(self.outputs) / self.duration_ns * 1e9, 3),
            "latency_ms": distribution(latency_ms),
            "key_ms": median(busy_ms[True]),
            "step_ms": median(busy_ms[False]),
            "key_frames": sum(result.is_key for result in results),
            "reasons": dict(Counter(result.reason for result in results)),
            "resets": [result.reset for result in results if result.reset is not None],
            "labelled_frames": self.board.frames,
            "labelled_before_first_output": self.board.too_early,
            "streaming_miou": percent(self.board.streaming.mean_iou()),
            "deadline_miou": percent(self.board.deadline.mean_iou()),
        }


def arrivals(frames: Iterable[Frame], period_ns: int, speed: float = 1.0) -> Iterator[Arrival]:
    """Give frames their arrival times, by their stamps and receive times (see `played_step_ns`).

    Args:
        period_ns: between two frames, as recorded; where the clock jumps, the next frame comes so much later.
        speed: how many times faster than recorded. If not 1, stamps are those of a camera of that rate.
    """
    at_ns, previous = 0.0, None
    for frame in frames:
        pause_s = 0.0
        if previous is not None:
            at_ns += played_step_ns(previous, frame, period_ns) / speed
            pause_s = (frame.stamp_ns - previous.stamp_ns) / 1e9 / speed
        previous = frame
        stamp_ns = frame.stamp_ns if speed == 1.0 else round(frame.stamp_ns / speed)
        yield Arrival(round(at_ns), replace(frame, stamp_ns=stamp_ns, pause_s=pause_s))


Step = Callable[[Frame, int], tuple[Segmentation, int]]
"""(frame, now in nanoseconds) -> its labels, and how many nanoseconds that takes."""


def simulate(step: Step, frames: Iterable[Arrival], num_classes: int, period_ns: int) -> Log:
    """Play on a simulated clock, on which the worker takes as long as `step` says."""
    log = Log(num_classes, period_ns)
    worker = _SimulatedWorker(step, log)
    for arrival in frames:
        worker.advance(arrival.at_ns)
        log.arrived(arrival)
        worker.put(arrival)
    worker.advance(math.inf)
    log.board.finish()
    return log


class _SimulatedWorker:
    """The node's worker and its mailbox."""

    def __init__(self, step: Step, log: Log):
        self._step = step
        self._log = log
        self._slot: Arrival | None = None
        self._busy: Output | None = None

    def put(self, arrival: Arrival) -> None:
        """Leave a frame in the mailbox; who is idle takes it at once."""
        if self._busy is None:
            self._begin(arrival, arrival.at_ns)
        else:
            self._log.dropped += self._slot is not None
            self._slot = arrival.in_place_of(self._slot)

    def advance(self, now_ns: float) -> None:
        """Finish what is finished by now, and begin what waits."""
        while self._busy is not None and self._busy.done_ns <= now_ns:
            done, self._busy = self._busy, None
            self._log.published(done)
            if self._slot is not None:
                arrival, self._slot = self._slot, None
                self._begin(arrival, done.done_ns)

    def _begin(self, arrival: Arrival, now_ns: int) -> None:
        segmentation, duration_ns = self._step(arrival.frame, now_ns)
        self._busy = Output(arrival.at_ns, now_ns, now_ns + duration_ns, segmentation)


def play(step: Callable[[Frame], Segmentation], frames: list[Arrival], num_classes: int, period_ns: int) -> Log:
    """Play at real pace with a worker thread; this takes as long as the recording.

    Args:
        step: called on the worker's thread.
        frames: in memory, so that nothing but the engine takes time; so are all labels until the end.

    Raises:
        What `step` raises.
    """
    log = Log(num_classes, period_ns)
    slot: queue.Queue[Arrival | None] = queue.Queue(1)
    outputs: list[Output] = []
    with ThreadPoolExecutor(1, thread_name_prefix="vidseg-worker") as pool:
        begin_ns = time.monotonic_ns()
        worker = pool.submit(_work, step, slot, begin_ns, outputs)
        for arrival in frames:
            time.sleep(max(0.0, (begin_ns + arrival.at_ns - time.monotonic_ns()) / 1e9))
            log.dropped += _replace(slot, arrival)
        _end(slot, worker)
    _score(log, frames, outputs)
    return log


def _work(step: Callable[[Frame], Segmentation], slot: queue.Queue, begin_ns: int, outputs: list[Output]) -> None:
    while (arrival := slot.get()) is not None:
        begun_ns = time.monotonic_ns() - begin_ns
        segmentation = step(arrival.frame)
        outputs.append(Output(arrival.at_ns, begun_ns, time.monotonic_ns() - begin_ns, segmentation))


def _replace(slot: queue.Queue, arrival: Arrival) -> bool:
    """Leave the newest frame; whether another gave way to it. (Nobody else puts anything in.)"""
    try:
        dropped = slot.get_nowait()
    except queue.Empty:
        dropped = None
    slot.put(arrival.in_place_of(dropped))
    return dropped is not None


def _end(slot: queue.Queue, worker: Future) -> None:
    """Let the worker take what is left, and end."""
    while not worker.done():
        try:
            slot.put(None, timeout=ENDED_S)
            break
        except queue.Full:
            continue
    worker.result()


def _score(log: Log, frames: list[Arrival], outputs: list[Output]) -> None:
    waiting = deque(outputs)
    for arrival in frames:
        while waiting and waiting[0].done_ns <= arrival.at_ns:
            log.published(waiting.popleft())
        log.arrived(arrival)
    while waiting:
        log.published(waiting.popleft())
    log.board.finish()


def median(values: list[float]) -> float | None:
    """Compute the median; None without values."""
    return round(float(np.median(values)), 3) if values else None


def percent(share: float) -> float | None:
    """Convert a share of 0..1 to percent; None for nan."""
    return None if math.isnan(share) else round(100 * share, 3)
