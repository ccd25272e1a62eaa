"""Frames of several cameras that belong together: found by their stamps, processed as a set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from std_msgs.msg import Header

from vidseg_core.errors import ConfigError
from vidseg_core.frame import MOST_JITTER_NS
from vidseg_ros.diagnostics import Statistics
from vidseg_ros.mailbox import Letter, Mailbox

MOST_WAITING = 5
"""Messages of one camera that wait for the others': more than one for cameras that are not equally far away."""


class Sender(Protocol):
    """A camera whose messages are put together with others'."""

    statistics: Statistics


@dataclass(frozen=True, eq=False)
class Waiting:
    """A letter as message_filters wants it: with the header of its message."""

    header: Header
    camera: Sender
    letter: Letter


class Synchronizer:
    """Collects sets with message_filters' `ApproximateTimeSynchronizer` and leaves them in the mailbox, newest wins.

    For one thread. A camera whose stamps jump back, as when a recording begins again, makes everything that waits
    worthless: the library keeps the highest stamps, and would throw away all new ones.

    Args:
        cameras: at least two.
        mailbox: where sets wait for the worker.
        slop_s: a set's stamps are less than this apart.

    Raises:
        ConfigError: fewer than two cameras, or message_filters is not installed.
    """

    def __init__(self, cameras: Sequence[Sender], mailbox: Mailbox, slop_s: float):
        if len(cameras) < 2:
            raise ConfigError(f"sync: approximate: expected two or more cameras, got {len(cameras)}")
        try:
            import message_filters
        except ImportError as error:
            raise ConfigError(
                "sync: approximate: needs the package message_filters, which is not installed "
                "(apt install ros-$ROS_DISTRO-message-filters)"
            ) from error
        self._filters = message_filters
        self._cameras = tuple(cameras)
        self._mailbox = mailbox
        self._slop_s = slop_s
        self._begin()

    def add(self, header: Header, camera: Sender, letter: Letter) -> None:
        """Take a message of a camera; if it completes a set, that goes into the mailbox.

        Args:
            header: of the message; its stamp is not negative.
        """
        stamp_ns = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
        if stamp_ns < self._newest_ns.get(camera, stamp_ns) - MOST_JITTER_NS:
            self._begin()
        self._newest_ns[camera] = max(stamp_ns, self._newest_ns.get(camera, stamp_ns))
        self._inputs[camera].signalMessage(Waiting(header, camera, letter))

    def _begin(self) -> None:
        """Forget all that waits."""
        self._newest_ns: dict[Sender, int] = {}
        self._inputs = {camera: self._filters.SimpleFilter() for camera in self._cameras}
        inputs = list(self._inputs.values())
        found = self._filters.ApproximateTimeSynchronizer(inputs, MOST_WAITING, self._slop_s)
        found.registerCallback(self._on_set)

    def _on_set(self, *waiting: Waiting) -> None:
        """The library holds its lock meanwhile, and would for ever if this raised."""
        replaced = self._mailbox.put(self, tuple((one.camera, one.letter) for one in waiting))
        for one in waiting:
            one.camera.statistics.counts.in_sets += 1
            one.camera.statistics.counts.dropped += replaced
