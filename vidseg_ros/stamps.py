"""Stamps of a camera's messages: repeated frames, and clocks that stand still."""

from __future__ import annotations

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
