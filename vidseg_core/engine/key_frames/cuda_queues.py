"""Queues of work for a CUDA device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

from vidseg_core.devices import Device


class CudaQueues:
    """Two CUDA streams: what frames ask for goes first wherever both have work.

    Args:
        device: a CUDA device; what it was asked for before is waited for.
    """

    most_together = 4  # more would have the first wait too long

    def __init__(self, device: Device | torch.device):
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
