"""Compute percentiles of measured values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PERCENTS = (50, 95, 99, 100)


def distribution(
    values: Sequence[float] | np.ndarray, percents: Sequence[int] = PERCENTS, digits: int | None = 3
) -> dict[str, float | None]:
    """Return percentiles by name, "p50", "p95", ...; that of 100 is "max". All are None without values.

    Args:
        values: in any unit, which is that of the result.
        percents: 0..100.
        digits: after the point, to which results are rounded; None does not round.
    """
    names = ["max" if percent == 100 else f"p{percent}" for percent in percents]
    if not len(values):
        return dict.fromkeys(names)
    found = np.percentile(values, percents).tolist()
    return {name: value if digits is None else round(value, digits) for name, value in zip(names, found, strict=True)}
