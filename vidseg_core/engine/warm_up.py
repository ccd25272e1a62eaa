"""Frames that are not measured."""

from __future__ import annotations

from collections.abc import Iterable

from vidseg_core.engine.protocol import StreamProtocol
from vidseg_core.frame import Frame


def warm_up(stream: StreamProtocol, frames: Iterable[Frame]) -> None:
    """Step over the first frame twice, as key frame and as propagated frame, and reset the stream.

    What is compiled or allocated only once is then not part of the times that follow. Without frames nothing happens.
    """
    frame = next(iter(frames), None)
    if frame is not None:
        for _ in range(2):
            stream.step(frame)
        stream.reset()
