"""Times in which this process did not run: stopped, starved, or held by code that keeps the interpreter to itself."""

from __future__ import annotations

from collections import deque

BEAT_S = 0.2
"""How often a thread that runs beats at least."""
_MOST_STALLS = 64


class Heartbeat:
    """Finds stalls of a thread that beats at least every `BEAT_S` while it runs.

    One thread beats; any may ask.

    Args:
        now_s: the steady clock, in seconds.
    """

    def __init__(self, now_s: float):
        self._last_s = now_s
        self._stalls: deque[tuple[float, float]] = deque(maxlen=_MOST_STALLS)  # (when it ended, seconds)

    def beat(self, now_s: float) -> None:
        """Note that the thread runs; a beat that is overdue by as much as a beat ends a stall."""
        overdue_s = now_s - self._last_s - BEAT_S
        self._last_s = now_s
        if overdue_s > BEAT_S:
            self._stalls.append((now_s, overdue_s))

    def stalled_since_s(self, begin_s: float) -> float:
        """Return for how many seconds after `begin_s` the thread did not run, stalls that have ended only."""
        return sum(min(stalled_s, end_s - begin_s) for end_s, stalled_s in tuple(self._stalls) if end_s > begin_s)
