"""Protocols of the engine's parts, for whatever takes the place of one of them. Loads nothing that computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from vidseg_core.classes import ClassTable
from vidseg_core.frame import Frame, Segmentation

if TYPE_CHECKING:
    from vidseg_core.arrays import Array
    from vidseg_core.engine.key_frames.turns import Turns
    from vidseg_core.overlay import Colours


@runtime_checkable
class StreamProtocol(Protocol):
    """The frames of one camera, in order. See `vidseg_core.engine.stream.Stream`."""

    def step(self, frame: Frame) -> Segmentation:
        """Label the next frame."""

    def reset(self, reason: str = "requested") -> None:
        """Forget the past; the next frame is a key frame."""

    def request_key_frame(self) -> None:
        """Make the next frame a key frame without forgetting the past."""

    def set_interval(self, interval: int) -> None:
        """Change the number of frames between two key frames."""

    def set_confidence(self, wanted: bool) -> None:
        """Change whether results come with a confidence map."""

    def set_probabilities(self, wanted: bool) -> None:
        """Change whether results come with the probabilities of all classes."""

    def set_overlay(self, colours: Colours | None) -> None:
        """Change whether results come with an overlay, where the engine draws any."""


@runtime_checkable
class EngineProtocol(Protocol):
    """Streams over shared networks. See `vidseg_core.engine.engine.Engine`.

    Attributes:
        classes: the class table of the labels.
    """

    @property
    def classes(self) -> ClassTable: ...

    def stream(self, ego_mask: str | Path | None = None, *, phase: float = 0.0) -> StreamProtocol:
        """Make a stream for one camera."""

    def segmenting_s(self) -> float:
        """Return for how many seconds a segmentation beside the streams has been under way; 0 if none is."""

    def describe(self) -> dict:
        """Describe what computes the labels, JSON-safe."""

    def close(self, timeout_s: float | None = ...) -> bool:
        """End what works beside the streams; return whether it ended within `timeout_s`. May be called again."""


@dataclass(frozen=True)
class Capabilities:
    """Optional abilities of a segmenter. It has one by having the attribute of that name.

    Attributes:
        together: frames of one size -> the scores of each, by one call of the network; None where it takes one frame at
            a time.
        turns: pauses the segmenter while a stream is at a frame; None if it cannot be paused.
        close: ends the segmenter at once; None if there is nothing to end.
        is_truth: True if scores are the frame's own ground truth.
        half_pixel: True if the pixels of its scores cover equal parts of the picture; else the outermost lie on the
            picture's outermost.
        input_rows: (size of a picture, (H, W)) -> rows of the network's input that suit the network; None for one
            whose input has a fixed size. A segmenter that has it has an attribute `share` of that size, 0 to 1, which
            may be assigned to at any time. Until the network is ready for another share, it goes on with the last one.
        costs: what segmentations took with all processors, the latest last: seconds, and the share of the size at
            which it was. Whoever reads it removes what was read. None where that is not told.
        at_share: (share) -> the same network with an input of that share of its size, from the first frame on; None
            where that cannot be had.
        prepare: ((H, W) of a picture) has the network made ready for such pictures, while others are segmented, and
            tells whether it is; None where there is nothing to do ahead.
    """

    together: Callable[[Sequence[Frame]], list[Array]] | None = None
    turns: Turns | None = None
    close: Callable[[], None] | None = None
    is_truth: bool = False
    half_pixel: bool = False
    input_rows: Callable[[tuple[int, int]], int] | None = None
    costs: deque[tuple[float, float]] | None = None
    at_share: Callable[[float], Callable[[Frame], Array]] | None = None
    prepare: Callable[[tuple[int, int]], bool] | None = None

    def picture_of(self, frame: Frame) -> tuple[int, int] | None:
        """Return the size of the picture where the scores' pixels cover equal parts of it, else None."""
        return frame.size if self.half_pixel else None


def capabilities(segmenter: object) -> Capabilities:
    """Return what a segmenter can do besides segmenting."""
    return Capabilities(
        together=getattr(segmenter, "together", None),
        turns=getattr(segmenter, "turns", None),
        close=getattr(segmenter, "close", None),
        is_truth=getattr(segmenter, "is_truth", False),
        half_pixel=getattr(segmenter, "half_pixel", False),
        input_rows=getattr(segmenter, "input_rows", None),
        costs=getattr(segmenter, "costs", None),
        at_share=getattr(segmenter, "at_share", None),
        prepare=getattr(segmenter, "prepare", None),
    )
