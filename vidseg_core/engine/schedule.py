"""Which frames the segmentation network sees, and why. Plain arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vidseg_core.engine.config import EngineConfig

PROPAGATED = "propagated"


@dataclass(frozen=True)
class Decision:
    """Tell whether the next frame is a key frame.

    Attributes:
        is_key: True for a key frame.
        reason: why, for a key frame; "propagated" otherwise.
    """

    is_key: bool
    reason: str = PROPAGATED


class Schedule(Protocol):
    """Decide which frames are key frames.

    Attributes:
        longest: most propagated frames between two key frames.
        looks: True if it has to be told how much the picture has changed.
    """

    longest: int
    looks: bool

    def decide(self, since_key: int | None, change: float) -> Decision:
        """Decide for the next frame.

        Args:
            since_key: frames since the last key frame, of the frame before this one; None without a past.
            change: of the picture since the last key frame, of the frame before this one, see `kernels.change`.
        """
        ...


class FixedInterval:
    """A key frame, then `interval` propagated frames, and so on.

    Args:
        interval: 0 or more.
    """

    looks = False

    def __init__(self, interval: int):
        self.longest = interval

    def decide(self, since_key: int | None, change: float = 0.0) -> Decision:
        if since_key is None:
            return Decision(True, "first frame")
        if since_key >= self.longest:
            return Decision(True, "interval")
        return Decision(False)


class Adaptive:
    """A key frame when the picture has changed, but neither too soon nor too late.

    Args:
        shortest, longest: fewest and most propagated frames between two key frames.
        threshold: the change that asks for a key frame.
    """

    looks = True

    def __init__(self, shortest: int, longest: int, threshold: float):
        self.shortest = shortest
        self.longest = longest
        self.threshold = threshold

    def decide(self, since_key: int | None, change: float) -> Decision:
        if since_key is None:
            return Decision(True, "first frame")
        if since_key >= self.longest:
            return Decision(True, "interval")
        if since_key >= self.shortest and change >= self.threshold:
            return Decision(True, "picture changed")
        return Decision(False)


def schedule_of(config: EngineConfig) -> Schedule:
    """Make the schedule that a configuration asks for."""
    if config.schedule == "fixed":
        return FixedInterval(config.interval)
    return Adaptive(config.min_interval, config.max_interval, config.change_threshold)
