"""Pick the step of the ladder that this computer can keep up with, and move when that changes.

Plain arithmetic without clocks or threads: whoever has a clock says what time it is. What frames and key frames cost is
measured at the step in use and scaled for others; what they cost there once they have been in use is remembered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

from vidseg_core.engine.ladder import Demand, Forecast, Step, forecast
from vidseg_core.models.accuracy import STRIDE_ROWS, Accuracy

WINDOW_S = 1.0
"""Frames as old as this tell what frames cost."""
ACTIVE_S = 2.0
"""A camera without frames for so long takes no part."""
LOOK_S = 0.25
SETTLE_S = 0.5
"""After a move nothing is decided for so long."""
TOO_MUCH, ENOUGH = 0.95, 0.75
"""Shares of a frame period: above the first a step is left, a step to move to stays below the second."""
MOST_DROPPED = 0.08
CALM_S, MOST_CALM_S = 4.0, 64.0
"""A better step has to be in reach for so long; twice as long after each one that had to be left soon."""
SOON_S = 20.0
GAIN = 0.4
"""Points of mIoU below which a better step is no reason to move."""
FEW_FRAMES, FEW_KEY_FRAMES = 5, 2
KEY_COST = 15
"""Of a key frame in units of a propagated one, before the first was measured."""
HOPE = 0.8
STRIDE_COST = {2: 2.2, 4: 1.0, 8: 0.65}
"""Of a propagated frame, in units of one with grid stride 4, before it was measured."""


@dataclass(frozen=True)
class Move:
    """A change of the step, and why.

    Attributes:
        step: from now on.
        reason: one sentence without its full stop.
        forecast: of that step.
    """

    step: Step
    reason: str
    forecast: Forecast


class _Arrivals:
    """Frames of one camera that came within the last `WINDOW_S`, told by those that were labelled."""

    def __init__(self):
        self._seen: deque[tuple[float, int, int]] = deque()  # received, its number, dropped before

    def add(self, received_s: float, number: int, dropped: int) -> bool:
        """Note a frame; return whether the camera went on without a pause."""
        went_on = not self._seen or received_s - self._seen[-1][0] <= WINDOW_S
        if not went_on:
            self._seen.clear()
        self._seen.append((received_s, number, dropped))
        while self._seen[0][0] < received_s - WINDOW_S:
            self._seen.popleft()
        return went_on

    def clear(self) -> None:
        self._seen.clear()

    @property
    def last_s(self) -> float:
        return self._seen[-1][0] if self._seen else 0.0

    @property
    def rate_hz(self) -> float | None:
        if len(self._seen) < FEW_FRAMES:
            return None
        (begin_s, begin, _), (end_s, end, _) = self._seen[0], self._seen[-1]
        return (end - begin) / (end_s - begin_s) if end_s > begin_s else None

    @property
    def dropped(self) -> int:
        """Frames that were dropped so far."""
        return self._seen[-1][2] if self._seen else 0

    @property
    def counts(self) -> tuple[int, int]:
        """Frames that came and those that were dropped."""
        if not self._seen:
            return 0, 0
        (_, begin, dropped_then), (_, end, dropped) = self._seen[0], self._seen[-1]
        return end - begin, dropped - dropped_then


class Governor:
    """Choose a step for all cameras of one computer. Not for use by two threads at once.

    Args:
        steps: that there are.
        accuracy: of the segmentation network.
        start: the step in use at first.
        max_age_s: labels must not be older.
        picture_rows: of the cameras' pictures.
    """

    def __init__(
        self,
        steps: tuple[Step, ...],
        accuracy: Accuracy,
        start: Step,
        max_age_s: float = 1.0,
        picture_rows: int = STRIDE_ROWS,
    ):
        self._steps = steps
        self._accuracy = accuracy
        self._max_age_s = max_age_s
        self._picture_rows = picture_rows
        self.step = start
        self._arrivals: dict[Hashable, _Arrivals] = {}
        self._times: deque[tuple[float, float]] = deque()  # when, and what a frame took
        self._frames = _Costs({step.grid_stride: STRIDE_COST[step.grid_stride] for step in (*steps, start)})
        self._keys = _Costs({step.rows: max(1, step.rows) ** 2 for step in (*steps, start)}, hope=HOPE)
        self._key_times: deque[float] = deque(maxlen=3)
        self._moved_s: float | None = None
        self._looked_s = 0.0
        self._overloaded_looks = 0
        self._dropped_before = 0
        self._calm_since_s: float | None = None
        self._calm_s = CALM_S
        self._went_up_s: float | None = None
        self._spread = 1.0
        self._bias = 1.0  # what frames cost beyond what was measured, told by dropped ones

    def frame(
        self, camera: Hashable, now_s: float, frame_s: float, received_s: float, number: int, dropped: int
    ) -> None:
        """Note a frame that was labelled.

        Args:
            camera: that it came from.
            now_s: a steady clock.
            frame_s: time that it took, without waiting for a key frame.
            received_s: when it came, by the same clock.
            number: of frames of this camera up to it.
            dropped: number of these that were dropped.
        """
        if not self._arrivals.setdefault(camera, _Arrivals()).add(received_s, number, dropped):
            self._forget()  # the camera paused, or this process did
        self._times.append((now_s, frame_s))
        while self._times[0][0] < now_s - WINDOW_S:
            self._times.popleft()

    def key_frame(self, key_s: float, rows: int) -> None:
        """Note a key frame that was segmented: how long that took with all processors, and at which size."""
        if rows == self.step.rows:
            self._key_times.append(key_s)

    def decide(self, now_s: float) -> Move | None:
        """Return the move to make now; None for none. To be asked after each frame."""
        if self._moved_s is None:
            self._moved_s = now_s
        if now_s - self._looked_s < LOOK_S or now_s - self._moved_s < SETTLE_S:
            return None
        self._looked_s = now_s
        demand = self._demand(now_s)
        if demand is None or len(self._times) < FEW_FRAMES:
            return None
        self._measure()
        current = self._forecast(self.step, demand)
        dropped, dropped_in_all = self._dropped_share(), sum(one.dropped for one in self._arrivals.values())
        # A burst after a pause of the camera drops frames once, and stays in the window for several looks.
        goes_on, self._dropped_before = dropped_in_all > self._dropped_before, dropped_in_all
        if goes_on and dropped > MOST_DROPPED and current.frame_share <= TOO_MUCH:
            self._bias = min(3.0, self._bias * 1.15)
        elif dropped == 0.0:
            self._bias = max(1.0, self._bias * 0.99)
        if self._is_too_much(current, dropped):
            self._overloaded_looks += 1
            self._calm_since_s = None
            return self._leave(now_s, demand, current, dropped) if self._overloaded_looks >= 2 else None
        self._overloaded_looks = 0
        return self._improve(now_s, demand, current) if self._keys.is_known else None

    def describe(self, now_s: float) -> dict[str, str]:
        """Describe the step in use and what it costs, for people."""
        demand = self._demand(now_s)
        told = {"Step": str(self.step)}
        if demand is not None and self._frames.is_known and self._keys.is_known:
            found = self._forecast(self.step, demand)
            told |= {
                "Expected accuracy (mIoU)": f"{found.accuracy:.1f}",
                "Share of the frame period": f"{found.frame_share:.2f}",
                "Key frame (ms)": f"{1e3 * self._keys.of(self.step.rows):.1f}",
            }
        return told

    def _forget(self) -> None:
        for one in self._arrivals.values():
            one.clear()
        self._times.clear()
        self._overloaded_looks = 0
        self._calm_since_s = None

    def _demand(self, now_s: float) -> Demand | None:
        rates = [one.rate_hz for one in self._arrivals.values() if now_s - one.last_s < ACTIVE_S]
        known = [rate for rate in rates if rate is not None]
        total = sum(known)
        if total <= 0 or len(known) != len(rates):
            return None
        return Demand(1 / total, len(known), self._max_age_s, self._picture_rows)

    def _dropped_share(self) -> float:
        counts = [one.counts for one in self._arrivals.values()]
        return sum(dropped for _, dropped in counts) / max(1, sum(arrived for arrived, _ in counts))

    def _measure(self) -> None:
        """Take what was measured at the step in use."""
        times = sorted(frame_s for _, frame_s in self._times)
        middle = times[: max(1, round(0.9 * len(times)))]
        average = sum(middle) / len(middle)
        self._frames.measured(self.step.grid_stride, average)
        self._spread = max(1.0, times[round(0.85 * (len(times) - 1))] / average)
        if len(self._key_times) >= FEW_KEY_FRAMES:
            self._keys.measured(self.step.rows, sorted(self._key_times)[(len(self._key_times) - 1) // 2])
        elif not self._keys.is_known:  # so that a computer that is too slow for both is told from the frames alone
            self._keys.assumed(self.step.rows, KEY_COST * average)

    def _forecast(self, step: Step, demand: Demand) -> Forecast:
        frame_s, key_s = self._frames.of(step.grid_stride) * self._bias, self._keys.of(step.rows)
        return forecast(step, frame_s, key_s, demand, self._accuracy, self._spread)

    def _is_too_much(self, found: Forecast, dropped: float) -> bool:
        return found.frame_share > TOO_MUCH or (dropped > MOST_DROPPED and self._bias > 1.5)

    def _fits(self, found: Forecast, share: float) -> bool:
        return found.frame_share <= share and found.oldest_s <= 0.8 * self._max_age_s

    def _best(self, demand: Demand, share: float) -> tuple[Step, Forecast]:
        """The best step that leaves headroom; where none does, the one that is nearest to it."""
        found = [(step, self._forecast(step, demand)) for step in self._steps]
        fitting = [one for one in found if self._fits(one[1], share)]
        if fitting:
            return max(fitting, key=lambda one: one[1].worth)
        lightest = min(max(one.frame_share / share, one.oldest_s / self._max_age_s) for _, one in found)
        near = [
            one
            for one in found
            if max(one[1].frame_share / share, one[1].oldest_s / self._max_age_s) <= 1.02 * lightest
        ]
        return max(near, key=lambda one: one[1].worth)

    def _leave(self, now_s: float, demand: Demand, current: Forecast, dropped: float) -> Move | None:
        step, found = self._best(demand, ENOUGH)
        if step == self.step or found.frame_share > 0.97 * current.frame_share:
            return None
        if self._went_up_s is not None and now_s - self._went_up_s < SOON_S:
            self._calm_s = min(MOST_CALM_S, 2 * self._calm_s)
        reason = f"a frame takes {100 * current.frame_share:.0f} % of the {1e3 * demand.period_s:.1f} ms there are"
        if dropped > 0:
            reason += f", {100 * dropped:.0f} % of the frames are dropped"
        return self._move(now_s, Move(step, reason, found))

    def _improve(self, now_s: float, demand: Demand, current: Forecast) -> Move | None:
        step, found = self._best(demand, ENOUGH)
        is_better = step != self.step and found.worth > current.worth + GAIN and self._fits(found, ENOUGH)
        if current.oldest_s > 0.95 * self._max_age_s and step != self.step:
            is_better = found.oldest_s < current.oldest_s
        if not is_better:
            self._calm_since_s = None
            return None
        self._calm_since_s = self._calm_since_s or now_s
        # Right after the start nothing has been left yet, and the first choice was blind.
        needed_s = LOOK_S if self._went_up_s is None else self._calm_s
        if now_s - self._calm_since_s < needed_s:
            return None
        self._went_up_s = now_s
        reason = (
            f"{found.accuracy:.1f} points of mIoU are expected in place of {current.accuracy:.1f}: a frame takes "
            f"{100 * found.frame_share:.0f} % of the {1e3 * demand.period_s:.1f} ms there are"
        )
        return self._move(now_s, Move(step, reason, found))

    def _move(self, now_s: float, move: Move) -> Move:
        if move.step.rows != self.step.rows:
            self._key_times.clear()
            self._keys.entered()
        if move.step.grid_stride != self.step.grid_stride:
            self._frames.entered()
        self.step = move.step
        self._moved_s = now_s
        self._bias = 1.0
        self._forget()
        return move


class _Costs:
    """Seconds by a choice (rows, or grid stride), measured for the one in use and scaled for the others.

    Args:
        prior: relative costs, before they were measured.
        hope: factor of those that have not been measured: what might be worth while is tried.
    """

    NEAR = 1.6
    """What was measured is within this factor of the prior: the rest is the computer's speed."""

    def __init__(self, prior: dict[int, float], hope: float = 1.0):
        self._prior = prior
        self._hope = hope
        self._tried: set[int] = set()
        self._relative = dict(prior)
        self._speed: float | None = None
        self.is_known = False
        self._is_new = False

    def entered(self) -> None:
        """Note that another choice is in use: what is measured next tells its relative cost."""
        self._is_new = self.is_known

    def measured(self, choice: int, seconds: float) -> None:
        if self._is_new:
            assert self._speed is not None  # see `entered`
            self._is_new = False
            low, high = self._prior[choice] / self.NEAR, self._prior[choice] * self.NEAR
            self._relative[choice] = min(high, max(low, seconds / self._speed))
        self._tried.add(choice)
        self._speed = seconds / self._relative[choice]
        self.is_known = True

    def assumed(self, choice: int, seconds: float) -> None:
        """Take a guess until something is measured."""
        self._speed = seconds / self._relative[choice]

    def of(self, choice: int) -> float:
        """Return the cost that is expected of a choice, in seconds."""
        assert self._speed is not None  # asked for once something was measured or assumed
        return self._speed * self._relative[choice] * (1.0 if choice in self._tried else self._hope)
