"""The accuracy to expect of a segmentation network, by the size of its input and the age of its labels.

It is that of labels at the moment at which the next frame comes, until which they are the newest that there are.
It stands in the weights' record (`accuracy` in the registry or in the file), measured by `vidseg evaluate --ladder`;
`PRIOR` takes its place where it does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from vidseg_core.errors import CheckpointError

STRIDE_ROWS = 720
OLD_S = 0.9
"""Labels that were updated for so long, in seconds, are taken to be as good as the update network's own."""
_FIELDS = ("rows", "lost_by_age_s", "lost_by_stride")
_UPDATE = "update"
_UPDATE_FIELDS = ("weights", "lost_by_age_s")
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Updated:
    """Hold what labels lose with an update network, which looks at every propagated frame at low resolution.

    Attributes:
        weights: the update network: its name in the registry, or a path as it was given.
        lost_by_age_s: as `Accuracy.lost_by_age_s`, relative to the same key frames, which it does not change.

    Raises:
        CheckpointError: not of this form.
    """

    weights: str
    lost_by_age_s: Points

    def __post_init__(self):
        if not isinstance(self.weights, str) or not self.weights:
            raise CheckpointError(f"accuracy: expected a name or a path as weights of {_UPDATE}, got {self.weights!r}")
        _check_points(self.lost_by_age_s, f"lost_by_age_s of {_UPDATE}")

    @classmethod
    def from_dict(cls, stored: object) -> Updated:
        """Read what `to_dict` gives, be its keys text.

        Raises:
            CheckpointError: not of that form.
        """
        if not isinstance(stored, Mapping) or set(stored) != set(_UPDATE_FIELDS):
            raise CheckpointError(f"accuracy: expected {' and '.join(_UPDATE_FIELDS)} as {_UPDATE}, got {stored!r}")
        return cls(stored["weights"], _points(stored["lost_by_age_s"], f"lost_by_age_s of {_UPDATE}"))

    def to_dict(self) -> dict[str, Any]:
        """Return both attributes, JSON-safe."""
        return {"weights": self.weights, "lost_by_age_s": dict(self.lost_by_age_s)}


@dataclass(frozen=True)
class Accuracy:
    """Expected mIoU in points of percent. Between and beyond what was measured it is interpolated, or the nearest one.

    Attributes:
        rows: (rows of the network's input, mIoU of its labels of key frames), rows ascending; at least one.
        lost_by_age_s: (age of the labels in seconds, points lost), ages ascending, from (0, 0) on.
        lost_by_stride: (grid stride on pictures of `STRIDE_ROWS` rows, points lost), strides ascending.
        is_measured: whether it was measured with this network.
        update: what is lost by age with an update network; None where that was not measured.

    Raises:
        CheckpointError: not of this form.
    """

    rows: Points
    lost_by_age_s: Points
    lost_by_stride: Points
    is_measured: bool = True
    update: Updated | None = None

    def __post_init__(self):
        for name in _FIELDS:
            _check_points(getattr(self, name), name)

    @classmethod
    def from_dict(cls, stored: object) -> Accuracy:
        """Read what `to_dict` gives, be its keys text.

        Raises:
            CheckpointError: not of that form.
        """
        if not isinstance(stored, Mapping) or set(stored) - {_UPDATE} != set(_FIELDS):
            raise CheckpointError(f"accuracy: expected {', '.join(_FIELDS)} and perhaps {_UPDATE}, got {stored!r}")
        rows, ages, strides = (_points(stored[name], name) for name in _FIELDS)
        return cls(rows, ages, strides, update=Updated.from_dict(stored[_UPDATE]) if _UPDATE in stored else None)

    def to_dict(self) -> dict[str, Any]:
        """Return all but `is_measured`, JSON-safe; `update` only where it was measured."""
        points = {name: dict(getattr(self, name)) for name in _FIELDS}
        return points if self.update is None else points | {_UPDATE: self.update.to_dict()}

    def of_rows(self, rows: float) -> float:
        """Return the mIoU of key frames that the network sees at so many rows."""
        return _between(self.rows, rows)

    def lost_at(self, age_s: float, updated: bool = False, rows: float | None = None) -> float:
        """Return the points lost by labels of that age.

        Updated labels tend to what the update network finds alone, whatever the key frames were like: so those of key
        frames at fewer rows lose less.

        Args:
            age_s: since their key frame, in seconds.
            updated: whether the update network of `update` looks at every propagated frame.
            rows: of the network's input at the key frame; None for those at which `update` was measured, the most.

        Raises:
            ValueError: `updated`, and that was not measured.
        """
        if not updated:
            return _between(self.lost_by_age_s, age_s)
        if self.update is None:
            raise ValueError("updated: expected an accuracy measured with an update network, got one without `update`")
        lost = _between(self.update.lost_by_age_s, age_s)
        last_s, most_lost = self.update.lost_by_age_s[-1]
        if rows is None or last_s < OLD_S:
            return lost
        own = self.rows[-1][1] - most_lost  # of the update network, about
        return max(0.0, min(lost, self.of_rows(rows) - own))

    def lost_with(self, grid_stride: int, picture_rows: int = STRIDE_ROWS) -> float:
        """Return the points lost by a grid of that stride on pictures of so many rows."""
        return _between(self.lost_by_stride, grid_stride * STRIDE_ROWS / picture_rows)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_points(points: Points, name: str) -> None:
    good = len(points) > 0 and all(len(point) == 2 and all(map(_is_number, point)) for point in points)
    if not good or any(low[0] >= high[0] for low, high in pairwise(points)):
        raise CheckpointError(f"accuracy: expected numbers by ascending numbers as {name}, got {points!r}")


def _points(stored: Any, name: str) -> Points:
    try:
        return tuple(sorted((float(place), float(value)) for place, value in stored.items()))
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"accuracy: expected numbers by numbers as {name}, got {stored!r}") from error


def _between(points: Points, place: float) -> float:
    low, low_value = points[0]
    if place <= low:
        return low_value
    for high, high_value in points:
        if place < high:
            return low_value + (high_value - low_value) * (place - low) / (high - low)
        low, low_value = high, high_value
    return low_value


# Of networks without a record: camvid-swiftnet-r18's shape, on the synthetic street; what strides lose is a guess.
PRIOR = Accuracy(
    rows=((189, 61.1), (270, 64.4), (378, 66.8), (540, 67.7)),
    lost_by_age_s=((0.0, 0.0), (0.033, 0.6), (0.067, 1.4), (0.133, 2.4), (0.267, 4.6), (0.5, 8.5), (1.0, 15.9)),
    lost_by_stride=((2, 0.0), (4, 0.3), (8, 1.0), (16, 3.0)),
    is_measured=False,
)
