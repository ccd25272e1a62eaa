"""Film and schedule of a camera player: frames ready to be sent, in memory as far as they fit."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from vidseg_core.data.clock import played_step_ns
from vidseg_core.data.source import Source
from vidseg_core.errors import SourceError
from vidseg_core.frame import Frame

LONGEST_JPEG_SIDE = 65500
READ_AHEAD = 16
"""Frames that are read ahead of a film that is too long for the memory."""


@dataclass(frozen=True)
class Shot:
    """One frame, ready to be sent.

    Attributes:
        picture: H x W x 3, uint8, RGB, contiguous; or a JPEG file.
        size: (H, W) of the picture.
        stamp_ns: the source's.
        labels: H x W, uint8, contiguous: ground truth; None where the source has none.
        received_ns: when a recorder received the frame; None where that is not known.
    """

    picture: np.ndarray | bytes
    size: tuple[int, int]
    stamp_ns: int
    labels: np.ndarray | None
    received_ns: int | None = None

    @property
    def num_bytes(self) -> int:
        picture = len(self.picture) if isinstance(self.picture, bytes) else self.picture.nbytes
        return picture + (0 if self.labels is None else self.labels.nbytes)


def develop(frame: Frame, jpeg_quality: int | None = None) -> Shot:
    """Make the frame a shot: as it is, or as a JPEG of that quality (1..100)."""
    picture = np.ascontiguousarray(frame.image) if jpeg_quality is None else encode_jpeg(frame.image, jpeg_quality)
    labels = None if frame.labels is None else np.ascontiguousarray(frame.labels)
    return Shot(picture, frame.size, frame.stamp_ns, labels, frame.received_ns)


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """Encode H x W x 3 uint8 RGB as a JPEG file.

    Raises:
        SourceError: the picture is larger than a JPEG may be.
    """
    height, width = image.shape[:2]
    if max(height, width) > LONGEST_JPEG_SIDE:
        raise SourceError(f"a JPEG has at most {LONGEST_JPEG_SIDE} pixels a side, got {width} x {height}")
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


class Film:
    """The shots of a source. What fits into memory is read when the film is made, so that playing it costs nothing.

    Args:
        source: where frames come from.
        jpeg_quality: make JPEGs of them; None leaves them as they are.
        memory_bytes: what may be held of them; at least one shot is.
        progress: wraps the iteration over the frames that are read beforehand, for instance `tqdm`.

    Raises:
        SourceError, DatasetError: a frame or its labels cannot be read.
    """

    def __init__(
        self,
        source: Source,
        *,
        jpeg_quality: int | None = None,
        memory_bytes: int,
        progress: Callable[[Iterable[Shot]], Iterable[Shot]] = iter,
    ):
        self._source = source
        self._jpeg_quality = jpeg_quality
        self._beginning: list[Shot] = []
        self._rest: Iterator[Shot] | None = self._read()
        held = 0
        for shot in progress(self._rest):
            self._beginning.append(shot)
            held += shot.num_bytes
            if held >= memory_bytes:
                break
        else:
            self._rest = None

    @property
    def is_whole(self) -> bool:
        """Tell if all of it is in memory."""
        return self._rest is None

    @property
    def num_held(self) -> int:
        """Count the shots in memory."""
        return len(self._beginning)

    def shots(self, loop: bool = False) -> Iterator[Shot]:
        """Yield the shots once from the beginning to the end, or again and again.

        Raises:
            SourceError, DatasetError: a frame that was not read beforehand, or its labels, cannot be read.
        """
        yield from self._first_showing()
        while loop:
            yield from self._beginning if self.is_whole else read_ahead(self._read())

    def _first_showing(self) -> Iterator[Shot]:
        if self.is_whole:
            yield from self._beginning
            return
        rest = read_ahead(self._rest)
        while self._beginning:  # what has been shown makes room
            yield self._beginning.pop(0)
        yield from rest

    def _read(self) -> Iterator[Shot]:
        for frame in self._source:
            yield develop(frame, self._jpeg_quality)


def read_ahead(shots: Iterable[Shot], num_shots: int = READ_AHEAD) -> Iterator[Shot]:
    """Yield the same shots; a thread, which starts now, reads the next ones meanwhile.

    Raises:
        What reading them raises, in its turn.
    """
    waiting: queue.Queue[Shot | Exception | None] = queue.Queue(num_shots)

    def read() -> None:
        try:
            for shot in shots:
                waiting.put(shot)
            waiting.put(None)
        except Exception as error:  # raised again where it is waited for
            waiting.put(error)

    # A daemon: whoever stops in the middle leaves it waiting for room.
    threading.Thread(target=read, name="read-ahead", daemon=True).start()

    def deliver() -> Iterator[Shot]:
        while (shot := waiting.get()) is not None:
            if isinstance(shot, Exception):
                raise shot
            yield shot

    return deliver()


def schedule(shots: Iterable[Shot], rate_hz: float, by_stamps: bool) -> Iterator[tuple[int, Shot]]:
    """Yield each shot with the time when it is due, in ns since the first: absolute, so that no error adds up.

    Args:
        rate_hz: nominal frame rate.
        by_stamps: keep the source's own distances, by stamps and receive times; the nominal one takes the place of
            breaks, as at the seam of a loop or where a clock was set (see `played_step_ns`).
    """
    period_ns = round(1e9 / rate_hz)
    due_ns, previous = 0, None
    for index, shot in enumerate(shots):
        if not by_stamps:
            due_ns = round(index * 1e9 / rate_hz)
        elif previous is not None:
            due_ns += played_step_ns(previous, shot, period_ns)
        previous = shot
        yield due_ns, shot
