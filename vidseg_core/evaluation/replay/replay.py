"""Replay a recording through the engine: every frame in turn, and as it would have been live.

A recording whose end cannot be read is evaluated as far as it goes, and the result says what is wrong with it.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice, pairwise
from statistics import median

import cv2
import numpy as np

from vidseg_core.data.clock import step_ns
from vidseg_core.data.images import encode_png
from vidseg_core.data.sequences import Sequence, VideoSet
from vidseg_core.data.source import DEFAULT_RATE_HZ, Source
from vidseg_core.data.stamped import seconds
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.warm_up import warm_up
from vidseg_core.errors import DatasetError, SourceError, VidsegError
from vidseg_core.evaluation.distance.evaluate import Method, Score, accumulated, evaluate
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix
from vidseg_core.evaluation.metrics.consistency import Consistency, Matcher
from vidseg_core.evaluation.metrics.distribution import distribution
from vidseg_core.evaluation.replay.live import Log, WorkerTimes, arrivals, percent, simulate
from vidseg_core.evaluation.replay.modes import MODES, given, in_mode, measured, play_for_real, remembering
from vidseg_core.frame import Frame, Segmentation

REFERENCES = ("ground truth", "per-frame segmenter")
SAMPLES = 6
MEMORY_BYTES = 4 * 10**9
"""For frames that are held because reading them must not take time."""

Progress = Callable[[Iterable, str], Iterable]
"""(items, what is being done with them) -> the items, for instance through `tqdm`."""


def no_progress(items: Iterable, what: str) -> Iterable:
    return items


class Footage:
    """The frames of a recording as often as they are needed, as far as they can be read.

    Args:
        source: of the recording.
        size: (H, W) to which frames (bilinearly) and their labels (nearest) are resized; None leaves them.
        max_frames: leave out what comes after so many; None for all.

    Attributes:
        name: of the recording's topic.
        reference: what frames are compared with, one of `REFERENCES`.
        error: what ended the latest reading early; None if nothing did.
    """

    def __init__(self, source: Source, size: tuple[int, int] | None = None, max_frames: int | None = None):
        self.name = source.name
        self.reference = REFERENCES[0]
        self.error: str | None = None
        self._source = source
        self._size = size
        self._max_frames = max_frames
        self._labels: dict[str, bytes] | None = None

    @property
    def has_truth(self) -> bool:
        """Tell whether the recording comes with ground truth."""
        return self._source.classes is not None

    @property
    def num_frames(self) -> int | None:
        """As far as that is known beforehand."""
        return min((n for n in (self._source.num_frames, self._max_frames) if n is not None), default=None)

    def __len__(self) -> int:
        return self.num_frames or 0

    def __iter__(self) -> Iterator[Frame]:
        self.error = None
        frames = iter(self._source)
        for _ in range(self._max_frames or 2**63):
            try:
                frame = next(frames, None)
            except VidsegError as error:
                self.error = str(error)
                return
            if frame is None:
                return
            yield self._prepared(frame)

    def compare_with(self, engine: Engine, progress: Progress = no_progress) -> None:
        """Take what the per-frame segmenter says for the truth, where a recording has none."""
        stream = in_mode(engine, "per_frame").stream()
        labels = {}
        for frame in progress(self, "per-frame segmenter"):
            stream.reset()
            labels[frame.name] = encode_png(stream.step(frame).labels)
        self._labels = labels
        self.reference = REFERENCES[1]

    def in_memory(self) -> list[Frame]:
        """Read all frames into memory.

        Raises:
            SourceError: they take more than `MEMORY_BYTES`.
        """
        held, num_bytes = [], 0
        for frame in self:
            held.append(frame)
            num_bytes += frame.image.nbytes
            if num_bytes > MEMORY_BYTES:
                raise SourceError(
                    f"{self.name}: expected frames that fit into {MEMORY_BYTES / 1e9:g} GB, it is more than the first "
                    f"{len(held)}; take fewer (--frames)"
                )
        return held

    def _prepared(self, frame: Frame) -> Frame:
        image, labels = frame.image, frame.labels
        if self._size is not None and self._size != frame.size:
            image = cv2.resize(image, self._size[::-1], interpolation=cv2.INTER_LINEAR)
            if labels is not None:
                labels = cv2.resize(labels, self._size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        if self._labels is not None:
            labels = cv2.imdecode(np.frombuffer(self._labels[frame.name], np.uint8), cv2.IMREAD_UNCHANGED)
        return replace(frame, image=image, labels=labels)


@dataclass(frozen=True)
class ShownFrame:
    """A frame to look at.

    Attributes:
        frame: with what it is compared with, if anything.
        segmentation: of it.
    """

    frame: Frame
    segmentation: Segmentation


@dataclass
class Offline:
    """Every frame in turn.

    Attributes:
        stamps: of all frames, nanoseconds.
        names: of all frames.
        has_truth: for each frame whether there is something to compare it with.
        breaks: positions of the frames before which the stream forgot its past.
        consistency: of consecutive frames' labels.
        samples: some frames, evenly spread.
        steps_ns: between consecutive frames, as far as that is known (see `step_ns`).
    """

    classes: tuple[str, ...]
    matrix: ConfusionMatrix
    stamps: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    has_truth: list[bool] = field(default_factory=list)
    breaks: list[int] = field(default_factory=list)
    consistency: Consistency = field(default_factory=Consistency)
    samples: list[ShownFrame] = field(default_factory=list)
    steps_ns: list[int] = field(default_factory=list)
    reasons: Counter = field(default_factory=Counter)
    resets: list[dict] = field(default_factory=list)
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def labelled(self) -> int:
        """Number of frames with something to compare with."""
        return sum(self.has_truth)

    @property
    def period_ns(self) -> int:
        """Between two frames: the median of the steps that are known; a single frame is as one of a folder."""
        return round(median(self.steps_ns)) if self.steps_ns else round(1e9 / DEFAULT_RATE_HZ)

    def add(self, frame: Frame, segmentation: Segmentation) -> None:
        """Count the next frame."""
        if segmentation.reset is not None:
            self.breaks.append(len(self.names))
            self.resets.append({"frame": frame.name, "reason": segmentation.reset})
        self.stamps.append(frame.stamp_ns)
        self.names.append(frame.name)
        self.has_truth.append(frame.labels is not None)
        self.reasons[segmentation.reason] += 1
        if frame.labels is not None:
            self.matrix.update(segmentation.labels, frame.labels)

    def summary(self) -> dict:
        """Return the figures, JSON-safe; mIoU and IoU in percent, times in milliseconds."""
        iou = [percent(value) for value in self.matrix.iou().tolist()]
        return {
            "frames": len(self.stamps),
            "labelled_frames": self.labelled,
            "rate_hz": round(1e9 / self.period_ns, 3),
            "miou": percent(self.matrix.mean_iou()),
            "pixel_accuracy": percent(self.matrix.pixel_accuracy()),
            "class_iou": dict(zip(self.classes, iou, strict=True)) if self.labelled else None,
            "absent_classes": [self.classes[i] for i in self.matrix.absent()] if self.labelled else None,
            "temporal_consistency": percent(self.consistency.share()),
            "key_frames": sum(n for reason, n in self.reasons.items() if reason != "propagated"),
            "reasons": dict(self.reasons),
            "resets": self.resets,
            "milliseconds": {stage: distribution(times) for stage, times in self.times.items()},
        }


Observer = Callable[[Frame, Segmentation], None]


def offline(
    engine: Engine,
    footage: Footage,
    key_delay: int = 0,
    observe: Observer | None = None,
    progress: Progress = no_progress,
    counts: Callable[[Frame], bool] | None = None,
    warm: bool = False,
) -> Offline:
    """Run the engine on every frame in turn, however long it takes: the labels are the same every time.

    Args:
        key_delay: how many frames later the labels of key frames come; 0: at once.
        observe: called with each frame that counts and its labels.
        counts: tells which frames count; others only give the stream its past. None: all.
        warm: the engine has seen frames of this size, so that nothing is left to be compiled.
    """
    if not warm:
        warm_up(engine.stream(key_delay=key_delay), footage)
    stream, match = engine.stream(key_delay=key_delay), Matcher()
    result = Offline(engine.classes.names, ConfusionMatrix(len(engine.classes)))
    wanted = {round(i) for i in np.linspace(0, max(len(footage) - 1, 0), SAMPLES)}
    previous = None
    for index, frame in enumerate(progress(footage, "every frame")):
        begin = time.perf_counter()
        segmentation = stream.step(frame)
        took_ms = (time.perf_counter() - begin) * 1e3
        before, previous = previous, ShownFrame(frame, segmentation)
        if counts is not None and not counts(frame):
            continue
        result.times["key frame" if segmentation.is_key else "propagated"].append(took_ms)
        result.add(frame, segmentation)
        if before is not None and (step := step_ns(before.frame, frame)) is not None:
            result.steps_ns.append(step)
        if before is not None and segmentation.reset is None:
            correspondence = match(frame.image, before.frame.image)
            result.consistency.update(before.segmentation.labels, segmentation.labels, correspondence)
        if index in wanted:
            result.samples.append(previous)
        if observe is not None:
            observe(frame, segmentation)
    return result


def by_distance(engine: Engine, footage: Footage, every: Offline, progress: Progress = no_progress) -> Score | None:
    """Score by distance as `vidseg evaluate` does, at the engine's interval, on the consecutive frames of `every`.

    Returns:
        None if no labelled frame has that many frames before it.
    """
    interval, reader, sequences = engine.config.interval, _Reader(footage), []
    for start, stop in pairwise([0, *every.breaks, len(every.names)]):
        names, has_truth = tuple(every.names[start:stop]), tuple(every.has_truth[start:stop])
        sequences.append(Sequence(names[0], names, has_truth, partial(reader.read, start)))
    if not any(any(sequence.labelled[interval:]) for sequence in sequences):
        return None
    video = VideoSet(footage.name, engine.classes, tuple(sequences))
    fixed = engine.variant(replace(engine.config, key_frames="sync", schedule="fixed"))
    ((_, _, score),) = evaluate(video, [Method(fixed, {}, (interval,))], progress=partial(progress, what="by distance"))
    return score


class _Reader:
    """Frames by their positions, cheap where these ascend."""

    def __init__(self, footage: Footage):
        self._footage = footage
        self._next = math.inf

    def read(self, start: int, position: int) -> Frame:
        """The frame `position` of the sequence that begins at frame `start`."""
        wanted = start + position
        if wanted < self._next:
            self._frames, self._next = iter(self._footage), 0
        for frame in islice(self._frames, wanted - self._next, None):
            self._next = wanted + 1
            return frame
        raise SourceError(self._footage.error or f"{self._footage.name}: has no frame {wanted} any more")


def live(
    engine: Engine,
    footage: Footage,
    period_ns: int,
    *,
    timings: WorkerTimes | None = None,
    realtime: bool = False,
    progress: Progress = no_progress,
) -> tuple[Log, WorkerTimes | None]:
    """Replay as it would have been on the vehicle.

    Args:
        period_ns: between two frames, as recorded.
        timings: how long steps take; None takes for each what it takes here, or with asynchronous key frames the
            medians of playing it for real.
        realtime: play at real pace, with real threads; else on a simulated clock.

    Returns:
        What happened, and the times that all steps took; None where each took its own.

    Raises:
        SourceError: what must be played for real does not fit into memory.
    """
    if realtime:
        return play_for_real(engine, footage.in_memory(), period_ns)[0], None
    if timings is None and engine.config.key_frames == "async":
        timings = play_for_real(engine, footage.in_memory(), period_ns)[1]
    if timings is None:
        warm_up(engine.stream(), footage)
    step = measured(engine) if timings is None else given(engine, timings)
    coming = arrivals(progress(footage, "as live"), period_ns)
    return simulate(step, coming, len(engine.classes), period_ns), timings


def compare(
    engine_of: Callable[[str], Engine],
    footage: Footage,
    period_ns: int,
    *,
    timings: WorkerTimes | None = None,
    speeds: tuple[float, ...] = (1.0, 2.0),
    progress: Progress = no_progress,
) -> list[dict]:
    """Compare the modes at several speeds, on a simulated clock.

    Args:
        engine_of: the engine for a mode, built when it is asked for; it is closed here.
        period_ns: between two frames, as recorded.
        timings: how long steps take; None plays each mode for real first and takes the medians, so that no single
            slow step decides.
        speeds: how many times faster than recorded to play.

    Returns:
        For each speed and mode what `Log.summary` has of the simulation, and `mode`, `rate_hz` (of the input),
        `output_hz`, `latency_ms` (median), `key_ms`, `step_ms`, `runtime`, `num_threads`, and `realtime`: the summary
        of the real play, or None.

    Raises:
        SourceError: the frames do not fit into memory.
    """
    frames, rows = footage.in_memory(), {}
    # A thread budget is the process's, so whatever is asked of an engine is asked before the next one is built.
    for mode in progress(MODES, "modes"):
        with engine_of(mode) as engine:
            known = remembering(engine)
            for speed in speeds:
                real, took = None, timings
                if timings is None:
                    real, took = play_for_real(engine, frames, period_ns, speed)
                coming, due_ns = arrivals(frames, period_ns, speed), round(period_ns / speed)
                log = simulate(given(known, took), coming, len(engine.classes), due_ns)
                rows[speed, mode] = _row(engine, mode, due_ns, took, log, real)
    return [rows[speed, mode] for speed in speeds for mode in MODES]


def _row(engine: Engine, mode: str, period_ns: int, timings: WorkerTimes, log: Log, real: Log | None) -> dict:
    summary, engine_is = log.summary(), engine.describe()
    return summary | {
        "mode": mode,
        "rate_hz": round(1e9 / period_ns, 3),
        "output_hz": summary["rate_hz"],
        "latency_ms": summary["latency_ms"]["p50"],
        "latency": summary["latency_ms"],
        "key_ms": round(timings.key_ms, 3),
        "step_ms": round(timings.step_ms, 3),
        "runtime": engine_is["runtime"],
        "num_threads": engine_is["num_threads"],
        "realtime": None if real is None else real.summary(),
    }


@dataclass
class Replay:
    """Results of one topic of one recording.

    Attributes:
        recording: its path, as given.
        topic: of the images.
        reference: see `Footage`.
        error: what ended it early; None if nothing did.
        every: each frame in turn.
        log: as live; None if that was not asked for.
        timings: what all steps took in it, where that was the same.
        score: by the distance from the key frame; None if that was not asked for, or there are too few frames.
        realtime: whether that was with real threads.
        rows: see `compare`.
    """

    recording: str
    topic: str
    reference: str
    error: str | None
    every: Offline
    score: Score | None = None
    log: Log | None = None
    timings: WorkerTimes | None = None
    realtime: bool = False
    rows: list[dict] = field(default_factory=list)

    @property
    def samples(self) -> list[ShownFrame]:
        return self.every.samples

    def summary(self) -> dict:
        """Return the figures, JSON-safe; mIoU and other shares in percent."""
        live = None
        if self.log is not None:
            timings = None if self.timings is None else asdict(self.timings)
            live = self.log.summary() | {"realtime": self.realtime, "timings": timings}
        return {
            "recording": self.recording,
            "topic": self.topic,
            "size": list(self.every.samples[0].frame.size),
            "reference": self.reference,
            "error": self.error,
            **self._accuracy(),
            "offline": self.every.summary(),
            "live": live,
            "rows": self.rows,
        }

    def _accuracy(self) -> dict:
        """As `vidseg evaluate` has it."""
        if self.score is None:
            return dict.fromkeys(("avg_miou", "min_miou", "miou_by_distance"))
        by_distance = [percent(matrix.mean_iou()) for matrix in self.score.matrices]
        average = percent(accumulated(self.score.matrices).mean_iou())
        return {"avg_miou": average, "min_miou": by_distance[-1], "miou_by_distance": by_distance}


@dataclass(frozen=True)
class ReplayChoices:
    """Choices of what to find out about a recording.

    Attributes:
        live: whether to play it as it would have been live.
        timings, realtime: see `live`.
        engine_of: to compare the modes, see `compare`; None does not.
        by_distance: whether to score by the distance from the key frame, which takes an engine for each distance.
        key_delay: see `offline`.
    """

    live: bool = True
    by_distance: bool = True
    key_delay: int = 0
    timings: WorkerTimes | None = None
    realtime: bool = False
    engine_of: Callable[[str], Engine] | None = None


def replay(
    engine: Engine,
    footage: Footage,
    recording: str,
    choices: ReplayChoices,
    observe: Observer | None = None,
    progress: Progress = no_progress,
) -> Replay:
    """Replay one topic of one recording, with all that was chosen.

    Args:
        footage: its frames; without ground truth they are compared with the per-frame segmenter.
        recording: what to call it.
        observe: called with each frame and its labels, each frame in turn.

    Raises:
        DatasetError: there is ground truth, but none of it belongs to a frame.
        SourceError: the frames do not fit into memory where they have to.
    """
    if not footage.has_truth:
        footage.compare_with(engine, progress)
    every = offline(engine, footage, choices.key_delay, observe, progress)
    if not every.labelled:
        raise DatasetError(
            f"{recording}: {footage.name}: expected ground truth for some of the {len(every.stamps)} frames "
            f"({seconds(every.stamps[0])} to {seconds(every.stamps[-1])} s), none has a stamp of theirs"
        )
    result = Replay(recording, footage.name, footage.reference, footage.error, every)
    if choices.by_distance:
        result.score = by_distance(engine, footage, every, progress)
    if choices.live:
        result.realtime = choices.realtime
        result.log, result.timings = live(
            engine, footage, every.period_ns, timings=choices.timings, realtime=choices.realtime, progress=progress
        )
    if choices.engine_of is not None:
        result.rows = compare(choices.engine_of, footage, every.period_ns, timings=choices.timings, progress=progress)
    return result
