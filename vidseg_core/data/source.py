"""Sources of frames, in order: a folder of images, a video file, a recording, the synthetic street."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vidseg_core.classes import ClassTable
from vidseg_core.errors import SourceError
from vidseg_core.frame import MIN_SIDE, Frame

DEFAULT_RATE_HZ = 30.0


class Source(ABC):
    """Frames of one camera in order. Iterating again starts again.

    A frame that cannot be read raises `SourceError` out of the iteration, or with `skip_bad` is left out and noted.

    Attributes:
        name: what to call the source; the frames' `stream`.
        rate_hz: nominal frame rate.
        size: (W, H) of the first frame; later frames may be of another size.
        classes: table of the ids in the frames' `labels`; None where frames have none.
        num_frames: how many frames there should be; None if that is not known beforehand.
        skipped: (frame name, reason) of the frames that the latest iteration left out.
    """

    def __init__(
        self, name: str, rate_hz: float, num_frames: int | None, skip_bad: bool, classes: ClassTable | None = None
    ):
        if not 0 < rate_hz < float("inf"):
            raise SourceError(f"{name}: expected a frame rate above 0 Hz, got {rate_hz}")
        self.name = name
        self.rate_hz = float(rate_hz)
        self.num_frames = num_frames
        self.classes = classes
        self.skipped: list[tuple[str, str]] = []
        self._skip_bad = skip_bad
        first = next(iter(self), None)
        if first is None:
            reason = f": {self.skipped[0][1]}" if self.skipped else ""
            raise SourceError(f"{name}: there is no frame that can be read{reason}")
        self.size = first.size[1], first.size[0]

    def __len__(self) -> int:
        """`num_frames`; raises TypeError if that is not known beforehand."""
        if self.num_frames is None:
            raise TypeError(f"the number of frames in {self.name} is not known")
        return self.num_frames

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Frame]:
        self.skipped.clear()
        for name, frame in self._read():
            if not isinstance(frame, SourceError):
                yield frame
            elif self._skip_bad:
                self.skipped.append((name, str(frame)))
            else:
                raise frame

    @abstractmethod
    def _read(self) -> Iterator[tuple[str, Frame | SourceError]]:
        """The frames by name; in the place of one that cannot be read, why."""


def checked_size(image: np.ndarray, where: str | Path) -> np.ndarray:
    """`image`, which must be at least `MIN_SIDE` pixels wide and high.

    Raises:
        SourceError: it is smaller; the message starts with `where`.
    """
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise SourceError(f"{where}: expected at least {MIN_SIDE} x {MIN_SIDE} pixels, got {width} x {height}")
    return image
