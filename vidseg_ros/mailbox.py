"""Between the thread that receives and the one that works: one slot per camera, the newest frame wins."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import NamedTuple


class Letter(NamedTuple):
    """A serialized message, and when it came (steady clock)."""

    message: bytes
    received_ns: int


class Mailbox:
    """Slots for the newest letter of each camera, handed out to the one who waits longest first.

    A new letter takes the place of the one before it, and its turn: a fast camera neither loses its turn nor takes
    anybody else's. Nothing in here grows with time.
    """

    def __init__(self):
        self._slots: dict[Hashable, Letter] = {}  # in the order in which the cameras began to wait
        self._changed = threading.Condition()
        self._closed = False

    def put(self, camera: Hashable, letter: Letter) -> bool:
        """Leave a letter; never blocks for longer than a dictionary takes. Returns whether one was replaced."""
        with self._changed:
            if self._closed:
                return False
            replaced = camera in self._slots
            self._slots[camera] = letter
            self._changed.notify()
        return replaced

    def take(self) -> tuple[Hashable, Letter] | None:
        """The camera that has waited longest, and its newest letter; waits for one. None once the box is closed."""
        with self._changed:
            while not self._slots and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            camera = next(iter(self._slots))
            return camera, self._slots.pop(camera)

    def discard(self) -> int:
        """Throw away what waits. Returns how many letters that were."""
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
