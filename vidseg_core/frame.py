"""Input and output of a stream: frames and their segmentations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MIN_SIDE = 64
MOST_JITTER_NS = 100_000_000
"""How far a stamp may lie before the newest one of its camera, in nanoseconds, and be jitter of a clock, or a frame
that another overtook. Further back, time begins again, as in a recording that is played once more."""


@dataclass(frozen=True)
class Frame:
    """One camera image.

    Attributes:
        image: H x W x 3, uint8, RGB. Rows may be padded (any strides along y).
        stamp_ns: time of exposure in nanoseconds.
        stream: which camera it came from; one `Stream` processes frames of one camera only.
        name: what to call the frame in file names and messages.
        labels: H x W, uint8, ground truth where the source knows it (255 = void). No network sees it.
        flow: H x W x 2, float32, exact flow in pixels from this frame to the one before, where the source knows it.
        received_ns: when a recorder received it, nanoseconds of the recorder's clock; None where that is not known.
        pixels: the image on the device of the engine that sees the frame, set by the engine; None elsewhere and on the
            CPU.
        pause_s: longest pause in which the camera sent nothing, since the frame that the stream got before this one; in
            seconds. None where the stream gets every frame, and stamps tell.
    """

    image: np.ndarray
    stamp_ns: int
    stream: str = ""
    name: str = ""
    labels: np.ndarray | None = None
    flow: np.ndarray | None = None
    received_ns: int | None = None
    pause_s: float | None = None
    pixels: Any = None

    def __post_init__(self):
        image = self.image
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            came = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ValueError(f"frame {self.name!r}: expected an H x W x 3 uint8 image, got {came}")
        if min(image.shape[:2]) < MIN_SIDE:
            raise ValueError(
                f"frame {self.name!r}: expected an image of at least {MIN_SIDE} x {MIN_SIDE} pixels, "
                f"got {image.shape[1]} x {image.shape[0]}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True)
class Segmentation:
    """The labels of one frame. Its arrays are its own: no later frame overwrites them.

    Attributes:
        labels: H x W, uint8, class ids 0..254; 255 where the ego mask says void.
        stamp_ns: the stamp of the frame, unchanged.
        is_key: whether the labels are fresh from a key frame: this frame itself, or with asynchronous key frames the
            one `age` frames ago, whose segmentation has come to its end by now.
        age: number of frames since the key frame that the labels come from.
        reason: why that was a key frame, if the labels are fresh; else "propagated".
        reset: why the stream forgot its past before this frame; None if it did not.
        timings: milliseconds per stage, of what this frame had to wait for.
        confidence: h x w, float32 in 0..1, the largest softmax probability on the grid; None unless asked for.
        evidence_ns: stamp of the newest frame that a network has seen for these labels; None stands for this frame.
        probabilities: h x w x C, float32, of each class on the grid, 0 where the ego mask says void; None unless asked
            for.
        overlay: H x W x 3, uint8, RGB: the image under the labels' colours; None unless asked for, and on the CPU,
            where it is left to whoever shows it (`vidseg_core.overlay`).
    """

    labels: np.ndarray
    stamp_ns: int
    is_key: bool
    age: int
    reason: str
    reset: str | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    confidence: np.ndarray | None = None
    evidence_ns: int | None = None
    probabilities: np.ndarray | None = None
    overlay: np.ndarray | None = None

    @property
    def age_s(self) -> float:
        """Return how old the evidence for the labels is, 0 or more, in seconds of the camera's stamps."""
        return 0.0 if self.evidence_ns is None else max(0, self.stamp_ns - self.evidence_ns) / 1e9
