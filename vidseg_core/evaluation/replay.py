"""A recording put through the engine again: every frame in turn, and as it would have been live.

A recording whose end cannot be read is evaluated as far as it goes, and the result says what is wrong with it.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace

import cv2
import numpy as np

from vidseg_core.data.sources import Source
from vidseg_core.data.stamped import compressed, seconds
from vidseg_core.engine.build import Engine
from vidseg_core.errors import DatasetError, SourceError, VidsegError
from vidseg_core.evaluation.live import Log, Timings, arrivals, distribution, percent, simulate
from vidseg_core.evaluation.metrics import ConfusionMatrix
from vidseg_core.evaluation.modes import MODES, given, measured, play_for_real, variant, warm_up
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
        """Whether the recording comes with ground truth."""
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
        stream = variant(engine, "per_frame").stream()
        labels = {}
        for frame in progress(self, "per-frame segmenter"):
            stream.reset()
            labels[frame.name] = compressed(stream.step(frame).labels)
        self._labels = labels
        self.reference = REFERENCES[1]

    def in_memory(self) -> list[Frame]:
        """All frames.

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
class Sample:
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
        samples: some frames, evenly spread.
    """

    classes: tuple[str, ...]
    matrix: ConfusionMatrix
    stamps: list[int] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    labelled: int = 0
    reasons: Counter = field(default_factory=Counter)
    resets: list[dict] = field(default_factory=list)
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def period_ns(self) -> int:
        """Between two frames: the median of the steps forwards."""
        steps = [b - a for a, b in zip(self.stamps, self.stamps[1:], strict=False) if b > a]
        return round(float(np.median(steps))) if steps else 10**9 // 30

    def summary(self) -> dict:
        """JSON-safe. mIoU and IoU in percent, times in milliseconds."""
        iou = [percent(value) for value in self.matrix.iou().tolist()]
        return {
            "frames": len(self.stamps),
            "labelled_frames": self.labelled,
            "rate_hz": round(1e9 / self.period_ns, 3),
            "miou": percent(self.matrix.mean_iou()),
            "pixel_accuracy": percent(self.matrix.pixel_accuracy()),
            "class_iou": dict(zip(self.classes, iou, strict=True)) if self.labelled else None,
            "key_frames": sum(n for reason, n in self.reasons.items() if reason != "propagated"),
            "reasons": dict(self.reasons),
            "resets": self.resets,
            "milliseconds": {stage: distribution(times) for stage, times in self.times.items()},
        }


Observer = Callable[[Frame, Segmentation], None]


def offline(engine: Engine, footage: Footage, observe: Observer | None = None, progress: Progress = no_progress):
    """The engine over every frame in turn, however long it takes: an `Offline`.

    Args:
        observe: called with each frame and its labels.
    """
    warm_up(engine.stream(), footage)
    stream = engine.stream()
    result = Offline(engine.classes.names, ConfusionMatrix(len(engine.classes)))
    wanted = {round(i) for i in np.linspace(0, max(len(footage) - 1, 0), SAMPLES)}
    for index, frame in enumerate(progress(footage, "every frame")):
        begin = time.perf_counter()
        segmentation = stream.step(frame)
        result.times["key frame" if segmentation.is_key else "propagated"].append((time.perf_counter() - begin) * 1e3)
        result.stamps.append(frame.stamp_ns)
        result.reasons[segmentation.reason] += 1
        if segmentation.reset is not None:
            result.resets.append({"frame": frame.name, "reason": segmentation.reset})
        if frame.labels is not None:
            result.labelled += 1
            result.matrix.update(segmentation.labels, frame.labels)
        if index in wanted:
            result.samples.append(Sample(frame, segmentation))
        if observe is not None:
            observe(frame, segmentation)
    return result


def live(
    engine: Engine,
    footage: Footage,
    period_ns: int,
    *,
    timings: Timings | None = None,
    realtime: bool = False,
    progress: Progress = no_progress,
) -> Log:
    """As it would have been on the vehicle.

    Args:
        period_ns: between two frames, as recorded.
        timings: how long the worker takes; None takes for each frame what it takes here.
        realtime: play at real pace, with real threads; else on a simulated clock.

    Raises:
        SourceError: `realtime`, and the frames do not fit into memory.
    """
    if realtime:
        return play_for_real(engine, footage.in_memory(), period_ns)[0]
    stream = engine.stream()
    warm_up(engine.stream(), footage)
    step = measured(stream) if timings is None else given(stream, timings)
    return simulate(step, arrivals(progress(footage, "as live"), period_ns), len(engine.classes), period_ns)


def compare(
    engine: Engine,
    footage: Footage,
    period_ns: int,
    *,
    timings: Timings | None = None,
    speeds: tuple[float, ...] = (1.0, 2.0),
    progress: Progress = no_progress,
) -> list[dict]:
    """The modes against each other at several speeds, on a simulated clock.

    Args:
        period_ns: between two frames, as recorded.
        timings: how long steps take; None plays each mode for real first and takes the medians, so that no single
            slow step decides.
        speeds: how many times faster than recorded to play.

    Returns:
        For each speed and mode what `Log.summary` has of the simulation, and `mode`, `rate_hz` (of the input),
        `output_hz`, `latency_ms` (median), `key_ms`, `step_ms`, and `realtime`: the summary of the real play, or None.

    Raises:
        SourceError: the frames do not fit into memory.
    """
    frames = footage.in_memory()
    rows = []
    for speed, mode in progress([(speed, mode) for speed in speeds for mode in MODES], "modes"):
        one = variant(engine, mode)
        real, took = play_for_real(one, frames, period_ns, speed) if timings is None else (None, timings)
        coming, due_ns = arrivals(frames, period_ns, speed), round(period_ns / speed)
        summary = simulate(given(one.stream(), took), coming, len(engine.classes), due_ns).summary()
        rows.append(
            summary
            | {
                "mode": mode,
                "rate_hz": round(1e9 / due_ns, 3),
                "output_hz": summary["rate_hz"],
                "latency_ms": summary["latency_ms"]["p50"],
                "latency": summary["latency_ms"],
                "key_ms": round(took.key_ms, 3),
                "step_ms": round(took.step_ms, 3),
                "realtime": None if real is None else real.summary(),
            }
        )
    return rows


@dataclass
class Replay:
    """What one topic of one recording gave.

    Attributes:
        recording: its path, as given.
        topic: of the images.
        reference: see `Footage`.
        error: what ended it early; None if nothing did.
        every: each frame in turn.
        log: as live; None if that was not asked for.
        timings: what was given for it.
        realtime: whether that was with real threads.
        rows: see `compare`.
    """

    recording: str
    topic: str
    reference: str
    error: str | None
    every: Offline
    log: Log | None = None
    timings: Timings | None = None
    realtime: bool = False
    rows: list[dict] = field(default_factory=list)

    @property
    def samples(self) -> list[Sample]:
        return self.every.samples

    def summary(self) -> dict:
        """JSON-safe. mIoU and other shares in percent."""
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
            "avg_miou": None,
            "min_miou": None,
            "miou_by_distance": None,
            "temporal_consistency": None,
            "offline": self.every.summary(),
            "live": live,
            "rows": self.rows,
        }


@dataclass(frozen=True)
class Choices:
    """What to find out about a recording.

    Attributes:
        live: whether to play it as it would have been live.
        timings, realtime: see `live`.
        compare: whether to compare the modes; see `compare`.
    """

    live: bool = True
    timings: Timings | None = None
    realtime: bool = False
    compare: bool = False


def replay(
    engine: Engine,
    footage: Footage,
    recording: str,
    choices: Choices,
    observe: Observer | None = None,
    progress: Progress = no_progress,
) -> Replay:
    """Everything that was chosen, on one topic of one recording.

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
    every = offline(engine, footage, observe, progress)
    if not every.labelled:
        raise DatasetError(
            f"{recording}: {footage.name}: expected ground truth for some of the {len(every.stamps)} frames "
            f"({seconds(every.stamps[0])} to {seconds(every.stamps[-1])} s), none has a stamp of theirs"
        )
    result = Replay(recording, footage.name, footage.reference, footage.error, every)
    if choices.live:
        result.realtime, result.timings = choices.realtime, choices.timings
        result.log = live(
            engine, footage, every.period_ns, timings=choices.timings, realtime=choices.realtime, progress=progress
        )
    if choices.compare:
        result.rows = compare(engine, footage, every.period_ns, timings=choices.timings, progress=progress)
    return result
