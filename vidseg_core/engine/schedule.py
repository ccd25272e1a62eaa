"""Which frames the segmentation network sees, and why. Plain arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

PROPAGATED = "propagated"


@dataclass(frozen=True)
class Decision:
    """Attributes:
    is_key: whether the frame is a key frame.
    reason: why, for a key frame; "propagated" otherwise.
    """

    is_key: bool
    reason: str = PROPAGATED


class FixedInterval:
    """A key frame, then `interval` propagated frames, and so on.

    Args:
        interval: 0 or more.
    """

    def __init__(self, interval: int):
        self.interval = interval

    def decide(self, age: int | None) -> Decision:
        """Decide for the next frame.

        Args:
            age: frames since the last key frame, of the frame before this one; None without a past.
        """
        if age is None:
            return Decision(True, "first frame")
        if age >= self.interval:
            return Decision(True, "interval")
        return Decision(False)
