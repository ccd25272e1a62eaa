"""Queues of work for a device that computes beside the processor: frames in one, key frames in another."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol


class Queues(Protocol):
    """Take the work of frames and of key frames; see `Background`.

    Attributes:
        most_together: key frames of one size that the device computes best in one call of the network.
    """

    most_together: int

    def frame(self) -> AbstractContextManager:
        """Ask for the work of a frame inside this context."""

    def mark(self) -> Any:
        """Mark what has been asked for in the current context so far."""

    def key_frames(self, after: Sequence[Any]) -> AbstractContextManager:
        """Ask for the work of key frames inside this context; the device begins it when all marks are reached."""

    def finish(self, results: Sequence[Any]) -> None:
        """Wait for the key frames asked for last; frames may use the tensors among the results' attributes then."""


class InOrder:
    """For the processor, which has computed what it was asked for when a call returns."""

    most_together = 1

    def frame(self) -> AbstractContextManager:
        return nullcontext()

    def mark(self) -> None:
        return None

    def key_frames(self, after: Sequence[None]) -> AbstractContextManager:
        return nullcontext()

    def finish(self, results: Sequence[Any]) -> None:
        """Nothing is under way."""
