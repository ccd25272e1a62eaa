"""Measure the accuracy lost between key frames (protocol of SwNet-seq's evaluation), for many methods in one pass.

Every labelled frame that has enough predecessors is scored at each distance 0..i from its key frame. i + 1 streams run
over the same frames: stream p begins at frame p, so that its key frames are those with t = p modulo i + 1, and together
they give each frame each distance once.

A method whose key frames do not depend on the past forgets it there, so for each frame t and distance k this is a key
frame at t - k propagated k frames: the published protocol. One pass with the largest interval then serves the smaller
ones, and only the frames needed before a scored one are run. Where key frames depend on the past (temporal fusion),
each interval has its own streams, which run from the beginning of the sequence as they would on a vehicle.

With a delay, a key frame's labels come so many frames later, and all else is as where key frames depend on the past;
distances still count from the last key frame, so at those below the delay it is the key frame before whose labels are
seen. Only frames in a stream's second loop or later are scored: in the first one there is nothing before.

What streams have in common (images, segmentation of a frame, flow between two) is computed once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

import numpy as np

from vidseg_core import distributed
from vidseg_core.classes import VOID, ClassTable
from vidseg_core.data.sequences import FRAME_NS, Sequence, VideoSet
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.remember import RememberedFlow, RememberedSegmenter, by_image
from vidseg_core.engine.stream import Stream
from vidseg_core.errors import DatasetError
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix
from vidseg_core.evaluation.metrics.consistency import Consistency, Correspondence, Matcher
from vidseg_core.frame import Frame

PROTOCOL_CLIPS = "every scored frame t at each distance k = 0..i: a key frame at t - k, propagated k frames"
PROTOCOL_STREAMS = (
    "key frames depend on the past, so for each phase p = 0..i the whole sequence runs as a stream with key frames at "
    "t = p modulo i + 1, and every scored frame counts by its distance from the key frame: each distance once"
)
TIMED_LOOPS = 3
TIMED_FRAMES = 5


@dataclass(frozen=True)
class Method:
    """One way to label video.

    Attributes:
        engine: what does it; its configuration's `interval` does not matter.
        traits: what sets it apart from others, for tables: `scale`, `flow`, ...; JSON-safe.
        intervals: which to evaluate.
    """

    engine: Engine
    traits: dict
    intervals: tuple[int, ...]


@dataclass(frozen=True)
class ScoredSpan:
    """Consecutive frames of a sequence to run, and what to count on them.

    Attributes:
        sequence: whose frames.
        first, stop: positions in the sequence.
        scored: positions of the frames whose labels are compared with the truth.
        compared: positions of the frames that are compared with the one before.
    """

    sequence: Sequence
    first: int
    stop: int
    scored: frozenset[int]
    compared: frozenset[int]

    def first_key(self, interval: int) -> int:
        """Find the first key frame of the schedule on which the first scored frame is the last before a key frame."""
        return min(self.scored) - interval if self.scored else self.first


def scored_frames(video: VideoSet, distance: int) -> list[tuple[int, int]]:
    """List (sequence, position) of all labelled frames with at least `distance` frames before them.

    Raises:
        DatasetError: there is none.
    """
    labelled = [(s, t) for s, seq in enumerate(video.sequences) for t in range(len(seq)) if seq.labelled[t]]
    found = [(s, t) for s, t in labelled if t >= distance]
    if not found:
        raise DatasetError(
            f"{video.name}: expected labelled frames with {distance} frames before them, the most that one has is "
            f"{max((t for _, t in labelled), default=0)} (stills, and the first frame of a sequence, have none)"
        )
    return found


def clips(video: VideoSet, scored: list[tuple[int, int]], distance: int, whole: bool = False) -> list[ScoredSpan]:
    """Choose the spans to run so that each of `scored` gets every distance 0..`distance`.

    Args:
        scored: ascending, see `scored_frames`.
        whole: run sequences from their beginning, not only the frames needed.
    """
    found: list[ScoredSpan] = []
    for s, sequence in enumerate(video.sequences):
        positions = [t for number, t in scored if number == s]
        while positions:
            # One frame more, where there is one, so that the first scored frame can be compared with its predecessor.
            first = 0 if whole else max(0, positions[0] - distance - 1)
            end = next(
                (n for n in range(1, len(positions)) if not whole and positions[n] - distance > positions[n - 1] + 1),
                len(positions),
            )
            inside, positions = positions[:end], positions[end:]
            compared = frozenset(t for t in inside if t - first > distance)
            found.append(ScoredSpan(sequence, first, inside[-1] + 1, frozenset(inside), compared))
    return found


def frames_before(distance: int, key_delay: int | None) -> int:
    """Count the frames that a scored frame needs before it; see `evaluate`."""
    return distance if key_delay is None else 2 * distance + 1


class Score:
    """Counts of one method.

    Attributes:
        matrices: a confusion matrix for each distance.
        steady: for each distance d above 0, consistency with distance d - 1 of the frame before.
        closing: for each interval i, consistency of a key frame with distance i of the frame before.
    """

    def __init__(self, num_classes: int, distance: int, intervals: Iterable[int]):
        self.matrices = [ConfusionMatrix(num_classes) for _ in range(distance + 1)]
        self.steady = [Consistency() for _ in range(distance + 1)]
        self.closing = {i: Consistency() for i in intervals}

    def total(self, interval: int) -> ConfusionMatrix:
        """Sum the matrices of the distances up to `interval`: the mean IoU is the protocol's avg mIoU."""
        return accumulated(self.matrices[: interval + 1])

    def consistency(self, interval: int) -> float:
        """Return the temporal consistency on the schedule of `interval`, 0..1; nan if no frames were compared."""
        total = Consistency()
        for part in (*self.steady[1 : interval + 1], self.closing[interval]):
            total.merge(part)
        return total.share()

    def sum_over_processes(self) -> None:
        for part in (*self.matrices, *self.steady, *self.closing.values()):
            part.sum_over_processes()


