"""Measure what a governor has to know of a network: mIoU by the size of its input, lost points by the labels' age."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

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
from vidseg_core.models.accuracy import Accuracy

AGES = (0, 1, 2, 4, 8, 15, 30)
"""Frames since the key frame, of those that there are."""
RUNS = 8
KEY_FRAMES = 16
STRIDE_AGE = 4
# Of the pixels. Rarer classes flicker: against labels of a network itself they would outweigh all that is lost.
COMMON = 0.01


def measure(
    engine: Engine,
    frames: Sequence[Frame],
    rate_hz: float,
    progress: Callable[[Iterable], Iterable] = iter,
    least_share: float = 0.0,
) -> Accuracy:
    """Measure mIoU against the frames' labels.

    Args:
        engine: with synchronous key frames and a network of ours, or one whose input has any size.
        frames: consecutive, with labels.
        rate_hz: of the frames.
        progress: wraps the iteration over what is measured, for instance `tqdm`.
        least_share: score only classes that have this share of the labelled pixels, 0..1; 0 for all, as usual.

    Raises:
        ConfigError: there are fewer than two frames, some without labels, or the network cannot be asked.
    """
    if len(frames) < 2 or any(frame.labels is None for frame in frames):
        raise ConfigError(f"ladder: expected two frames or more, all with labels, got {len(frames)}")
    segmenter = engine.networks.segmenter
    at_share = capabilities(segmenter).at_share
    if at_share is None:
        raise ConfigError("ladder: expected synchronous key frames")
    size = frames[0].size
    rows_of = capabilities(segmenter).input_rows
    spread = [frames[index * len(frames) // KEY_FRAMES] for index in range(min(KEY_FRAMES, len(frames)))]
    ages = [age for age in AGES if age < len(frames)]
    strides = [stride for stride in GRID_STRIDES if stride >= min(4, engine.config.stride_of(size))]
    shares = SHARES if rows_of is not None else (1.0,)
    common = _common(frames, len(engine.classes), least_share) if least_share else None
    tasks: list[Callable[[], None]] = []
    rows: dict[float, float] = {}
    by_age: dict[float, float] = {}
    by_stride: dict[float, float] = {}

    def of_share(share: float) -> None:
        other = engine.variant(segmenter=at_share(share))
        rows[0 if rows_of is None else round(share * rows_of(size))] = _score(
            other, [[frame] for frame in spread], common
        )[0]

    def of_ages() -> None:
        begins = np.linspace(0, len(frames) - 1 - ages[-1], RUNS).astype(int)
        found = _score(engine, [frames[begin : begin + ages[-1] + 1] for begin in begins], common)
        by_age.update({round(age / rate_hz, 4): found[0] - found[age] for age in ages})

    def of_stride(stride: int) -> None:
        other = engine.variant(replace(engine.config, grid_stride=stride))
        length = min(STRIDE_AGE + 1, len(frames))
        begins = np.linspace(0, len(frames) - length, RUNS).astype(int)
        runs = [frames[begin : begin + length] for begin in begins]
        by_stride[stride] = float(np.mean(_score(other, runs, common)))

    tasks += [lambda share=share: of_share(share) for share in shares]  # type: ignore[misc]
    tasks.append(of_ages)
    tasks += [lambda stride=stride: of_stride(stride) for stride in strides]  # type: ignore[misc]
    for task in progress(tasks):
        task()
    best = max(by_stride.values())
    return Accuracy(
        tuple(sorted((place, round(miou, 2)) for place, miou in rows.items())),
        tuple((age, round(max(0.0, lost), 2)) for age, lost in sorted(by_age.items())),
        tuple((stride, round(best - miou, 2)) for stride, miou in sorted(by_stride.items())),
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


def _common(frames: Sequence[Frame], num_classes: int, least_share: float) -> np.ndarray:
    """The classes with that share of the labelled pixels, or the largest one."""
    counts = sum(np.bincount(frame.labels.ravel(), minlength=256) for frame in frames if frame.labels is not None)
    shares = counts[:num_classes] / max(1, np.sum(counts[:num_classes]))
    return np.flatnonzero(shares >= min(least_share, shares.max()))


def _score(engine: Engine, runs: Iterable[Sequence[Frame]], classes: np.ndarray | None) -> list[float]:
    """mIoU in percent by frames since the key frame, with which each run begins; None takes all classes."""
    matrices: list[ConfusionMatrix] = []
    stream = engine.variant(replace(engine.config, interval=len(AGES) * AGES[-1])).stream()
    for run in runs:
        stream.reset()
        for age, frame in enumerate(run):
            if age == len(matrices):
                matrices.append(ConfusionMatrix(len(engine.classes)))
            assert frame.labels is not None  # `measure` has looked
            matrices[age].update(stream.step(frame).labels, frame.labels)
    if classes is None:
        return [100 * matrix.mean_iou() for matrix in matrices]
    return [100 * float(np.nanmean(matrix.iou()[classes])) for matrix in matrices]
