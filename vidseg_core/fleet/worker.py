"""Do the work of one place: inspect recordings, compute segments. Knows nothing of Ray.

An engine is built with the first segment and used for all others; the recording that was worked on last stays open.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import zstandard

from vidseg_core import __version__
from vidseg_core.classes import VOID
from vidseg_core.data.bag import BagSource, bag_labels, truth_topic
from vidseg_core.data.open import find_bag
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.engine import Engine
from vidseg_core.errors import ConfigError, SourceError
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix
from vidseg_core.evaluation.page import jpeg
from vidseg_core.evaluation.replay.modes import in_mode
from vidseg_core.evaluation.replay.replay import Footage, offline
from vidseg_core.fleet.collect import stored_of
from vidseg_core.fleet.columns import COLUMNS
from vidseg_core.fleet.content import content_of
from vidseg_core.fleet.files import Files
from vidseg_core.fleet.inputs import Fetcher
from vidseg_core.fleet.labels import target_of, write_drive
from vidseg_core.fleet.plan import Choices, Drive, Segment, pauses
from vidseg_core.fleet.task import SEEN, Task
from vidseg_core.frame import Frame, Segmentation

PICTURE_WIDTH = 320
PICTURE_QUALITY = 80
MARK = (210, 20, 20)
LABELS_LEVEL = 3
"""Of Zstandard, for stored labels."""


class Worker:
    """Compute what it is asked for, one thing at a time.

    Args:
        task: what is computed.
        files: of the configuration.
        cpus: number of threads.

    Raises:
        ConfigError: this machine does not see the folder of results.
    """

    def __init__(self, task: Task, files: Files, cpus: int):
        self._task = task
        self._choices = task.choices
        self._files = files
        self._cpus = cpus
        self._store = task.store
        self._fetcher = Fetcher()
        self._engine: Engine | None = None
        self._opened: tuple[tuple, BagSource] | None = None
        self._sizes: set[tuple[int, int]] = set()
        self._check(task)

    @staticmethod
    def _check(task: Task) -> None:
        try:
            found = (task.out / SEEN).read_text(encoding="utf-8")
        except OSError as error:
            found = str(error)
        if found != task.seen:
            raise ConfigError(
                f"{task.out}: expected a folder that all machines see, {socket.gethostname()} does not see what the "
                f"driver has written into it ({found})"
            )

    def about(self) -> dict:
        """Describe this worker: its machine, its process, and the version of vidseg."""
        return {"node": socket.gethostname(), "pid": os.getpid(), "version": __version__}

    def inspect(self, place: str) -> list[Drive]:
        """Look which of a recording's topics are worked on, and how long they are.

        Raises:
            SourceError: it cannot be read, or has no such topic.
        """
        return inspect(place, self._path(place), self._choices)

    def compute(self, segment: Segment) -> dict:
        """Compute a segment and store what comes out.

        Returns:
            `seconds` that it took, and the `frames` that were stepped over, those of the lead included.

        Raises:
            SourceError: nothing of the recording can be read.
            OSError: results cannot be written.
        """
        begin = time.perf_counter()
        source = self._source(segment)
        part = source.part(segment.begin, segment.stop)
        work = self._replay if self._choices.kind == "replay" else self._label
        meta, arrays = work(segment, Footage(part, self._choices.size))
        seconds = time.perf_counter() - begin
        meta |= {
            "place": segment.drive.place,
            "topic": segment.drive.topic,
            "index": segment.index,
            "begin": segment.begin,
            "first": segment.first,
            "stop": segment.stop,
            "skipped": len(part.skipped),
            "seconds": round(seconds, 4),
            "node": socket.gethostname(),
        }
        self._store.save(segment.address, meta, arrays)
        return {"seconds": seconds, "frames": segment.stop - segment.begin}

    def describe(self) -> dict:
        """Describe what computes the labels, JSON-safe."""
        return self._built().describe()

    def finish(self, drive: Drive) -> list[str]:
        """Put the labels of a drive's segments together into what was asked for.

        Returns:
            What is wrong with it, as that it ends early.

        Raises:
            ConfigError: it cannot be written, or is there already.
        """
        errors: list[str] = []
        segments = self._task.segments(drive)
        several = len(self._choices.topics or ()) > 1
        form = self._choices.form
        target = target_of(drive.place, form, self._task.labels_folder, drive.topic if several else "")
        stored = stored_of(segments, self._store, errors)
        write_drive(self._path(drive.place), drive, form, target, stored, self._task.marker(drive))
        for segment in segments:
            self._store.remove(segment.address)
        return errors

    def _path(self, place: str) -> Path:
        return found(place, self._fetcher.fetch(place))

    def _built(self) -> Engine:
        if self._engine is None:
            config = self._files.unpacked(self._choices.config)
            self._engine = build_engine(replace(config, num_threads=self._cpus))
        return self._engine

    def _source(self, segment: Segment) -> BagSource:
        drive = segment.drive
        key = drive.place, drive.content, drive.topic, drive.truth
        if self._opened is None or self._opened[0] != key:
            self._opened = None  # so that two are never held
            path = self._path(drive.place)
            truth = None if drive.truth is None else bag_labels(path, drive.truth, self._built().classes)
            source = BagSource(path, topic=drive.topic, skip_bad=self._choices.skip_bad, labels=truth)
            self._opened = key, source
        return self._opened[1]

    def _counts(self, segment: Segment) -> Callable[[Frame], bool]:
        return lambda frame: int(frame.name) >= segment.first

    def _replay(self, segment: Segment, footage: Footage) -> tuple[dict, dict[str, np.ndarray]]:
        engine = self._built()
        seen = _Observer(engine, self._choices.look_every)
        every = offline(
            engine,
            footage,
            observe=seen.add,
            counts=self._counts(segment),
            warm=self._source(segment).size in self._sizes,
        )
        self._sizes.add(self._source(segment).size)
        meta = {
            "error": footage.error,
            "period_ns": every.period_ns if every.steps_ns else None,
            "reasons": dict(every.reasons),
            "resets": every.resets,
            "agreeing": every.consistency.agreeing,
            "valid": every.consistency.valid,
            "classes": list(engine.classes.names),
            "table": engine.classes.to_dict(),
            "size": list(every.samples[0].frame.size) if every.samples else None,
        }
        arrays = {"truth": every.matrix.all_counts, "per_frame": seen.against.all_counts, **seen.columns()}
        if seen.worst is not None:
            worst = seen.worst
            meta["worst"] = {"frame": worst.frame.name, "stamp_ns": worst.frame.stamp_ns, "differing": worst.share}
            image = worst.frame.image
            shown: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
                "labels": (image, worst.labels),
                "looked": (image, worst.per_frame),
                "differing": (marked(image, worst.labels != worst.per_frame), None),
            }
            if worst.frame.labels is not None:
                shown["truth"] = image, worst.frame.labels
            for name, (picture, labels) in shown.items():
                drawn = jpeg(picture, labels, engine.classes, PICTURE_WIDTH, PICTURE_QUALITY)
                arrays[f"picture_{name}"] = np.frombuffer(drawn, np.uint8)
        return meta, arrays

    def _label(self, segment: Segment, footage: Footage) -> tuple[dict, dict[str, np.ndarray]]:
        """Labels of a segment, each compressed by Zstandard, one behind the other."""
        stream, packer, counts = self._built().stream(), zstandard.ZstdCompressor(LABELS_LEVEL), self._counts(segment)
        columns: dict[str, list[int]] = {name: [] for name in ("number", "stamp_ns", "received_ns", "height", "width")}
        packed: list[bytes] = []
        for frame in footage:
            labels = stream.step(frame).labels
            if counts(frame):
                row = int(frame.name), frame.stamp_ns, frame.received_ns, *labels.shape
                for values, value in zip(columns.values(), row, strict=True):
                    values.append(value)
                packed.append(packer.compress(labels.tobytes()))
        arrays = {name: np.array(values, np.int64) for name, values in columns.items()}
        arrays["end"] = np.cumsum([len(one) for one in packed], dtype=np.int64)
        arrays["labels"] = np.frombuffer(b"".join(packed), np.uint8)
        return {"error": footage.error}, arrays


def found(place: str, path: Path) -> Path:
    """Return the path by which a recording is opened.

    Raises:
        SourceError: there is none.
    """
    bag = find_bag(path) if path.exists() else None
    if bag is None:
        raise SourceError(f"{place}: expected a recording: an .mcap, .db3 or .bag file, or the folder of one")
    return bag


def inspect(place: str, path: Path, choices: Choices) -> list[Drive]:
    """Look which of a recording's topics are worked on, and how long they are.

    Args:
        place: of the recording.
        path: on this machine, see `found`.
        choices: say which.

    Raises:
        SourceError: it cannot be read, or has no such topic.
    """
    content = content_of(path)
    drives = []
    for wanted in choices.topics or (None,):
        source = BagSource(path, topic=wanted, skip_bad=True)
        truth = None
        if choices.kind == "replay" and choices.labels != "none":
            truth = choices.labels or truth_topic(path, source.topic)
        breaks = pauses(source.received(), choices.config.max_gap_s)
        drives.append(Drive(place, content, source.topic, truth, len(source), source.rate_hz, breaks))
    return drives


def marked(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw an image (H x W x 3, uint8, RGB) in pale grey, and the pixels of a mask (H x W, bool) in red."""
    grey = 128 + image.mean(axis=2) / 2
    drawn = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
    drawn[mask] = MARK
    return drawn


