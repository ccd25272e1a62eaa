"""Run the engine on a whole source of frames: write labels and overlays, and a summary of what happened."""

from __future__ import annotations

import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

import numpy as np

from vidseg_core import __version__
from vidseg_core.classes import ClassTable
from vidseg_core.data.clock import played_step_ns
from vidseg_core.data.source import Source
from vidseg_core.data.writers import (
    VideoWriter,
    output_folder,
    write_confidence,
    write_image,
    write_json,
    write_labels,
)
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.warm_up import warm_up
from vidseg_core.errors import ConfigError
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix
from vidseg_core.evaluation.metrics.distribution import distribution
from vidseg_core.frame import Frame, Segmentation
from vidseg_core.overlay import Colours, confidence_levels, overlay

SUMMARY, VIDEO = "summary.json", "overlay.mp4"
LABELS, OVERLAY, CONFIDENCE = "labels", "overlay", "confidence"


def prepare_output(path: str | Path, overwrite: bool = False) -> Path:
    """Return the folder for the results of a run; it is made if need be.

    Nothing is deleted yet: `run` replaces the summary, the video and what has the name of one of its frames.

    Raises:
        ConfigError: it cannot be written, or holds results and `overwrite` is not set.
    """
    folder = output_folder(path)
    present = [name for name in (SUMMARY, VIDEO, LABELS, OVERLAY, CONFIDENCE) if (folder / name).exists()]
    if present and not overwrite:
        raise ConfigError(
            f"{folder}: expected a folder without results, it has {', '.join(present)}; overwrite replaces them"
        )
    return folder


def run(
    engine: Engine,
    source: Source,
    folder: Path,
    *,
    opacity: float = 0.5,
    video: bool = True,
    png: bool = True,
    max_frames: int | None = None,
    progress: Callable[[Iterable[Frame]], Iterable[Frame]] = iter,
) -> dict:
    """Label the frames of `source` and write `labels/NAME.png`, `overlay/NAME.png`, `overlay.mp4` and `summary.json`.

    An engine with `EngineConfig.confidence` has `confidence/NAME.png` written, too: H x W, 8 bit, 255 is certain.
    Ctrl-C ends the run after the frame in work, with everything complete on disk; a second one ends it at once.

    Args:
        engine: what computes the labels.
        source: what it is given.
        folder: where results go; see `prepare_output`.
        opacity: of the colours over the image, 0..1.
        video: whether to write `overlay.mp4`.
        png: whether to write `labels/` and `overlay/`.
        max_frames: stop after so many; None for all.
        progress: wraps the iteration over the frames, for instance `tqdm`.

    Returns:
        What is in `summary.json`.

    Raises:
        SourceError: a frame cannot be read; the summary of the frames before it has been written.
        ConfigError: the ego mask has another size than the frames.
        OSError: results cannot be written.
    """
    record = Record(engine.classes, source)
    stream = engine.stream()
    if video or png:
        stream.set_overlay(Colours(engine.classes.lut, opacity))
    warm_up(engine.stream(), source)
    for earlier in (SUMMARY, VIDEO):
        (folder / earlier).unlink(missing_ok=True)
    begin = time.perf_counter()
    try:
        with (
            Results(folder, engine.classes, source.rate_hz, opacity, video, png, engine.config.confidence) as results,
            Interruption() as ctrl_c,
        ):
            for frame in progress(record.timed_reading(islice(source, max_frames))):
                with record.timed("step"):
                    segmentation = stream.step(frame)
                with record.timed("write"):
                    results.write(frame, segmentation)
                record.add(frame, segmentation)
                if ctrl_c.requested:
                    record.interrupted = True
                    break
    except KeyboardInterrupt:
        record.interrupted = True
        raise
    except Exception as error:
        record.error = str(error) or type(error).__name__
        raise
    finally:
        summary = record.summary(time.perf_counter() - begin) | {"engine": engine.describe()}
        write_json(folder / SUMMARY, summary)
    return summary


