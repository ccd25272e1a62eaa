"""Times of a frame's stages on a CUDA device."""

from __future__ import annotations

from contextlib import contextmanager

import torch

from vidseg_core.engine.state import StageTimes


class EventTimes(StageTimes):
    """Milliseconds by a CUDA device's clock: from the moment that it is at a stage to when it has done it."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def stage(self, name: str):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        yield
        end.record()
        self._events.append((name, begin, end))

    def include(self, other: StageTimes) -> None:
        super().include(other)
        if isinstance(other, EventTimes):
            self._events += other._events

    def milliseconds(self) -> dict[str, float]:
        events, self._events = self._events, []
        for name, begin, end in events:
            end.synchronize()
            self[name] = self.get(name, 0.0) + begin.elapsed_time(end)
        return dict(self)