@dataclass(frozen=True)
class _Looked:
    """A frame at which the per-frame network looked.

    Attributes:
        share: of the pixels for which it says something else, in percent.
    """

    frame: Frame
    labels: np.ndarray
    per_frame: np.ndarray
    share: float


class _Observer:
    """Write down each frame of a segment, and compare some with what the per-frame network says of them.

    Attributes:
        against: labels against those of the per-frame network.
        worst: where they differ most; None if it looked at none.
    """

    def __init__(self, engine: Engine, every: int):
        self.against = ConfusionMatrix(len(engine.classes))
        self.worst: _Looked | None = None
        self._per_frame = in_mode(engine, "per_frame").stream()
        self._every = every
        self._rows: list[tuple[int, ...]] = []

    def add(self, frame: Frame, segmentation: Segmentation) -> None:
        number, labels = int(frame.name), segmentation.labels
        labelled, right = (-1, -1) if frame.labels is None else _compared(labels, frame.labels)
        looked, same = -1, -1
        if number % self._every == 0:
            self._per_frame.reset()
            per_frame = self._per_frame.step(frame).labels
            self.against.update(labels, per_frame)
            looked, same = _compared(labels, per_frame)
            share = 100 * (looked - same) / looked if looked else 0.0
            if self.worst is None or share > self.worst.share:
                self.worst = _Looked(frame, labels, per_frame, round(share, 4))
        row = number, frame.stamp_ns, segmentation.is_key, segmentation.age, labelled, right, looked, same
        self._rows.append(row)

    def columns(self) -> dict[str, np.ndarray]:
        values = np.array(self._rows, np.int64).reshape(-1, len(COLUMNS))
        return {name: values[:, i].astype(kind) for i, (name, kind) in enumerate(COLUMNS.items())}


def _compared(labels: np.ndarray, reference: np.ndarray) -> tuple[int, int]:
    known = reference != VOID
    return int(np.count_nonzero(known)), int(np.count_nonzero(known & (labels == reference)))
