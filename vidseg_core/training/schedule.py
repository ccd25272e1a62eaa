"""The course of the learning rate, and the pace of progress bars."""

from __future__ import annotations

import math
import os

SCHEDULES = ("cosine", "poly")
FINAL_RATE = 0.01


def rate_factor(progress: float, warmup: float, epochs: int, schedule: str) -> float:
    """Return the share of the largest learning rate after `progress` epochs, a fraction included.

    Args:
        warmup: epochs in which it rises from 0 to 1.
        epochs: after which it has fallen to `FINAL_RATE`.
        schedule: "cosine" or "poly" (power 0.9).
    """
    if progress < warmup:
        return progress / warmup
    rest = min(1.0, (progress - warmup) / max(1e-9, epochs - warmup))
    fall = (1 + math.cos(math.pi * rest)) / 2 if schedule == "cosine" else (1 - rest) ** 0.9
    return FINAL_RATE + (1 - FINAL_RATE) * fall


def progress_interval() -> float:
    """Return the seconds between updates of a progress bar: few updates in a log file."""
    return 0.5 if os.isatty(2) else 30.0