class Results:
    """Write the files of a run except its summary; a context manager, on whose exit they are complete."""

    def __init__(
        self,
        folder: Path,
        classes: ClassTable,
        rate_hz: float,
        opacity: float,
        video: bool,
        png: bool,
        confidence: bool = False,
    ):
        self._folder = folder
        self._lut = classes.lut
        self._opacity = opacity
        self._png = png
        self._confidence = confidence
        self._video = VideoWriter(folder / VIDEO, rate_hz) if video else None
        self._period_ns = round(1e9 / rate_hz)
        self._previous: Frame | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Results:
        if self._png:
            (self._folder / LABELS).mkdir(exist_ok=True)
            (self._folder / OVERLAY).mkdir(exist_ok=True)
        if self._confidence:
            (self._folder / CONFIDENCE).mkdir(exist_ok=True)
        if self._video is not None:
            self._stack.enter_context(self._video)
        return self

    def __exit__(self, *exception) -> None:
        self._stack.close()

    def write(self, frame: Frame, segmentation: Segmentation) -> None:
        if segmentation.confidence is not None and self._confidence:
            levels = confidence_levels(segmentation.confidence, frame.size)
            write_confidence(self._folder / CONFIDENCE / f"{frame.name}.png", levels)
        if self._video is None and not self._png:
            return
        picture = segmentation.overlay
        if picture is None:
            picture = overlay(frame.image, segmentation.labels, self._lut, self._opacity)
        if self._video is not None:
            previous, self._previous = self._previous, frame
            self._video.write(picture, None if previous is None else played_step_ns(previous, frame, self._period_ns))
        if self._png:
            write_labels(self._folder / LABELS / f"{frame.name}.png", segmentation.labels)
            write_image(self._folder / OVERLAY / f"{frame.name}.png", picture)


class Record:
    """Record the events of a run, and the time it takes."""

    def __init__(self, classes: ClassTable, source: Source):
        self._classes = classes
        self._source = source
        self._times: dict[str, list[float]] = defaultdict(list)
        self._resets: list[dict] = []
        self._key_frames = 0
        self._frames = 0
        self._labelled = 0
        self._comparable = source.classes is not None and source.classes.names == classes.names
        self._matrix = ConfusionMatrix(len(classes))
        self.interrupted = False
        self.error: str | None = None

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self._times[stage].append((time.perf_counter() - begin) * 1e3)

    def timed_reading(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield `frames`, and note how long each took to come."""
        iterator = iter(frames)
        while True:
            begin = time.perf_counter()
            frame = next(iterator, None)
            if frame is None:
                return
            self._times["read"].append((time.perf_counter() - begin) * 1e3)
            yield frame

    def add(self, frame: Frame, segmentation: Segmentation) -> None:
        self._frames += 1
        self._key_frames += segmentation.is_key
        self._times["step_key" if segmentation.is_key else "step_propagated"].append(self._times["step"][-1])
        for stage, milliseconds in segmentation.timings.items():
            self._times[stage].append(milliseconds)
        if segmentation.reset is not None:
            self._resets.append({"frame": frame.name, "reason": segmentation.reset})
        if self._comparable and frame.labels is not None:
            self._labelled += 1
            self._matrix.update(segmentation.labels, frame.labels)

    def summary(self, wall_s: float) -> dict:
        """Return the summary, JSON-safe: times in milliseconds, rates in frames per second, IoU in 0..1."""
        step_s = sum(self._times["step"]) / 1e3
        return {
            "version": __version__,
            "source": {"name": self._source.name, "size": list(self._source.size), "rate_hz": self._source.rate_hz},
            "frames": self._frames,
            "key_frames": self._key_frames,
            "resets": self._resets,
            "skipped": [{"frame": name, "reason": reason} for name, reason in self._source.skipped],
            "interrupted": self.interrupted,
            "error": self.error,
            "frames_per_second": {"engine": _rate(self._frames, step_s), "whole": _rate(self._frames, wall_s)},
            "milliseconds": {stage: _statistics(times) for stage, times in self._times.items() if times},
            **self._accuracy(),
        }

    def _accuracy(self) -> dict:
        if not self._labelled:
            return {"labelled_frames": 0, "miou": None, "iou": None, "absent_classes": None}
        iou = dict(zip(self._classes.names, map(_number, self._matrix.iou()), strict=True))
        return {
            "labelled_frames": self._labelled,
            "miou": _number(self._matrix.mean_iou()),
            "iou": iou,
            "absent_classes": [self._classes.names[i] for i in self._matrix.absent()],
        }


class Interruption:
    """Turn Ctrl-C into `requested`, so that a loop can end after its frame; a second Ctrl-C interrupts at once.

    Outside the main thread, which alone gets signals, `requested` stays False.
    """

    def __init__(self):
        self.requested = False

    def __enter__(self) -> Interruption:
        self._installed = threading.current_thread() is threading.main_thread()
        if self._installed:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exception) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number, stack) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


def _statistics(times: list[float]) -> dict:
    found = distribution(times, (50, 95))
    return {"median": found["p50"], "p95": found["p95"], "count": len(times)}


def _rate(count: int, seconds: float) -> float | None:
    return round(count / seconds, 2) if count and seconds > 0 else None


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 5)
