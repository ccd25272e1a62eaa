"""Stamps of a camera's messages: repeated frames, clocks that stand still, and pauses."""

from __future__ import annotations

from dataclasses import dataclass

MOST_REPEATS = 5


class Stamps:
    """Tells a message that came twice from a camera that does not set its stamps.

    A few messages with one stamp are one frame sent several times. More of them in a row are a clock that stands still:
    then, as with stamps of zero, every message is a frame of its own.
    """

    def __init__(self):
        self._last_ns: int | None = None
        self._repeats = 0
        self.complaint: str | None = None
        """What is wrong with this camera's stamps, once that is known."""

    def is_repeated(self, stamp_ns: int) -> bool:
        """Tell if the next message, which has this stamp, is the one before it once more."""
        if stamp_ns == 0:
            self.complaint = self.complaint or "its stamps are zero"
            return False
        if stamp_ns != self._last_ns:
            self._last_ns, self._repeats = stamp_ns, 0
            return False
        self._repeats += 1
        if self._repeats <= MOST_REPEATS:
            return True
        self.complaint = self.complaint or f"its stamp stays at {stamp_ns / 1e9:.3f} s"
        return False


@dataclass(frozen=True, eq=False)
class Run:
    """Messages of a camera without a pause between them.

    Attributes:
        pause_s: the pause before the first of them, in seconds of the stamps; 0 before a camera's first.
    """

    pause_s: float = 0.0


class Runs:
    """Tells which messages of a camera belong to one run, whether they are labelled or not.

    Args:
        max_gap_s: longest distance of two stamps in a run, in seconds. One that runs back breaks no run.
    """

    def __init__(self, max_gap_s: float):
        self._max_gap_s = max_gap_s
        self._last_ns: int | None = None
        self.current = Run()
        """Of the last message."""

    def add(self, stamp_ns: int, stalled_s: float) -> Run:
        """Return the run of the next message.

        Args:
            stamp_ns: of the message.
            stalled_s: how long this process did not run since the last message, and could not receive any.
        """
        pause_s = 0.0 if self._last_ns is None else (stamp_ns - self._last_ns) / 1e9 - stalled_s
        self._last_ns = stamp_ns
        if pause_s > self._max_gap_s:
            self.current = Run(pause_s)
        return self.current
