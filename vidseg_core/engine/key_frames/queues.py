"""Queues of work for a device that computes beside the processor: frames in one, key frames in another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor


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


class CudaQueues:
    """Two CUDA streams: what frames ask for goes first wherever both have work.

    Args:
        device: a CUDA device; what it was asked for before is waited for.
    """

    most_together = 4  # more would have the first wait too long

    def __init__(self, device: torch.device):
        torch.cuda.synchronize(device)
        self._frames = torch.cuda.Stream(device, priority=-1)
        self._key_frames = torch.cuda.Stream(device, priority=0)

    def frame(self) -> AbstractContextManager:
        return torch.cuda.stream(self._frames)

    def mark(self) -> torch.cuda.Event:
        return torch.cuda.current_stream(self._frames.device).record_event()

    @contextmanager
    def key_frames(self, after: Sequence[torch.cuda.Event]) -> Iterator[None]:
        for mark in after:
            self._key_frames.wait_event(mark)
        with torch.cuda.stream(self._key_frames):
            yield

    def finish(self, results: Sequence[Any]) -> None:
        # The thread sleeps meanwhile; what the key frame reads it holds on to, since frames may forget it.
        done = torch.cuda.Event(blocking=True)
        done.record(self._key_frames)
        done.synchronize()
        for result in results:
            for value in vars(result).values():
                if isinstance(value, Tensor):
                    value.record_stream(self._frames)