class Pass:
    """The streams of one method that run over the same frames side by side.

    Args:
        method: whose.
        engine: the method's, perhaps sharing work with other methods', see `shared_engines`.
        distance: largest distance from a key frame.
        intervals: which intervals' figures come out of it.
        phases: which of the streams 0..distance run here.
        key_delay: how many frames later the labels of key frames come; None or 0: at once.
    """

    def __init__(
        self, method: Method, engine: Engine, distance: int, intervals: tuple[int, ...], phases: Iterable[int],
        key_delay: int | None = None,
    ):  # fmt: skip
        self.method = method
        self.intervals = intervals
        self.score = Score(len(method.engine.classes), distance, intervals)
        self.labels: dict[int, np.ndarray] = {}
        """Labels of the current frame by their distance from the key frame, as far as they are known."""
        self._previous: dict[int, np.ndarray] = {}
        self._period = distance + 1
        self._phases = tuple(phases)
        self._key_delay = key_delay
        self._engine = engine
        self._streams: dict[int, Stream] = {}

    def begin(self) -> None:
        """Forget the past: a new clip follows."""
        self._streams = {phase: self._engine.stream(key_delay=self._key_delay) for phase in self._phases}
        for stream in self._streams.values():
            stream.set_interval(self._period - 1)
        self.labels = {}

    def step(self, frame: Frame, number: int) -> None:
        """Label the frame `number` (from 0) of the clip at every distance."""
        self._previous, self.labels = self.labels, {}
        for phase, stream in self._streams.items():
            if number >= phase:
                self.labels[(number - phase) % self._period] = stream.step(frame).labels

    def compare_with_truth(self, truth: np.ndarray) -> None:
        for distance, labels in self.labels.items():
            self.score.matrices[distance].update(labels, truth)

    def compare_with_previous(self, correspondence: Correspondence) -> None:
        for distance, previous in self._previous.items():
            expected = correspondence.carry(previous)
            if distance + 1 in self.labels:
                self.score.steady[distance + 1].count(expected, self.labels[distance + 1])
            if distance in self.score.closing and 0 in self.labels:
                self.score.closing[distance].count(expected, self.labels[0])


Observer = Callable[[ScoredSpan, int, Frame, list[Pass]], None]


