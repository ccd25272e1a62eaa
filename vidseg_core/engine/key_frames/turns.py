"""Whose turn it is: a frame's, or that of the segmentation beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

# Streams without a pause between their frames must not keep it from ever getting to an end.
# The seconds are for a frame that is there when the segmentation begins.
STILL_SHARE, STILL_S = 0.75, 0.05
# What is left to do in this process takes a millisecond or two: it can wait for a pause, but not for long.
QUIET_S = 0.1


class Turns:
    """Whose turn it is: a frame's, or that of the segmentation beside it. For any number of threads.

    Args:
        stop: have the segmentation stand still.
        go: have it go on.
    """

    def __init__(self, stop: Callable[[], None], go: Callable[[], None]):
        self._stop, self._go = stop, go
        self._changed = threading.Condition()
        self._frames = 0
        self._waiting = 0
        self._begun_s: float | None = None  # when the segmentation was
        self._still_since_s: float | None = None
        self._still_s = 0.0  # in all, of this segmentation

    def frame(self) -> AbstractContextManager[None]:
        """A stream is at a frame: meanwhile the segmentation stands still, if it has not done so for too long."""
        return self._counted(frames=1)

    def waiting(self) -> AbstractContextManager[None]:
        """A stream waits for the segmentation: meanwhile it goes on in any case."""
        return self._counted(waiting=1)

    @contextmanager
    def segmentation(self) -> Iterator[None]:
        """A segmentation is under way."""
        with self._changed:
            self._begun_s, self._still_s = time.monotonic(), 0.0
            self._decide()
        try:
            yield
        finally:
            with self._changed:
                self._begun_s = None
                self._decide()

    def quiet(self, timeout_s: float = QUIET_S) -> None:
        """Return when no stream is at a frame or one waits for the segmentation, at the latest after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._frames, timeout_s)

    @contextmanager
    def _counted(self, frames: int = 0, waiting: int = 0) -> Iterator[None]:
        self._count(frames, waiting)
        try:
            yield
        finally:
            self._count(-frames, -waiting)

    def _count(self, frames: int, waiting: int) -> None:
        with self._changed:
            self._frames += frames
            self._waiting += waiting
            self._decide()
            self._changed.notify_all()

    def look(self) -> float:
        """Decide anew; return for how many seconds this segmentation has stood still."""
        with self._changed:
            self._decide()
            return self._stood_s(time.monotonic())

    def _stood_s(self, now_s: float) -> float:
        return self._still_s + (0.0 if self._still_since_s is None else now_s - self._still_since_s)

    def _decide(self) -> None:
        now_s = time.monotonic()
        is_still = self._still_since_s is not None
        stands = False
        if self._begun_s is not None and self._frames > 0 and self._waiting == 0:
            stands = self._stood_s(now_s) <= STILL_SHARE * (now_s - self._begun_s) + STILL_S
        if stands and not is_still:
            self._still_since_s = now_s
            self._stop()
        elif is_still and not stands:
            self._still_s = self._stood_s(now_s)
            self._still_since_s = None
            self._go()
