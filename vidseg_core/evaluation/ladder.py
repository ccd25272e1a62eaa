"""Measure what a governor has to know of a network: mIoU by the size of its input, lost points by the labels' age."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from vidseg_core.engine.config import GRID_STRIDES
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.governed import SHARES
from vidseg_core.engine.protocol import capabilities
from vidseg_core.errors import ConfigError
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix
from vidseg_core.frame import Frame
from vidseg_core.models.accuracy import Accuracy

AGES = (0, 1, 2, 4, 8, 15, 30)
"""Frames since the key frame, of those that there are."""
RUNS = 8
KEY_FRAMES = 16
STRIDE_AGE = 4


def measure(
    engine: Engine, frames: Sequence[Frame], rate_hz: float, progress: Callable[[Iterable], Iterable] = iter
) -> Accuracy:
    """Measure mIoU against the frames' labels.

    Args:
        engine: with synchronous key frames and a network of ours, or one whose input has any size.
        frames: consecutive, with labels.
        rate_hz: of the frames.
        progress: wraps the iteration over what is measured, for instance `tqdm`.

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
    tasks: list[Callable[[], None]] = []
    rows: dict[float, float] = {}
    by_age: dict[float, float] = {}
    by_stride: dict[float, float] = {}

    def of_share(share: float) -> None:
        other = engine.variant(segmenter=at_share(share))
        rows[0 if rows_of is None else round(share * rows_of(size))] = _score(other, [[frame] for frame in spread])[0]

    def of_ages() -> None:
        begins = np.linspace(0, len(frames) - 1 - ages[-1], RUNS).astype(int)
        found = _score(engine, [frames[begin : begin + ages[-1] + 1] for begin in begins])
        by_age.update({round(age / rate_hz, 4): found[0] - found[age] for age in ages})

    def of_stride(stride: int) -> None:
        other = engine.variant(replace(engine.config, grid_stride=stride))
        length = min(STRIDE_AGE + 1, len(frames))
        begins = np.linspace(0, len(frames) - length, RUNS).astype(int)
        by_stride[stride] = float(np.mean(_score(other, [frames[begin : begin + length] for begin in begins])))

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


def _score(engine: Engine, runs: Iterable[Sequence[Frame]]) -> list[float]:
    """mIoU in percent by frames since the key frame, with which each run begins."""
    matrices: list[ConfusionMatrix] = []
    stream = engine.variant(replace(engine.config, interval=len(AGES) * AGES[-1])).stream()
    for run in runs:
        stream.reset()
        for age, frame in enumerate(run):
            if age == len(matrices):
                matrices.append(ConfusionMatrix(len(engine.classes)))
            assert frame.labels is not None  # `measure` has looked
            matrices[age].update(stream.step(frame).labels, frame.labels)
    return [100 * matrix.mean_iou() for matrix in matrices]
