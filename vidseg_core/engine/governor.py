"""Pick the step of the ladder that this computer can keep up with, and move when that changes.

Plain arithmetic without clocks or threads: whoever has a clock says what time it is. What frames and key frames cost is
measured at the step in use and scaled for others; what they cost there once they have been in use is remembered. A
frame that waits for its key frame costs more than both: pictures are compared, and the past is fused. What an update
network takes is the same at every step, and is measured apart from the rest of the frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from vidseg_core.engine.ladder import Demand, Forecast, Step, forecast
from vidseg_core.models.accuracy import STRIDE_ROWS, Accuracy

WINDOW_S = 1.0
"""Frames as old as this tell what frames cost."""
ACTIVE_S = 2.0
"""A camera without frames for so long takes no part."""
LOOK_S, LOOK_UP_S = 0.25, 1.0
"""How often it is looked whether the step is too much; and, once the start is over, whether there is a better one, for
which all are forecast."""
SETTLE_S = 0.5
"""After a move nothing is decided for so long."""
TOO_MUCH, ENOUGH = 1.0, 0.8
"""Shares of a frame period, of a frame between an average and a longer one, as one can wait: above the first a step is
left, a step to move to stays below the second."""
MOST_DROPPED = 0.08
START_S = 5.0
"""For so long after the start the next look confirms that a better step is in reach, until one had to be left."""
CALM_S, MOST_CALM_S = 4.0, 64.0
"""Later a better step has to be in reach for so long; twice as long after each one that had to be left soon."""
SOON_S = 20.0
GAIN, START_GAIN = 0.4, 0.2
"""Points of mIoU below which a better step is no reason to move: usually, and at the start."""
PATIENCE_S = 2.0
"""Where a network is not ready at the rows of the best step for so long, the best of the others is taken meanwhile."""
FEW_FRAMES, FEW_KEY_FRAMES, TRIED_KEY_FRAMES = 5, 2, 4
ALIKE = 1.5
"""A time without frames that is at most so much longer than the one before is a slow camera's, no pause."""
KEY_COST = 15
"""Of a key frame in units of a propagated one, before the first was measured."""
HOPE = 0.8
STRIDE_COST = {2: 2.2, 4: 1.0, 8: 0.65}
"""Of a propagated frame, in units of one with grid stride 4, before it was measured."""
WAITING_COST = {2: 1.7, 4: 1.65, 8: 1.9}
"""By grid stride: of a frame that waits for its key frame, without that, in units of one that does not, likewise."""
UPDATED_COST = 1.4
"""Of a frame that is updated, without the update itself, likewise: it needs all its logits."""
UPDATE_COST = 0.06
"""Of an update in units of a key frame of the largest size, before the first was measured."""
PROPAGATED, UPDATED, WAITING = "propagated", "updated", "waiting"
"""Kinds of frames, whose costs differ: carried along; carried along and updated; one that waits for its key frame."""

