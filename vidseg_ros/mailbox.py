"""Between the thread that receives and the one that works: one slot per camera, or per set of cameras that are
synchronised; the newest frames win."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from vidseg_ros.stamps import Run

if TYPE_CHECKING:  # it loads PyAV, which video alone needs
    from vidseg_core.data.packets import Picture

YIELD_S = 1e-3
"""How long whoever leaves a letter lets go of the interpreter for a worker that waits.

An executor would prepare its next wait meanwhile, and both threads would take the interpreter from each other, which
costs the frame half a millisecond. A worker that is busy does not need it, so that a burst of letters waits once.
"""


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
        self._is_awaited = False

    def put(self, sender: Hashable, batch: Batch) -> bool:
        """Leave letters, and let a worker that waits go first, see `YIELD_S`. Returns True if they replaced others."""
        with self._changed:
            if self._closed:
                return False
            replaced = sender in self._slots
            self._slots[sender] = batch
            self._changed.notify()
            is_awaited, self._is_awaited = self._is_awaited, False
        if is_awaited:
            time.sleep(YIELD_S)
        return replaced

    def take(self) -> Batch | None:
        """Wait for letters, and take those of the sender that waits longest. Returns None once the box is closed."""
        with self._changed:
            while not self._slots and not self._closed:
                self._is_awaited = True
                self._changed.wait()
            self._is_awaited = False
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
