"""Measure temporal consistency: agreement with the previous frame's labels, moved along by the images' motion.

For two consecutive frames, optical flow finds for each pixel of the later one where it was in the earlier one; the
label of the nearest pixel there is what is expected. Consistency is the share of valid pixels whose label is as
expected. Valid are pixels that were inside the earlier image and have a class in both frames. The flow is OpenCV's DIS,
preset medium, on the grey image at the largest of full size, half, quarter, ... with at most `MAX_PIXELS` pixels. It
does not depend on what is evaluated, so figures on the same frames compare. What comes into view changes its label
rightly and counts against every method alike, so that not even the truth reaches 100 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vidseg_core import distributed
from vidseg_core.classes import VOID

MAX_PIXELS = 600_000
DEFINITION = (
    "share of pixels whose label equals the label at their place in the previous frame (nearest neighbour, flow: "
    "OpenCV DIS medium); pixels from outside the previous image and void pixels left out"
)


@dataclass(frozen=True)
class Correspondence:
    """Places of a frame's pixels in the frame before.

    Attributes:
        x, y: H x W, float32: column and row of the nearest pixel in the previous frame, whole numbers; perhaps outside.
    """

    x: np.ndarray
    y: np.ndarray

    def carry(self, labels: np.ndarray) -> np.ndarray:
        """Move the previous frame's labels (H x W, uint8) to their new places; 255 where they come from outside."""
        return cv2.remap(labels, self.x, self.y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=VOID)


class Matcher:
    """Find correspondences between images; not for use by two threads at once."""

    def __init__(self):
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, current: np.ndarray, previous: np.ndarray) -> Correspondence:
        """Find the correspondence of two images of one size, each H x W x 3, uint8, RGB."""
        height, width = current.shape[:2]
        scale = 1.0
        while height * width * scale**2 > MAX_PIXELS:
            scale /= 2
        size = max(16, round(width * scale)), max(16, round(height * scale))
        grey = [
            cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
            for image in (current, previous)
        ]
        flow = self._dis.calc(*grey, None)
        flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
        x = np.rint(np.arange(width, dtype=np.float32) + flow[..., 0] * (width / size[0]))
        y = np.rint(np.arange(height, dtype=np.float32)[:, None] + flow[..., 1] * (height / size[1]))
        return Correspondence(x, y)


class Consistency:
    """Count valid pixels, and those that agree.

    Attributes:
        agreeing, valid: pixels.
    """

    def __init__(self, agreeing: int = 0, valid: int = 0):
        self.agreeing, self.valid = agreeing, valid

    def update(self, previous: np.ndarray, labels: np.ndarray, correspondence: Correspondence) -> None:
        """Count two consecutive frames' labels, each H x W, uint8, 255 = void."""
        self.count(correspondence.carry(previous), labels)

    def count(self, expected: np.ndarray, labels: np.ndarray) -> None:
        """Count a frame's labels against those carried to it, each H x W, uint8, 255 = void."""
        valid = (expected != VOID) & (labels != VOID)
        self.valid += int(np.count_nonzero(valid))
        self.agreeing += int(np.count_nonzero(valid & (expected == labels)))

    def merge(self, other: Consistency) -> None:
        self.agreeing += other.agreeing
        self.valid += other.valid

    def sum_over_processes(self) -> None:
        """Add the counts of the other processes, which do the same."""
        counts = distributed.sum_counts(np.array([self.agreeing, self.valid], dtype=np.int64))
        self.agreeing, self.valid = counts.tolist()

    def share(self) -> float:
        """Return the share of pixels that agree, 0..1; nan if nothing was counted."""
        return self.agreeing / self.valid if self.valid else float("nan")
