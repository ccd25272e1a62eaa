"""Write predictions: label files, their colours, and strips of a key frame and the frames after it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from vidseg_core.classes import ClassTable
from vidseg_core.data.writers import write_image, write_labels
from vidseg_core.evaluation.distance.evaluate import ScoredSpan
from vidseg_core.evaluation.figures.tiles import tile
from vidseg_core.frame import Frame
from vidseg_core.overlay import colorize, overlay

STRIP_WIDTH = 640
STRIP_OPACITY = 0.6


class Predictions:
    """Write the labels of one method at one interval, on the schedule of `ScoredSpan.first_key`.

    Args:
        folder: gets `labels/NAME.png` (class ids), `color/NAME.png` and `seq/NAME.png`, NAME of the strip's key frame.
        classes: for the colours.
        interval: frames between two key frames.
        images: whether to write `labels/` and `color/`.
        strips: whether to write `seq/`.
    """

    def __init__(self, folder: Path, classes: ClassTable, interval: int, images: bool, strips: bool):
        self._folder, self._lut, self._period = folder, classes.lut, interval + 1
        self._images, self._strips = images, strips
        self._strip: list[np.ndarray] = []
        self._key_name = ""
        for name in ("labels", "color") * images + ("seq",) * strips:
            (folder / name).mkdir(parents=True, exist_ok=True)

    def add(self, clip: ScoredSpan, position: int, frame: Frame, by_distance: dict[int, np.ndarray]) -> None:
        """Add a frame and its known labels, by their distance from the key frame."""
        offset = position - max(clip.first, clip.first_key(self._period - 1))
        labels = by_distance.get(offset % self._period)
        if offset < 0 or labels is None:
            return
        if self._images:
            write_labels(self._folder / "labels" / f"{frame.name}.png", labels)
            write_image(self._folder / "color" / f"{frame.name}.png", colorize(labels, self._lut))
        if self._strips:
            self._extend_strip(offset % self._period, frame, labels)

    def _extend_strip(self, distance: int, frame: Frame, labels: np.ndarray) -> None:
        if distance == 0:
            self._strip, self._key_name = [], frame.name
        picture = overlay(frame.image, labels, self._lut, STRIP_OPACITY)
        height, width = labels.shape
        if width > STRIP_WIDTH:
            size = STRIP_WIDTH, round(STRIP_WIDTH * height / width)
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        self._strip.append(picture)
        if len(self._strip) == self._period:
            write_image(self._folder / "seq" / f"{self._key_name}.png", tile([self._strip]))
