"""Ground truth that belongs to images by its stamps: a topic of a recording, or a folder of files named by stamps."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vidseg_core.classes import VOID, ClassTable
from vidseg_core.data.clock import Clock, Stamp, Times, pairs_by_receipt
from vidseg_core.data.images import encode_png, list_images
from vidseg_core.data.label_files import LABEL_SUFFIX, LOSSY_SUFFIXES, read_labels
from vidseg_core.data.labelled import existing_folder
from vidseg_core.errors import DatasetError

TOLERANCE_NS = 1_000_000
"""What a stamp may lose on its way through file names and drivers."""


@dataclass(frozen=True)
class Labels:
    """The labels of one image as they are kept.

    Attributes:
        file: a PNG file, in memory (class ids) or on disk (ids of label files).
        stamp: see `Clock`.
        received_ns: when a recorder received them; None where there was no recorder.
    """

    file: bytes | Path
    stamp: Stamp
    received_ns: int | None = None


class StampedLabels:
    """Labels by stamp; an image has those that are nearest to its stamp, if they are within `TOLERANCE_NS`.

    Where stamps cannot be used they go by receive times (see `pairs_by_receipt`). Of several with one stamp of their
    own, as when a recording was played twice, an image has those that were received nearest to it.

    Args:
        labels: all of them, in the order of receipt where they were received.
        classes: their class table.
        where: names them in messages.
        clock: what gave them their stamps; None where there was no recorder.

    Raises:
        DatasetError: there are none.
    """

    def __init__(self, labels: Sequence[Labels], classes: ClassTable, where: str, clock: Clock | None = None):
        if not labels:
            raise DatasetError(f"{where}: expected labels, there are none")
        self.classes = classes
        self.where = where
        self.clock = clock
        self._labels = labels
        self._by_stamp: dict[int, list[Labels]] = {}
        for one in labels:
            if one.stamp.is_own:
                self._by_stamp.setdefault(one.stamp.ns, []).append(one)
        self._stamps = sorted(self._by_stamp)

    def __len__(self) -> int:
        return len(self._labels)

    def at(self, stamp_ns: int, size: tuple[int, int], received_ns: int | None = None) -> np.ndarray | None:
        """Return the labels of an image by its stamp.

        Args:
            stamp_ns: of the image.
            size: (H, W) of the image.
            received_ns: when it was received; None where that is not known.

        Returns:
            H x W, uint8, 255 = void; None where it has none.

        Raises:
            DatasetError: they cannot be read, are of another size, or hold an id that the class table does not know.
        """
        nearby = bisect_left(self._stamps, stamp_ns)
        nearest = min(
            self._stamps[max(nearby - 1, 0) : nearby + 1], key=lambda stamp: abs(stamp - stamp_ns), default=None
        )
        if nearest is None or abs(nearest - stamp_ns) > TOLERANCE_NS:
            return None
        candidates = self._by_stamp[nearest]
        if received_ns is not None and len(candidates) > 1:
            candidates = sorted(candidates, key=lambda one: abs((one.received_ns or 0) - received_ns))
        return self._read(candidates[0], stamp_ns, size)

    def numbered(self, number: int, stamp_ns: int, size: tuple[int, int]) -> np.ndarray:
        """Return the labels with that number, of an image that has no stamp to find them by.

        Returns and raises:
            As `at`.
        """
        return self._read(self._labels[number], stamp_ns, size)

    def pairs(self, images_ns: Sequence[int], all_of_them: bool) -> dict[int, int]:
        """Find which labels belong to which images by receive times.

        Args:
            images_ns: when all images were received.
            all_of_them: labels may have stamps of their own; else only those that have none are looked at, since the
                others belong to images with their stamps.

        Returns:
            Number of an image -> number of its labels.
        """
        numbers = [i for i, one in enumerate(self._labels) if all_of_them or not one.stamp.is_own]
        received = [self._labels[number].received_ns or 0 for number in numbers]
        return {image: numbers[place] for image, place in pairs_by_receipt(images_ns, received).items()}

    def _read(self, labels: Labels, stamp_ns: int, size: tuple[int, int]) -> np.ndarray:
        if isinstance(labels.file, Path):
            ids = read_labels(labels.file, self.classes)
        else:
            ids = cv2.imdecode(np.frombuffer(labels.file, np.uint8), cv2.IMREAD_UNCHANGED)
        if ids.shape != size:
            raise DatasetError(
                f"{self.where}: expected labels as large as the image at {seconds(stamp_ns)} s "
                f"({size[1]} x {size[0]}), got {ids.shape[1]} x {ids.shape[0]}"
            )
        return ids


def labels_in_memory(labels: Iterable[tuple[Times, np.ndarray]], classes: ClassTable, where: str) -> StampedLabels:
    """Labels (H x W, uint8, class ids or 255) with their times, in the order of receipt, kept compressed.

    Raises:
        DatasetError: there are none, or an id is neither a class nor 255.
    """
    files, times = [], []
    for one, ids in labels:
        strange = (ids >= len(classes)) & (ids != VOID)
        if strange.any():
            raise DatasetError(
                f"{where}: expected class ids 0..{len(classes) - 1} of table {classes.name!r} or {VOID}, "
                f"got {ids[strange].max()} at {seconds(one.stamp_ns)} s"
            )
        files.append(encode_png(ids))
        times.append(one)
    clock = Clock(times)
    kept = [Labels(file, clock.stamp(one), one.received_ns) for file, one in zip(files, times, strict=True)]
    return StampedLabels(kept, classes, where, clock)


def labels_in_folder(folder: Path, classes: ClassTable) -> StampedLabels:
    """Open PNG files named by their stamps, in nanoseconds or in seconds: `1700000000050000000`, `1700000000.05`.

    Raises:
        DatasetError: it is not a folder, there are none in it, one is named otherwise, or two have one stamp.
    """
    stored: dict[int, Path] = {}
    existing_folder(folder, "PNG files named by stamps")
    # JPEGs alone are taken so that reading them says why they cannot be labels.
    for path in list_images(folder, (LABEL_SUFFIX,)) or list_images(folder, LOSSY_SUFFIXES):
        match = re.fullmatch(r"(\d+)(?:\.(\d{1,9}))?", path.stem)
        if not match:
            raise DatasetError(
                f"{path}: expected a name that is a stamp, nanoseconds or seconds with a point "
                "(1700000000050000000.png, 1700000000.05.png)"
            )
        whole, fraction = match.groups()
        stamp_ns = int(whole) if fraction is None else int(whole) * 10**9 + int(fraction.ljust(9, "0"))
        if stamp_ns in stored:
            raise DatasetError(f"{path}: expected one file for each stamp, {stored[stamp_ns].name} has the same")
        stored[stamp_ns] = path
    return StampedLabels([Labels(path, Stamp(ns, True)) for ns, path in stored.items()], classes, str(folder))


def seconds(stamp_ns: int) -> str:
    """Word a stamp in seconds, for messages."""
    return f"{stamp_ns // 10**9}.{stamp_ns % 10**9:09d}"
