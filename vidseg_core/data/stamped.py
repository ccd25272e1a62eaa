"""Ground truth that belongs to images by its stamps: a topic of a recording, or a folder of files named by stamps."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from vidseg_core.classes import VOID, ClassTable
from vidseg_core.data.images import encode_png, list_images, read_ids
from vidseg_core.data.labelled import existing_folder
from vidseg_core.errors import DatasetError

TOLERANCE_NS = 1_000_000
"""What a stamp may lose on its way through file names and drivers."""


class StampedLabels:
    """Labels by stamp; an image has those that are nearest to its stamp, if they are within `TOLERANCE_NS`.

    Args:
        stored: for each stamp in nanoseconds a PNG file, in memory (class ids) or on disk (ids of label files).
        classes: their class table.
        where: names them in messages.

    Raises:
        DatasetError: there are none.
    """

    def __init__(self, stored: dict[int, bytes | Path], classes: ClassTable, where: str):
        if not stored:
            raise DatasetError(f"{where}: expected labels, there are none")
        self.classes = classes
        self.stamps = sorted(stored)
        self.where = where
        self._stored = stored

    def __len__(self) -> int:
        return len(self.stamps)

    def at(self, stamp_ns: int, size: tuple[int, int]) -> np.ndarray | None:
        """The labels of an image of `size` (H, W): uint8, 255 = void; None where it has none.

        Raises:
            DatasetError: they cannot be read, are of another size, or hold an id that the class table does not know.
        """
        nearby = bisect_left(self.stamps, stamp_ns)
        nearest = min(self.stamps[max(nearby - 1, 0) : nearby + 1], key=lambda stamp: abs(stamp - stamp_ns))
        if abs(nearest - stamp_ns) > TOLERANCE_NS:
            return None
        stored = self._stored[nearest]
        if isinstance(stored, Path):
            labels = self.classes.read_ids(read_ids(stored, DatasetError), stored)
        else:
            labels = cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_UNCHANGED)
        if labels.shape != size:
            raise DatasetError(
                f"{self.where}: expected labels as large as the image at {seconds(stamp_ns)} s "
                f"({size[1]} x {size[0]}), got {labels.shape[1]} x {labels.shape[0]}"
            )
        return labels


def labels_in_memory(labels: Iterable[tuple[int, np.ndarray]], classes: ClassTable, where: str) -> StampedLabels:
    """Labels (stamp in nanoseconds; H x W, uint8, class ids or 255), kept compressed.

    Raises:
        DatasetError: there are none, or an id is neither a class nor 255.
    """
    stored = {}
    for stamp_ns, ids in labels:
        strange = (ids >= len(classes)) & (ids != VOID)
        if strange.any():
            raise DatasetError(
                f"{where}: expected class ids 0..{len(classes) - 1} of table {classes.name!r} or {VOID}, "
                f"got {ids[strange].max()} at {seconds(stamp_ns)} s"
            )
        stored[stamp_ns] = encode_png(ids)
    return StampedLabels(stored, classes, where)


def labels_in_folder(folder: Path, classes: ClassTable) -> StampedLabels:
    """PNG files named by their stamps: `1700000000050000000.png` (nanoseconds) or `1700000000.050000000.png` (seconds).

    Raises:
        DatasetError: it is not a folder, there are none in it, or one is named otherwise.
    """
    stored = {}
    for path in list_images(existing_folder(folder, "PNG files named by stamps"), (".png",)):
        match = re.fullmatch(r"(\d+)(?:\.(\d{1,9}))?", path.stem)
        if not match:
            raise DatasetError(
                f"{path}: expected a name that is a stamp, nanoseconds or seconds with a point "
                "(1700000000050000000.png, 1700000000.05.png)"
            )
        whole, fraction = match.groups()
        stored[int(whole) if fraction is None else int(whole) * 10**9 + int(fraction.ljust(9, "0"))] = path
    return StampedLabels(stored, classes, str(folder))


def seconds(stamp_ns: int) -> str:
    """For messages."""
    return f"{stamp_ns // 10**9}.{stamp_ns % 10**9:09d}"
