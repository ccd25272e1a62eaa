"""Between the thread that receives and the one that works: one slot per camera, or per set of cameras that are
synchronised; the newest frames win."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from vidseg_ros.stamps import Run

if TYPE_CHECKING:  # it loads PyAV, which video alone needs
    from vidseg_core.data.packets import Picture


class Letter(NamedTuple):
    """A serialized message or a decoded picture, when it came (steady clock), its run of messages, and its number among
    those of its camera."""

    message: bytes | memoryview | Picture
    received_ns: int
    run: Run = Run()
    number: int = 0


Batch = Sequence[tuple[Any, Any]]
"""Cameras and a letter of each, to be processed one after the other; or what else the worker is to do, likewise."""


class Mailbox:
    """Slots for what came last from each sender, handed out to the one who waits longest first.

    A sender is a camera, or whatever puts letters of several cameras together. A new batch takes the place of the one
    before it, and its turn: a fast sender neither loses its turn nor takes anybody else's. Nothing in here grows with
    time.
    """

    def __init__(self):
        self._slots: dict[Hashable, Batch] = {}  # in the order in which the senders began to wait
        self._changed = threading.Condition()
        self._closed = False

    def put(self, sender: Hashable, batch: Batch) -> bool:
        """Leave letters; never blocks for longer than a dictionary takes. Returns True if they replaced others."""
        with self._changed:
            if self._closed:
                return False
            replaced = sender in self._slots
            self._slots[sender] = batch
            self._changed.notify()
        return replaced

    def take(self) -> Batch | None:
        """Wait for letters, and take those of the sender that waits longest. Returns None once the box is closed."""
        with self._changed:
            while not self._slots and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            return self._slots.pop(next(iter(self._slots)))

    @property
    def is_open(self) -> bool:
        """Tell if it takes letters."""
        return not self._closed

    def discard(self) -> int:
        """Throw away all letters that wait. Returns the number of their senders."""
        with self._changed:
            waiting = len(self._slots)
            self._slots.clear()
        return waiting

    def open(self) -> None:
        """Take letters again."""
        with self._changed:
            self._closed = False

    def close(self) -> None:
        """Let whoever waits in `take` go; what still lies here is thrown away."""
        with self._changed:
            self._closed = True
            self._slots.clear()
            self._changed.notify_all()
