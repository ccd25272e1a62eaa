"""The steps that a governor chooses from, what each costs and what accuracy is expected of it. Plain arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vidseg_core.models.accuracy import STRIDE_ROWS, Accuracy

INTERVALS = {"sync": (0, 1, 2, 4, 9), "async": (0, 4)}
# Points of mIoU that a processor kept busy all the time has to bring, and the 140 MB that an update network takes.
WORTH, UPDATE_WORTH = 0.5, 1.0
AGES = (0.0, 0.25, 0.5, 0.75, 1.0)
# Share of the time that key frames beside the streams get at least, see `key_frames.turns`.
LEAST_LEFT = 0.25
# What single key frames take until a frame takes their scores, in units of the usual one.
LEAST_TAKEN, MOST_TAKEN = 0.95, 1.2
# Of so many frames it no longer matters much that they are whole ones.
MANY = 4


@dataclass(frozen=True)
class Step:
    """One way to label frames; the names are those of `EngineConfig`'s options.

    Attributes:
        key_frames: sync or async.
        interval: propagated frames between two key frames, 0 or more.
        rows: of the segmentation network's input; 0 for a network with a fixed input size.
        grid_stride: 2, 4 or 8.
        update: whether an update network looks at propagated frames.
    """

    key_frames: str
    interval: int
    rows: int
    grid_stride: int
    update: bool = False

    def __str__(self) -> str:
        rows = f", {self.rows} rows" if self.rows else ""
        update = ", update network" if self.update else ""
        return f"{self.key_frames}, interval {self.interval}{rows}, grid stride {self.grid_stride}{update}"


@dataclass(frozen=True)
class Demand:
    """Hold what is asked of the computer.

    Attributes:
        period_s: from one frame to the next, of all cameras together, in seconds.
        num_cameras: 1 or more.
        max_age_s: labels must not be older.
        picture_rows: of the cameras' pictures.
    """

    period_s: float
    num_cameras: int = 1
    max_age_s: float = 1.0
    picture_rows: int = STRIDE_ROWS


@dataclass(frozen=True)
class Forecast:
    """Hold what is expected of a step.

    Attributes:
        accuracy: mean mIoU over frames, in points.
        frame_share: of a frame period that the longest of the regular frames takes: above 1, frames are dropped.
        oldest_s: age of the oldest labels, in seconds.
        load: of the time that the processors have, 0 or more.
        update: whether it has an update network.
    """

    accuracy: float
    frame_share: float
    oldest_s: float
    load: float
    update: bool = False

    @property
    def worth(self) -> float:
        """Return what steps are compared by."""
        return self.accuracy - WORTH * min(1.0, self.load) - UPDATE_WORTH * self.update


def forecast(
    step: Step, frame_s: float, key_s: float, demand: Demand, accuracy: Accuracy, spread: float = 1.0
) -> Forecast:
    """Forecast a step.

    Until a frame's labels come, things move on: the time that it takes counts as age of its labels, too.

    Args:
        frame_s: time that a propagated frame takes on average, update and publishing included.
        key_s: time that a key frame's segmentation takes with all processors.
        spread: what a longer frame takes, a key frame waited for included, in units of the average.
    """
    period_s, count = demand.period_s, demand.num_cameras
    own_s = period_s * count  # between two frames of one camera
    share = frame_s / period_s
    if step.key_frames == "sync":
        first, last = 0.0, float(step.interval)
        late_s = frame_s + key_s / (step.interval + 1)
        longest = (frame_s + key_s) * spread / period_s
        load = share + key_s / (period_s * (step.interval + 1))
    else:
        left = max(LEAST_LEFT, 1.0 - share)  # of the processors' time, for key frames
        alone, all_cameras = (_whole(each * key_s / left / own_s) for each in (1, count))
        # Where they take turns without a pause, each waits for the others.
        cycle = max(step.interval + 1.0, all_cameras)
        first = alone if cycle > all_cameras else all_cameras
        last = first + cycle - 1.0
        late_s = frame_s
        longest = share * spread
        load = share + key_s / (cycle * period_s)
    lost = _mean_lost(accuracy, first * own_s + late_s, last * own_s + late_s, step)
    expected = accuracy.of_rows(step.rows) - lost - accuracy.lost_with(step.grid_stride, demand.picture_rows)
    return Forecast(expected, longest, last * own_s, load, step.update)


def _whole(frames: float) -> float:
    """Mean number of whole frames, 1 or more, until there is a frame that takes the scores."""
    least, most = LEAST_TAKEN * frames, MOST_TAKEN * frames
    if most <= 1.0:
        return 1.0
    if frames > MANY:
        return (least + most) / 2 + 0.5
    return 1.0 + sum(min(1.0, max(0.0, (most - passed) / (most - least))) for passed in range(1, MANY + 1))


def _mean_lost(accuracy: Accuracy, first_s: float, last_s: float, step: Step) -> float:
    """Mean loss over ages, of which a few are looked at."""
    if first_s == last_s:
        return accuracy.lost_at(first_s, step.update, step.rows)
    ages = [first_s + share * (last_s - first_s) for share in AGES]
    return sum(accuracy.lost_at(age_s, step.update, step.rows) for age_s in ages) / len(AGES)


def ladder(
    rows: Iterable[int],
    grid_strides: Iterable[int],
    key_frames: Iterable[str] = tuple(INTERVALS),
    intervals: Iterable[int] | None = None,
    updates: Iterable[bool] = (False,),
) -> tuple[Step, ...]:
    """List every combination that makes a difference; a choice that is the user's has one value.

    `intervals` None takes `INTERVALS`.
    """
    own = None if intervals is None else tuple(intervals)
    return tuple(
        Step(mode, interval, size, stride, update)
        for mode in key_frames
        for interval in own or INTERVALS[mode]
        for size in rows
        for stride in grid_strides
        for update in updates
        if not (update and mode == "sync" and interval == 0)  # no frame is propagated
    )