Choice = TypeVar("Choice", bound=Hashable)


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
    """Frames of one camera that came within the last `WINDOW_S`, told by those that were labelled.

    Of a slow camera the last few, whenever they came.
    """

    def __init__(self):
        self._seen: deque[tuple[float, int, int]] = deque()  # received, its number, dropped before
        self._gap_s = 0.0

    def add(self, received_s: float, number: int, dropped: int) -> bool:
        """Note a frame; return whether the camera went on without a pause."""
        went_on = True
        if self._seen:
            last_gap_s, self._gap_s = self._gap_s, received_s - self._seen[-1][0]
            went_on = self._gap_s <= max(WINDOW_S, ALIKE * last_gap_s)
        if not went_on:
            self._seen.clear()
        self._seen.append((received_s, number, dropped))
        while len(self._seen) > FEW_FRAMES and self._seen[0][0] < received_s - WINDOW_S:
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
        self._most_rows = max(step.rows for step in steps)
        self.step = start
        self._ahead: Step | None = None  # whose networks are asked for before it is taken
        self._arrivals: dict[Hashable, _Arrivals] = {}
        self._times: deque[_Time] = deque()
        strides = {step.grid_stride for step in (*steps, start)}
        frames = {(one, PROPAGATED): STRIDE_COST[one] for one in strides}
        frames |= {(one, UPDATED): STRIDE_COST[one] * UPDATED_COST for one in strides}
        frames |= {(one, WAITING): STRIDE_COST[one] * WAITING_COST[one] for one in strides}
        self._frames = _Costs(frames)
        self._update_s: float | None = None
        self._has_updater = self._is_refused = False
        self._keys = _Costs({step.rows: max(1, step.rows) ** 2 for step in (*steps, start)}, hope=HOPE)
        self._key_times: deque[float] = deque(maxlen=5)
        self._asked_s = 0.0
        self._times_ahead: list[float] = []  # of key frames of the rows of `_ahead`
        self._begun_s = 0.0
        self._has_left = False
        self._moved_s: float | None = None
        self._looked_s = self._looked_up_s = 0.0
        self._overloaded_looks = 0
        self._dropped_before = 0
        self._calm_since_s: float | None = None
        self._calm_s = CALM_S
        self._went_up_s: float | None = None
        self._spread = 1.0  # what a longer frame takes, in units of the average
        self._waiting_spread: float | None = None  # the same of those that wait, key frames included; None without any
        self._bias = 1.0  # what frames cost beyond what was measured, told by dropped ones

    @property
    def rows(self) -> int:
        """Rows that the network shall be used at: those of the step, or of one that is taken once they are in use.

        Where that one waits for the update network alone, they are the step's again.
        """
        ahead = self._ahead
        return self.step.rows if ahead is None or self._keys.was_tried(ahead.rows) else ahead.rows

    @property
    def wants_updater(self) -> bool:
        """Tell if the update network is in use, or a step with it is taken once it is ready."""
        return self.step.update or (self._ahead is not None and self._ahead.update)

    def updater(self, update_s: float | None, refused: bool = False) -> None:
        """Note whether the update network is ready.

        Args:
            update_s: what a call of it takes, in seconds; None where it is not ready.
            refused: whether it cannot be made ready; then no step with it is taken.
        """
        self._has_updater = update_s is not None
        if refused != self._is_refused:
            self._is_refused = refused
            self._not_calm()
        if self._update_s is None:
            self._update_s = update_s

    def frame(
        self,
        camera: Hashable,
        now_s: float,
        frame_s: float,
        received_s: float,
        number: int,
        dropped: int,
        key_s: float | None = None,
        update_s: float | None = None,
    ) -> None:
        """Note a frame that was labelled.

        Args:
            camera: that it came from.
            now_s: a steady clock.
            frame_s: time that it took, without `key_s` and `update_s`.
            received_s: when it came, by the same clock.
            number: of frames of this camera up to it.
            dropped: number of these that were dropped.
            key_s: time that the segmentation took that it waited for; None where it waited for none.
            update_s: time that its update took; None where there was none.
        """
        if not self._arrivals.setdefault(camera, _Arrivals()).add(received_s, number, dropped):
            self._forget()  # the camera paused, or this process did
        self._times.append(_Time(now_s, frame_s, key_s, update_s))
        while len(self._times) > FEW_FRAMES and self._times[0].now_s < now_s - WINDOW_S:
            self._times.popleft()

    def key_frame(self, key_s: float, rows: int) -> None:
        """Note a key frame that was segmented: how long that took with all processors, and at which size."""
        if rows == self.step.rows:
            self._key_times.append(key_s)
        elif self._ahead is not None and rows == self._ahead.rows:
            self._times_ahead.append(key_s)
            if len(self._times_ahead) == TRIED_KEY_FRAMES:  # the first ones take longer: their memory is fresh
                self._keys.measured(rows, min(self._times_ahead))

    def decide(self, now_s: float) -> Move | None:
        """Return the move to make now; None for none. To be asked after each frame."""
        if self._moved_s is None:
            self._begun_s = self._moved_s = now_s
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
            self._not_calm()
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
        self._not_calm()

    def _not_calm(self) -> None:
        self._calm_since_s = None
        self._ahead = None

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
        every = [one for one in self._times if one.key_s is not None]
        # Without an update where one is wanted: of a camera for whose pictures the network is not ready yet.
        others = [one for one in self._times if one.key_s is None and (one.update_s is not None) == self.step.update]
        main = every if not others or (every and _kind_of(self.step) == WAITING) else others
        if not main:
            return
        average, stride = _average([one.frame_s for one in main]), self.step.grid_stride
        self._frames.measured((stride, WAITING if main is every else _kind_of(self.step)), average)
        if self.step.key_frames == "sync" and main is others and every:
            self._frames.related((stride, WAITING), _average([one.frame_s for one in every]))
        updates = [one.update_s for one in main if one.update_s is not None]
        if updates:
            self._update_s = _average(updates)
        taken = [one.frame_s + (one.update_s or 0.0) for one in main]
        self._spread = max(1.0, _longer(taken) / _average(taken))
        totals = [one.frame_s + (one.key_s or 0.0) for one in every]
        self._waiting_spread = max(1.0, _longer(totals) / _average(totals)) if len(totals) >= FEW_KEY_FRAMES else None
        if len(self._key_times) >= FEW_KEY_FRAMES:
            self._keys.measured(self.step.rows, sorted(self._key_times)[(len(self._key_times) - 1) // 2])
        elif not self._keys.is_known:  # so that a computer that is too slow for both is told from the frames alone
            self._keys.assumed(self.step.rows, KEY_COST * average)

    def _forecast(self, step: Step, demand: Demand) -> Forecast:
        kind, key_s = UPDATED if step.update else PROPAGATED, self._keys.of(step.rows)
        frame_s = self._frames.of((step.grid_stride, kind)) * self._bias
        # What is done at a key frame besides, be it beside the frames.
        more_s = max(0.0, self._frames.of((step.grid_stride, WAITING)) * self._bias - frame_s)
        if step.update:
            update_s = self._update_s
            if update_s is None:
                update_s = UPDATE_COST * self._keys.of(self._most_rows)
            update_s *= self._bias
            frame_s += update_s
            if step.key_frames == "sync":  # a frame that waits for its key frame is not updated
                more_s -= min(update_s, key_s + more_s)
        spread = self._spread
        if step.key_frames == "sync":
            own_s = frame_s + more_s
            spread = (own_s * spread + key_s) / (own_s + key_s)
            if self.step.key_frames == "sync" and self._waiting_spread is not None:
                spread = self._waiting_spread  # measured together
        # A longer frame and the one that waits behind it have two periods.
        return forecast(step, frame_s, key_s + more_s, demand, self._accuracy, (1.0 + spread) / 2)

    def _is_ready(self, step: Step) -> bool:
        """Tell if the network has been in use at a step's rows, and the update network can be."""
        return self._keys.was_tried(step.rows) and (self._has_updater or not step.update)

    def _is_too_much(self, found: Forecast, dropped: float) -> bool:
        return found.frame_share > TOO_MUCH or (dropped > MOST_DROPPED and self._bias > 1.5)

    def _fits(self, found: Forecast) -> bool:
        return found.frame_share <= ENOUGH and found.oldest_s <= 0.8 * self._max_age_s

    def _forecasts(self, steps: Iterable[Step], demand: Demand) -> list[tuple[Step, Forecast]]:
        return [(step, self._forecast(step, demand)) for step in steps]

    def _best(self, found: list[tuple[Step, Forecast]]) -> tuple[Step, Forecast]:
        """The best of the steps that leaves headroom; where none does, the one that is nearest to it."""
        fitting = [one for one in found if self._fits(one[1])]
        if fitting:
            return max(fitting, key=lambda one: one[1].worth)
        lightest = min(max(one.frame_share / ENOUGH, one.oldest_s / self._max_age_s) for _, one in found)
        near = [
            one
            for one in found
            if max(one[1].frame_share / ENOUGH, one[1].oldest_s / self._max_age_s) <= 1.02 * lightest
        ]
        return max(near, key=lambda one: one[1].worth)

    def _leave(self, now_s: float, demand: Demand, current: Forecast, dropped: float) -> Move | None:
        # Until the network is ready at another size the last one is used, which is no matter where no frame waits.
        steps = [one for one in self._steps if self._has_updater or not one.update]
        at_once = [one for one in steps if one.key_frames != "sync" or self._is_ready(one)]
        step, found = self._best(self._forecasts(at_once or steps, demand))
        if step == self.step or found.frame_share > 0.97 * current.frame_share:
            return None
        self._has_left = True
        if self._went_up_s is not None and now_s - self._went_up_s < SOON_S:
            self._calm_s = min(MOST_CALM_S, 2 * self._calm_s)
        reason = f"a frame takes {100 * current.frame_share:.0f} % of the {1e3 * demand.period_s:.1f} ms there are"
        if dropped > 0:
            reason += f", {100 * dropped:.0f} % of the frames are dropped"
        return self._move(now_s, Move(step, reason, found))

    def _improve(self, now_s: float, demand: Demand, current: Forecast) -> Move | None:
        # What was chosen first was chosen blind.
        is_start = not self._has_left and (self._went_up_s is None or now_s - self._begun_s < START_S)
        if not is_start and self._ahead is None and now_s - self._looked_up_s < LOOK_UP_S:
            return None
        self._looked_up_s = now_s
        every = self._forecasts(self._steps, demand)
        gain = START_GAIN if is_start else GAIN
        step, found = self._tried_now(every, current, gain) or self._best_or_plain(every)
        if not self._is_better(step, found, current, gain):
            self._not_calm()
            return None
        self._calm_since_s = self._calm_since_s or now_s
        needed_s = LOOK_S if is_start else self._calm_s
        if now_s - self._calm_since_s < needed_s:
            return None
        if not self._is_ready(step):
            # What its frames would take until then is what the last size takes, and compiling: no step for that.
            self._ask_ahead(now_s, step)
            if now_s - self._asked_s < PATIENCE_S:
                return None
            ready = [one for one in every if self._is_ready(one[0])]
            if not ready:
                return None
            step, found = self._best(ready)
            if not self._is_better(step, found, current, gain):
                return None
        self._went_up_s = now_s
        reason = (
            f"{found.accuracy:.1f} points of mIoU are expected in place of {current.accuracy:.1f}: a frame takes "
            f"{100 * found.frame_share:.0f} % of the {1e3 * demand.period_s:.1f} ms there are"
        )
        return self._move(now_s, Move(step, reason, found))

    def _tried_now(
        self, every: list[tuple[Step, Forecast]], current: Forecast, gain: float
    ) -> tuple[Step, Forecast] | None:
        """The step that is asked for ahead, if it is still better: of two as good as each other, one is tried first."""
        if self._ahead is None or self._is_ready(self._ahead):
            return None
        return next((one for one in every if one[0] == self._ahead and self._is_better(*one, current, gain)), None)

    def _best_or_plain(self, every: list[tuple[Step, Forecast]]) -> tuple[Step, Forecast]:
        """The best step; one for which the update network has yet to begin only where it is better by `GAIN`."""
        plain = self._best([one for one in every if self._has_updater or not one[0].update])
        if self._has_updater or self._is_refused:
            return plain
        best = self._best(every)
        return best if best[1].worth > plain[1].worth + GAIN else plain

    def _is_better(self, step: Step, found: Forecast, current: Forecast, gain: float) -> bool:
        if current.oldest_s > 0.95 * self._max_age_s and step != self.step:
            return found.oldest_s < current.oldest_s
        return step != self.step and found.worth > current.worth + gain and self._fits(found)

    def _ask_ahead(self, now_s: float, step: Step) -> None:
        last = self._ahead
        if last is None or (last.rows, last.update) != (step.rows, step.update):
            self._asked_s = now_s
            self._times_ahead.clear()
        self._ahead = step

    def _move(self, now_s: float, move: Move) -> Move:
        if move.step.rows != self.step.rows:
            self._key_times.clear()
            self._keys.entered()
        last, following = ((one.grid_stride, _kind_of(one)) for one in (self.step, move.step))
        if last != following:
            self._frames.entered()
        self.step = move.step
        self._moved_s = now_s
        self._bias = 1.0
        self._forget()
        return move


class _Time(NamedTuple):
    """What a frame took: when it was ready, its own time, and that of its key frame and its update, if any."""

    now_s: float
    frame_s: float
    key_s: float | None
    update_s: float | None


def _kind_of(step: Step) -> str:
    """The kind of a step's frames, or of those between its key frames."""
    if step.key_frames == "sync" and step.interval == 0:
        return WAITING
    return UPDATED if step.update else PROPAGATED


def _average(times: list[float]) -> float:
    """Mean of all but the longest tenth."""
    middle = sorted(times)[: max(1, round(0.9 * len(times)))]
    return sum(middle) / len(middle)


def _longer(times: list[float]) -> float:
    return sorted(times)[round(0.85 * (len(times) - 1))]


class _Costs(Generic[Choice]):
    """Seconds by a choice (rows; or grid stride and kind of frame), measured for the one in use, scaled for others.

    Args:
        prior: relative costs, before they were measured.
        hope: factor of those that have not been measured: what might be worth while is tried.
    """

    NEAR = 1.6
    """What was measured is within this factor of the prior: the rest is the computer's speed."""

    def __init__(self, prior: dict[Choice, float], hope: float = 1.0):
        self._prior = prior
        self._hope = hope
        self._tried: set[Choice] = set()
        self._relative = dict(prior)
        self._speed: float | None = None
        self.is_known = False
        self._is_new = False

    def entered(self) -> None:
        """Note that another choice is in use: what is measured next tells its relative cost."""
        self._is_new = self.is_known

    def measured(self, choice: Choice, seconds: float) -> None:
        if self._is_new or (self.is_known and choice not in self._tried):
            self._is_new = False
            self.related(choice, seconds)
        self._tried.add(choice)
        self._speed = seconds / self._relative[choice]
        self.is_known = True

    def related(self, choice: Choice, seconds: float) -> None:
        """Take what a choice costs beside the one in use."""
        assert self._speed is not None  # that was measured
        low, high = self._prior[choice] / self.NEAR, self._prior[choice] * self.NEAR
        self._relative[choice] = min(high, max(low, seconds / self._speed))
        self._tried.add(choice)

    def was_tried(self, choice: Choice) -> bool:
        return choice in self._tried

    def assumed(self, choice: Choice, seconds: float) -> None:
        """Take a guess until something is measured."""
        self._speed = seconds / self._relative[choice]

    def of(self, choice: Choice) -> float:
        """Return the cost that is expected of a choice, in seconds."""
        assert self._speed is not None  # asked for once something was measured or assumed
        return self._speed * self._relative[choice] * (1.0 if choice in self._tried else self._hope)
