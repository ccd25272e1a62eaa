"""Time video against the same network on every frame, both in the same runtime and in turn; for networks of any kind.

Loops of a key frame and `interval` propagated frames take turns with the same frames one by one. Frames are streets
that no network has been trained on; networks with the street's classes are scored, too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from vidseg_core import __version__
from vidseg_core.classes import load_classes
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.flow import NoFlow
from vidseg_core.evaluation.bench.against_plain import processor
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix
from vidseg_core.evaluation.metrics.distribution import distribution
from vidseg_core.frame import Frame
from vidseg_core.street import Street, StreetConfig

INTERVAL = 9
SIZE = 512, 1024
RATE_HZ = 30.0
LOOPS = 2  # of each street; before them a loop whose times do not count
STREET_CLASSES = "camvid"


def bench_every_frame(
    config: EngineConfig, interval: int = INTERVAL, size: tuple[int, int] = SIZE, rounds: int = 5,
    progress: Callable[[Iterable[int], str], Iterable[int]] = lambda items, name: items,
) -> dict[str, Any]:  # fmt: skip
    """Measure what a network takes on every frame and in a video.

    Args:
        config: chooses weights, runtime and threads; its schedule is replaced.
        interval: propagated frames between key frames, 1 or more.
        size: (H, W) of the frames.
        rounds: streets, each of which gives `LOOPS` loops.
        progress: wraps the iteration over the rounds, for instance `tqdm`.

    Returns:
        JSON-safe: `every_frame_ms`, `key_ms`, `propagated_ms` (medians), `every_frame_hz`, `video_hz` (frames per
        second of all loops), `video_vs_every_frame` (median of the loops' ratios) and its `spread`; `agreement` of both
        labels, and where the classes are the street's, `every_frame_miou`, `video_miou` (all frames of a loop) and
        `oldest_miou` (the last frames of the loops, and those same frames by the network: `oldest_every_frame_miou`),
        in percent, else None.

    Raises:
        CheckpointError, ConfigError: as `build_engine`.
    """
    config = replace(config, key_frames="sync", schedule="fixed", interval=interval)
    with build_engine(config) as engine:
        alone = engine.variant(replace(config, interval=0, fusion=False), flow=NoFlow(), refine=None, updater=None)
        streams = alone.stream, engine.stream
        names = engine.classes.names
        scores = Scores(len(names)) if names == load_classes(STREET_CLASSES).names else None
        loops: list[tuple[list[float], list[float]]] = []
        agreement: list[float] = []
        for number in progress(range(rounds), f"{size[1]} x {size[0]}"):
            frames = _street(number, size, (LOOPS + 1) * (interval + 1))
            both = [make() for make in streams]
            for k in range(LOOPS + 1):
                part = frames[k * (interval + 1) : (k + 1) * (interval + 1)]
                found: list[Any] = [None, None]
                for which in (0, 1) if (number + k) % 2 else (1, 0):
                    found[which] = [_timed(both[which], frame) for frame in part]
                if k:
                    loops.append(tuple([ms for ms, _ in one] for one in found))  # type: ignore[arg-type]
                for position, (frame, (_, plain), (_, carried)) in enumerate(zip(part, *found, strict=True)):
                    agreement.append(float(np.mean(plain == carried)))
                    if scores is not None:
                        scores.add(frame, plain, carried, oldest=position == interval)
        return _report(engine, loops, agreement, scores, interval, size, rounds)


class Scores:
    """Count right and wrong pixels of both, of all frames and of those before a key frame.

    Args:
        num_classes: of the class table.
    """

    def __init__(self, num_classes: int):
        keys = ("every_frame", "video", "oldest_every_frame", "oldest")
        self._matrices = {key: ConfusionMatrix(num_classes) for key in keys}

    def add(self, frame: Frame, plain: np.ndarray, carried: np.ndarray, oldest: bool) -> None:
        """Count a frame; labels are H x W, uint8, `plain` those of the network itself."""
        assert frame.labels is not None  # streets have them
        for key, labels in (("every_frame", plain), ("video", carried)):
            self._matrices[key].update(labels, frame.labels)
        if oldest:
            self._matrices["oldest_every_frame"].update(plain, frame.labels)
            self._matrices["oldest"].update(carried, frame.labels)

    def figures(self) -> dict[str, float]:
        """Return mIoU in percent by name."""
        return {f"{key}_miou": 100 * matrix.mean_iou() for key, matrix in self._matrices.items()}


def _street(seed: int, size: tuple[int, int], count: int) -> list[Frame]:
    street = Street(StreetConfig(seed, size[1], size[0], RATE_HZ, count))
    return [street.render(i) for i in range(count)]


def _timed(stream, frame: Frame) -> tuple[float, np.ndarray]:
    begin = time.perf_counter()
    labels = stream.step(frame).labels
    return (time.perf_counter() - begin) * 1e3, labels


def _report(
    engine: Engine, loops: list[tuple[list[float], list[float]]], agreement: list[float], scores: Scores | None,
    interval: int, size: tuple[int, int], rounds: int,
) -> dict[str, Any]:  # fmt: skip
    ratios = [sum(plain) / sum(video) for plain, video in loops]
    plain, video = ([ms for loop in loops for ms in loop[which]] for which in (0, 1))
    propagated = [ms for _, one in loops for ms in one[1:]]
    none = dict.fromkeys(("every_frame_miou", "video_miou", "oldest_every_frame_miou", "oldest_miou"))
    return {
        "version": __version__, "processor": processor(), "runtime": engine.runtimes()["segmenter"],
        "size": list(size), "interval": interval, "rounds": rounds,
        "video_vs_every_frame": statistics.median(ratios), "spread": [min(ratios), max(ratios)],
        "every_frame_ms": statistics.median(plain), "every_frame_hz": 1e3 * len(plain) / sum(plain),
        "key_ms": statistics.median(one[0] for _, one in loops),
        "propagated_ms": statistics.median(propagated),
        "propagated_p99_ms": distribution(propagated, (99,))["p99"],
        "video_hz": 1e3 * len(video) / sum(video), "agreement": statistics.mean(agreement),
        **(none if scores is None else scores.figures()), "engine": engine.describe(),
    }  # fmt: skip


def describe(report: dict[str, Any]) -> str:
    """Format the figures as text."""
    height, width = report["size"]
    lines = [
        f"{report['processor']}, {report['runtime']}, {report['engine']['num_threads']} threads, {width} x {height}",
        f"  every frame by the network  {report['every_frame_ms']:8.1f} ms a frame {report['every_frame_hz']:8.2f} Hz",
        f"  video, i = {report['interval']:<3}  key frame {report['key_ms']:8.1f} ms, propagated "
        f"{report['propagated_ms']:.1f} ms {report['video_hz']:8.2f} Hz",
        f"  video has {report['video_vs_every_frame']:.2f} times the frames per second "
        f"({report['spread'][0]:.2f} to {report['spread'][1]:.2f} in {report['rounds']} streets)",
        f"  labels of both agree on {100 * report['agreement']:.1f} % of pixels",
    ]
    if report["video_miou"] is not None:
        lines.append(
            f"  mIoU of streets: every frame {report['every_frame_miou']:.2f}, video {report['video_miou']:.2f} "
            f"({report['video_miou'] - report['every_frame_miou']:+.2f}); frames before a key frame "
            f"{report['oldest_every_frame_miou']:.2f} and {report['oldest_miou']:.2f} "
            f"({report['oldest_miou'] - report['oldest_every_frame_miou']:+.2f})"
        )
    return "\n".join(lines)
