"""Measure what a governor has to know of a network: mIoU by the size of its input, lost points by the labels' age.

Labels are scored against the truth of the next frame, as they are the newest that there are until its own come
(streaming accuracy, see `evaluation.replay.live`). A larger input tells more details, but these have moved on by then:
scored against their own frame, sizes differ by three times as much as on a vehicle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

from vidseg_core.engine.config import GRID_STRIDES
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.governed import SHARES
from vidseg_core.engine.protocol import capabilities
from vidseg_core.errors import ConfigError
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix
from vidseg_core.frame import Frame
from vidseg_core.kernels.decode import decode
from vidseg_core.models.accuracy import STRIDE_ROWS, Accuracy, Updated
from vidseg_core.models.registry import registered_name

AGES = (0, 1, 2, 4, 8, 15, 30)
"""Frames since the key frame, of those that there are."""
RUNS, KEY_FRAMES = 8, 16
"""Of each drive, for ages and strides, and for sizes."""
STRIDE_RUN, STRIDE_DELAY = 8, 2
"""Frames of a run for strides, and how late labels of key frames come there: coarse ones are fused into the next."""
# Of the pixels. Rarer classes flicker: against labels of a network itself they would outweigh all that is lost.
COMMON = 0.01


def measure(
    engine: Engine,
    drives: Sequence[Sequence[Frame]],
    rate_hz: float,
    progress: Callable[[Iterable], Iterable] = iter,
    least_share: float = 0.0,
) -> Accuracy:
    """Measure mIoU against the labels of each next frame.

    Args:
        engine: with synchronous key frames and a network of ours, or one whose input has any size. What its update
            network brings, if it has one, is measured beside all else, which is measured without.
        drives: consecutive frames with labels of one or more drives, whose frames may differ in size.
        rate_hz: of the frames.
        progress: wraps the iteration over what is measured, for instance `tqdm`.
        least_share: score only classes that have this share of the labelled pixels, 0..1; 0 for all, as usual.

    Raises:
        ConfigError: a drive has fewer than two frames, some without labels, the network cannot be asked, or the update
            network is none of `EngineConfig.update_weights`.
    """
    for frames in drives:
        if len(frames) < 2 or any(frame.labels is None for frame in frames):
            raise ConfigError(f"ladder: expected two frames or more, all with labels, got {len(frames)}")
    update_weights = None if engine.networks.updater is None else engine.config.update_weights
    if engine.networks.updater is not None and update_weights is None:
        raise ConfigError("ladder: expected an update network with a name (update_weights), got one without")
    plain = engine.variant(updater=None)
    segmenter = engine.networks.segmenter
    at_share = capabilities(segmenter).at_share
    if at_share is None:
        raise ConfigError("ladder: expected synchronous key frames")
    size = drives[0][0].size
    smallest = min(frames[0].size for frames in drives)
    small = [frames for frames in drives if frames[0].size == smallest]
    rows_of = capabilities(segmenter).input_rows
    ages = [age for age in AGES if age < min(map(len, drives)) - 1]
    strides = [stride for stride in GRID_STRIDES if stride >= min(4, engine.config.stride_of(smallest))]
    shares = SHARES if rows_of is not None else (1.0,)
    common = _common(drives, len(engine.classes), least_share) if least_share else None
    tasks: list[Callable[[], None]] = []
    rows: dict[float, float] = {}
    by_age: dict[float, float] = {}
    by_age_updated: dict[float, float] = {}
    by_stride: dict[float, float] = {}  # of the drives of the smallest pictures, where it matters most

    def of_share(share: float) -> None:
        other = plain.variant(segmenter=at_share(share))
        found = _score(other, _runs(drives, KEY_FRAMES, 0), common)
        rows[0 if rows_of is None else round(share * rows_of(size))] = found[0]

    def of_ages(other: Engine, lost: dict[float, float]) -> None:
        found = _score(other, _runs(drives, RUNS, ages[-1]), common)
        lost.update({round(age / rate_hz, 4): found[0] - found[age] for age in ages})

    def of_stride(stride: int) -> None:
        other = plain.variant(replace(engine.config, grid_stride=stride))
        delay, last = min(STRIDE_DELAY, ages[-1]), min(STRIDE_RUN, len(small[0]) - 1) - 1
        found = _score(other, _runs(small, RUNS, last), common, delay)[delay:]
        by_stride[round(stride * STRIDE_ROWS / smallest[0], 2)] = float(np.mean(found))

    tasks += [lambda share=share: of_share(share) for share in shares]  # type: ignore[misc]
    tasks.append(lambda: of_ages(plain, by_age))
    if update_weights is not None:
        tasks.append(lambda: of_ages(engine, by_age_updated))
    tasks += [lambda stride=stride: of_stride(stride) for stride in strides]  # type: ignore[misc]
    for task in progress(tasks):
        task()
    best = max(by_stride.values())
    return Accuracy(
        tuple(sorted((place, round(miou, 2)) for place, miou in rows.items())),
        _lost(by_age),
        tuple((stride, round(best - miou, 2)) for stride, miou in sorted(by_stride.items())),
        update=None if update_weights is None else Updated(registered_name(update_weights), _lost(by_age_updated)),
    )


def with_own_labels(
    engine: Engine, frames: Sequence[Frame], progress: Callable[[Iterable], Iterable] = iter
) -> list[Frame]:
    """Label every frame by the segmentation network alone, at the size that suits it: the truth where there is none.

    Args:
        engine, progress: see `measure`.
        frames: their own labels, if any, are not looked at.
    """
    segmenter = engine.networks.segmenter
    half_pixel = capabilities(segmenter).half_pixel
    with torch.inference_mode():
        return [replace(frame, labels=decode(segmenter(frame), frame.size, half_pixel)) for frame in progress(frames)]


def _lost(by_age: dict[float, float]) -> tuple[tuple[float, float], ...]:
    """The points lost by age, as a record has them: never fewer than none."""
    return tuple((age, round(max(0.0, lost), 2)) for age, lost in sorted(by_age.items()))


def _runs(drives: Iterable[Sequence[Frame]], most: int, age: int) -> Iterator[Sequence[Frame]]:
    """Spread so many runs over each drive: a key frame, the frames up to `age` after it, and the next one."""
    for frames in drives:
        last = len(frames) - 2 - age
        for begin in sorted({round(place) for place in np.linspace(0, last, most)}):
            yield frames[begin : begin + age + 2]


def _common(drives: Iterable[Sequence[Frame]], num_classes: int, least_share: float) -> np.ndarray:
    """The classes with that share of the labelled pixels, or the largest one."""
    labels = [frame.labels for frames in drives for frame in frames if frame.labels is not None]
    counts = sum(np.bincount(one.ravel(), minlength=256) for one in labels)
    shares = counts[:num_classes] / max(1, np.sum(counts[:num_classes]))
    return np.flatnonzero(shares >= min(least_share, shares.max()))


def _score(engine: Engine, runs: Iterable[Sequence[Frame]], classes: np.ndarray | None, delay: int = 0) -> list[float]:
    """mIoU in percent by frames since the key frame, with which each run begins; None takes all classes.

    With a delay there are further key frames, one after the other, whose labels come so many frames late.
    """
    matrices: list[ConfusionMatrix] = []
    interval = 0 if delay else len(AGES) * AGES[-1]
    stream = engine.variant(replace(engine.config, interval=interval)).stream(key_delay=delay)
    for run in runs:
        stream.reset()
        for age, (frame, following) in enumerate(pairwise(run)):
            if age == len(matrices):
                matrices.append(ConfusionMatrix(len(engine.classes)))
            assert following.labels is not None  # `measure` has looked
            matrices[age].update(stream.step(frame).labels, following.labels)
    if classes is None:
        return [100 * matrix.mean_iou() for matrix in matrices]
    return [100 * float(np.nanmean(matrix.iou()[classes])) for matrix in matrices]
