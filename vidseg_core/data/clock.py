"""Clocks of a recording: when the camera says a frame was taken, and when the recorder received it.

Drivers leave stamps at zero, repeat one stamp for ever, or begin with the clock of a computer that has just booted and
is set later; then the receive times are what is left. They have troubles of their own (a converter gives all messages
one receive time, a recorder falls behind and catches up), so stamps that work are not questioned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple, Protocol

SAMPLE = 20
"""Number of messages at the beginning of a topic by which its stamps are judged."""

_LATE_NS = 10 * 10**9  # a stamp may go this much further than the receive time: what came late may be followed at once
_LONGEST_PERIOD_NS = 3600 * 10**9  # no camera is slower: it was the clock that moved
_GOOD_SHARE = 3  # at least one step of so many must be good: a stamp may come twice, a clock may be set now and then
_TOO_SLOW = 100  # stamps of a wrong unit advance less than this part of the time


class Timed(Protocol):
    """A thing with two times in nanoseconds: its stamp, and when it was received (None: that is not known)."""

    @property
    def stamp_ns(self) -> int: ...

    @property
    def received_ns(self) -> int | None: ...


class Times(NamedTuple):
    """The two times of a message in nanoseconds: the stamp of its header, and when the recorder received it."""

    stamp_ns: int
    received_ns: int


class Stamp(NamedTuple):
    """The stamp of a frame.

    Attributes:
        ns: nanoseconds.
        is_own: from the header; else it goes by the receive time.
    """

    ns: int
    is_own: bool


class Clock:
    """Stamps for the messages of one topic, in the order of receipt: those of their headers, where they can be used.

    Where the headers' stamps as a whole cannot be used, stamps are receive times. Among good stamps, one of zero or the
    one of the message before once more is replaced by the receive time, moved by what stamps and receive times of this
    topic differ.

    Args:
        sample: times of the topic's first messages, for instance `SAMPLE` of them.

    Attributes:
        complaint: what is wrong with the stamps, as far as is known by now; None if nothing is.
    """

    def __init__(self, sample: Sequence[Times]):
        self.complaint = _complaint(sample)
        self._usable = self.complaint is None
        # Before the first stamp that is set, receive times are moved as it will be.
        self._offset_ns = next((times.stamp_ns - times.received_ns for times in sample if times.stamp_ns), 0)
        self._previous_ns: int | None = None

    def stamp(self, times: Times) -> Stamp:
        """Give the next message its stamp."""
        if not self._usable:
            return Stamp(times.received_ns, False)
        previous_ns, self._previous_ns = self._previous_ns, times.stamp_ns
        if times.stamp_ns and times.stamp_ns != previous_ns:
            self._offset_ns = times.stamp_ns - times.received_ns
            return Stamp(times.stamp_ns, True)
        what = "come twice" if times.stamp_ns else "are zero"
        self.complaint = self.complaint or f"some of its stamps {what}"
        return Stamp(times.received_ns + self._offset_ns, False)


def _complaint(sample: Sequence[Times]) -> str | None:
    if not sample:
        return None
    stamps = [times.stamp_ns for times in sample]
    if not any(stamps):
        return "its stamps are zero"
    steps = [pair for pair in pairwise(sample) if all(times.stamp_ns for times in pair)]
    good = sum(_advances(*pair) for pair in steps)
    if not steps or _GOOD_SHARE * good >= len(steps):
        return None
    if len(set(stamps)) == 1:
        return f"its stamps stay at {stamps[0] / 1e9:.3f} s"
    return "its stamps do not advance as time does"


def _advances(previous: Times, times: Times) -> bool:
    """Tell if the stamp went forward, about as far as the receive time did where that went forward, too."""
    stamp_ns, received_ns = times.stamp_ns - previous.stamp_ns, times.received_ns - previous.received_ns
    if stamp_ns <= 0 or received_ns <= 0:
        return stamp_ns > 0
    return received_ns / _TOO_SLOW <= stamp_ns <= received_ns + _LATE_NS


def step_ns(previous: Timed, timed: Timed) -> int | None:
    """Return the time between two consecutive frames in nanoseconds: by their stamps, else by their receive times.

    Returns:
        A positive number; None where neither says anything, as when a recording begins again or a clock was set.
    """
    step = timed.stamp_ns - previous.stamp_ns
    received = None
    if timed.received_ns is not None and previous.received_ns is not None:
        received = timed.received_ns - previous.received_ns
    limit = _LONGEST_PERIOD_NS
    if received is not None and received > 0:
        limit = min(limit, received + _LATE_NS)
    if 0 < step <= limit:
        return step
    return received if received is not None and 0 < received <= _LONGEST_PERIOD_NS else None


def period_ns(frames: Iterable[Timed]) -> int | None:
    """Return the median time between consecutive frames in nanoseconds; None if no two of them tell."""
    steps = [step for pair in pairwise(frames) if (step := step_ns(*pair)) is not None]
    return round(median(steps)) if steps else None


def played_step_ns(previous: Timed, timed: Timed, period_ns: int) -> int:
    """Return how long after `previous` to play a frame, in nanoseconds.

    Args:
        period_ns: between two frames, nominally. It takes the place of what is not known, and of a break: more than ten
            seconds and ten periods, which nobody wants to wait for.
    """
    step = step_ns(previous, timed)
    return period_ns if step is None or step > max(_LATE_NS, 10 * period_ns) else step
