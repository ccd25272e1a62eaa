"""Clocks of a recording: when the camera says a frame was taken, and when the recorder received it.

Drivers leave stamps at zero, repeat one stamp for ever, or begin with the clock of a computer that has just booted and
is set later; then the receive times are what is left. They have troubles of their own (a converter gives all messages
one receive time, a recorder falls behind and catches up), so stamps that work are not questioned.
"""

from __future__ import annotations

from bisect import bisect_left
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
        complaint: the first thing that is wrong with the stamps and what is done about it; None if nothing is by now.
        is_usable: stamps are those of the headers, but for single ones.
    """

    def __init__(self, sample: Sequence[Times]):
        fault = _fault(sample)
        self.is_usable = fault is None
        self.complaint = None if fault is None else f"{fault}; receive times take their place"
        # Before the first stamp that is set, receive times are moved as it will be.
        self._offset_ns = next((times.stamp_ns - times.received_ns for times in sample if times.stamp_ns), 0)
        self._previous: Times | None = None

    def stamp(self, times: Times) -> Stamp:
        """Give the next message its stamp."""
        if not self.is_usable:
            return Stamp(times.received_ns, False)
        previous, self._previous = self._previous, times
        is_again = previous is not None and times.stamp_ns == previous.stamp_ns
        if times.stamp_ns == 0 or is_again:
            what = "come again" if times.stamp_ns else "are zero"
            self.complaint = self.complaint or f"some of its stamps {what}; receive times take their place"
            return Stamp(times.received_ns + self._offset_ns, False)
        if previous is not None and previous.stamp_ns and _jumps(previous, times):
            jump_s = (times.stamp_ns - previous.stamp_ns) / 1e9
            self.complaint = self.complaint or f"its stamps jump by {jump_s:.3f} s, the receive times do not"
        self._offset_ns = times.stamp_ns - times.received_ns
        return Stamp(times.stamp_ns, True)


def _fault(sample: Sequence[Times]) -> str | None:
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
    return received_ns / _TOO_SLOW <= stamp_ns and not _jumps(previous, times)


def _jumps(previous: Times, times: Times) -> bool:
    """Tell if the stamp went backward, or much further than the receive time did."""
    stamp_ns, received_ns = times.stamp_ns - previous.stamp_ns, times.received_ns - previous.received_ns
    return stamp_ns < 0 or (received_ns > 0 and stamp_ns > received_ns + _LATE_NS)


def pairs_by_receipt(images: Sequence[int], labels: Sequence[int]) -> dict[int, int]:
    """Find which labels belong to which images where stamps do not tell, by when both were received.

    As many labels as images, always about as late, belong to them in turn. Else a pair are those that are nearest to
    each other, up to a quarter of a frame period: rather none than another image's.

    Args:
        images: when the images were received, nanoseconds, ascending.
        labels: when the labels were.

    Returns:
        Number of an image -> number of its labels.
    """
    steps = [after - before for before, after in pairwise(images) if after > before]
    period = median(steps) if steps else 0
    late = [label - image for image, label in zip(images, labels, strict=False)]
    if late and len(images) == len(labels) and max(late) - min(late) <= period / 2:
        return {number: number for number in range(len(images))}
    pairs = {}
    for number, label in enumerate(labels if period else ()):
        image = _nearest(images, label)
        if abs(images[image] - label) <= period / 4 and _nearest(labels, images[image]) == number:
            pairs[image] = number
    return pairs


def _nearest(times: Sequence[int], time: int) -> int:
    """The number of the one of ascending times that is nearest."""
    after = bisect_left(times, time)
    return min(range(max(after - 1, 0), min(after + 1, len(times))), key=lambda number: abs(times[number] - time))


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