def run_passes(
    work: list[ScoredSpan], passes: list[Pass], observe: Observer | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> None:  # fmt: skip
    """Run all passes over all clips, side by side, and count.

    Args:
        observe: called after each frame with clip, position, frame and the passes, whose `labels` are then known.
        progress: wraps the iteration over the frames, for instance `tqdm`.

    Raises:
        DatasetError: a file cannot be read.
    """
    match = Matcher()
    previous = None
    for clip, position in progress([(each, t) for each in work for t in range(each.first, each.stop)]):
        if position == clip.first:
            for each in passes:
                each.begin()
        frame = clip.sequence.read(position)
        for each in passes:
            each.step(frame, position - clip.first)
        if position in clip.scored:
            for each in passes:
                each.compare_with_truth(frame.labels)
        if position in clip.compared:
            correspondence = match(frame.image, previous)
            for each in passes:
                each.compare_with_previous(correspondence)
        if observe is not None:
            observe(clip, position, frame, passes)
        previous = frame.image


def key_frames_depend_on_past(config: EngineConfig) -> bool:
    """Tell whether labels of a key frame are more than the network's on that frame."""
    return config.fusion


def evaluate(
    video: VideoSet, methods: list[Method], observe: Observer | None = None, split_sequences: bool = True,
    progress: Callable[[Iterable], Iterable] = iter, key_delay: int | None = None,
) -> list[tuple[Method, int, Score]]:  # fmt: skip
    """Score all methods at all their intervals, on the same frames; with several processes, each does its share.

    Args:
        video: labelled.
        observe: see `run_passes`.
        split_sequences: whether several processes may share one sequence; without, each sequence is one process's.
        progress: see `run_passes`.
        key_delay: how many frames later the labels of key frames come, no more than the smallest interval; 0 scores the
            frames that a delay scores, None all of them.

    Returns:
        (method, interval, score): for each method in turn, its intervals in turn; the same in every process.

    Raises:
        DatasetError: too few frames before the labelled ones, or a file cannot be read.
    """
    distance = max(i for method in methods for i in method.intervals)
    scored = scored_frames(video, frames_before(distance, key_delay))
    engines = shared_engines([method.engine for method in methods])
    scores: dict[tuple[int, int], Score] = {}
    for depends_on_past in (False, True):
        mine, phases = _share(scored, depends_on_past, split_sequences)
        passes = []
        for method, shared in zip(methods, engines, strict=True):
            if (key_frames_depend_on_past(method.engine.config) or key_delay is not None) != depends_on_past:
                continue
            for group in [(i,) for i in method.intervals] if depends_on_past else [method.intervals]:
                passes.append(Pass(method, shared, max(group), group, phases(max(group) + 1), key_delay))
                scores |= {(id(method), i): passes[-1].score for i in group}
        if passes:
            run_passes(clips(video, mine, distance, depends_on_past), passes, observe, progress)
        for each in passes:
            each.score.sum_over_processes()
    return [(method, i, scores[id(method), i]) for method in methods for i in method.intervals]


def _share(scored: list[tuple[int, int]], depends_on_past: bool, split_sequences: bool):
    """This process's scored frames, and which of a number of phases it runs."""
    rank, size = distributed.rank(), distributed.world_size()
    sequences = sorted({s for s, _ in scored})
    if len(sequences) >= size or not split_sequences:
        own = set(sequences[rank::size])
        return [(s, t) for s, t in scored if s in own], range
    if depends_on_past:
        return scored, lambda count: range(rank, count, size)
    return scored[len(scored) * rank // size : len(scored) * (rank + 1) // size], range


def label(
    video: VideoSet, methods: list[Method], observe: Observer | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[tuple[Method, int, Score]]:  # fmt: skip
    """Run all methods at all their intervals over whole sequences, as they would run on a vehicle; labels go unread.

    Args:
        video: with or without labels.
        observe: see `run_passes`.
        progress: see `run_passes`.

    Returns:
        As `evaluate`; of the scores only the consistency has been counted.

    Raises:
        DatasetError: a file cannot be read.
    """
    own = video.sequences[distributed.rank() :: distributed.world_size()]
    work = [ScoredSpan(sequence, 0, len(sequence), frozenset(), frozenset(range(1, len(sequence)))) for sequence in own]
    engines = shared_engines([method.engine for method in methods])
    passes = [
        Pass(method, shared, i, (i,), phases=(0,))
        for method, shared in zip(methods, engines, strict=True)
        for i in method.intervals
    ]
    run_passes(work, passes, observe, progress)
    for each in passes:
        each.score.sum_over_processes()
    return [(each.method, each.intervals[0], each.score) for each in passes]


def shared_engines(engines: list[Engine]) -> list[Engine]:
    """Return variants of the engines that compute once what several streams ask of the same frame.

    Engines share a segmenter or an updater if theirs is one object, and a flow estimator if their configurations choose
    it alike.
    """
    segmenters: dict[int, RememberedSegmenter] = {}
    flows: dict[tuple, RememberedFlow] = {}
    found = []
    for engine in engines:
        networks, config = engine.networks, engine.config
        brings_flow = config.refine_weights if config.flow == "light" and config.flow_weights is None else None
        key = (config.flow, config.flow_weights, config.flow_scale, config.dis_preset, config.grid_stride, brings_flow)
        segmenter, updater = (
            one and segmenters.setdefault(id(one), RememberedSegmenter(one, most=1, recognise=by_image))
            for one in (networks.segmenter, networks.updater)
        )
        flow = flows.setdefault(key, RememberedFlow(networks.flow))
        found.append(engine.variant(segmenter=segmenter, updater=updater, flow=flow))
    return found


def frames_per_second(method: Method, interval: int, sequence: Sequence) -> float:
    """Measure the whole loop, a key frame and `interval` others with labels at full size: the median over loops.

    Images are in memory already. Where the sequence is short it is run to and fro.
    """
    period = interval + 1
    wanted = period * max(TIMED_LOOPS, -(-TIMED_FRAMES // period))
    images = [sequence.read(t).image for t in range(min(len(sequence), wanted + period))]
    there_and_back = [*range(len(images)), *range(len(images) - 2, 0, -1)]
    frames = [Frame(images[there_and_back[k % len(there_and_back)]], k * FRAME_NS) for k in range(wanted + period)]
    stream = method.engine.stream()
    stream.set_interval(interval)
    seconds = []
    for loop in range(0, len(frames), period):
        begin = time.perf_counter()
        for frame in frames[loop : loop + period]:
            stream.step(frame)
        seconds.append(time.perf_counter() - begin)
    return period / median(seconds[1:])  # the first warms up


def accumulated(matrices: list[ConfusionMatrix]) -> ConfusionMatrix:
    """Sum confusion matrices."""
    total = ConfusionMatrix(matrices[0].num_classes)
    for matrix in matrices:
        total.merge(matrix)
    return total


def check_same_classes(classes: ClassTable, video: VideoSet) -> None:
    """Check that a network with `classes` can be scored on `video`; raises DatasetError if not."""
    if classes.names != video.classes.names:
        raise DatasetError(
            f"{video.name}: expected the network's classes ({', '.join(classes.names)}), "
            f"the data set has {', '.join(video.classes.names)}"
        )


def check_labels(
    video: VideoSet, scored: list[tuple[int, int]], every_frame: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> np.ndarray:  # fmt: skip
    """Read the labels of all scored frames, so that nothing can fail an hour into an evaluation.

    Args:
        every_frame: whether ground truth stands in for the network, so that frames without labels are of no use.
        progress: wraps the iteration over the frames, for instance `tqdm`.

    Returns:
        256, int64: pixels of each class id; void at 255.

    Raises:
        DatasetError: a label file is broken or does not fit its image, or all labels are void, or a label is missing.
    """
    if every_frame:
        for sequence in video.sequences:
            for name, labelled in zip(sequence.frames, sequence.labelled, strict=True):
                if not labelled:
                    raise DatasetError(f"{video.name}: expected ground truth for every key frame, {name} has none")
    counts = np.zeros(VOID + 1, np.int64)
    for s, t in progress(scored):
        counts += np.bincount(video.sequences[s].read(t).labels.ravel(), minlength=VOID + 1)
    if not counts[:VOID].any():
        raise DatasetError(f"{video.name}: expected labels, every pixel of the {len(scored)} labelled frames is void")
    return counts
