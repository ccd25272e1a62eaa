"""Statistics of a camera's stream for /diagnostics: the hot path ticks, a timer reports.

Two clocks: how long something took is told by the steady one; rates, and the age of labels since the camera's stamp, by
the node's, which may be simulated, stand still or jump. Keys are named as in diagnostic_updater where it has them.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from vidseg_core.backends.cpu_features import processor_name
from vidseg_core.classes import VOID
from vidseg_core.evaluation.metrics.distribution import distribution
from vidseg_core.frame import Segmentation

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
SILENCE_S = 2.0
WORST_AGE_S = 10.0
TOLERANCE = 0.9
RATES_OVER_REPORTS = 4
MOST_TICKS = 4096
NO_SETS = "one of them is slower, or its stamps are more than sync_slop_s away"


@dataclass(frozen=True)
class Tick:
    """One frame that was processed.

    Attributes:
        age_ns: from the camera's stamp to the labels' publication, by the node's clock; None for a frame without stamp.
        processing_ns: from reception to publication, by the steady clock.
        is_key, label_age, reset, timings, reason: as in `Segmentation`.
    """

    age_ns: int | None
    processing_ns: int
    is_key: bool
    label_age: int
    reset: str | None
    timings: Mapping[str, float]
    reason: str = ""


@dataclass
class Counts:
    """Since the start. Each is counted by one thread only."""

    received: int = 0
    processed: int = 0
    key_frames: int = 0
    in_sets: int = 0
    dropped: int = 0
    repeated: int = 0
    refused: int = 0
    lost: int = 0
    undecoded: int = 0
    unpublished: int = 0
    outdated: int = 0
    faults: int = 0


@dataclass
class Period:
    """Counts since the last report."""

    ticks: deque = field(default_factory=lambda: deque(maxlen=MOST_TICKS))
    error: str | None = None


class Rates:
    """Counts per second of ROS time, over the last few reports."""

    def __init__(self):
        self._past: deque[tuple[int, tuple[int, ...]]] = deque(maxlen=RATES_OVER_REPORTS)
        self.stands_still = False
        """Whether the clock showed the same time in the last two reports."""

    def update(self, now_ns: int, counts: Sequence[int]) -> tuple[float, ...] | None:
        """Return the rates; None when there are none yet, or the clock stood still or jumped back."""
        moved = bool(self._past) and now_ns > self._past[-1][0]
        self.stands_still = bool(self._past) and now_ns == self._past[-1][0]
        if not moved:
            self._past.clear()
        self._past.append((now_ns, tuple(counts)))
        if not moved:
            return None
        begin_ns, begin = self._past[0]
        return tuple((new - old) * 1e9 / (now_ns - begin_ns) for new, old in zip(counts, begin, strict=True))


class Statistics:
    """Of one camera. Receiving, working and reporting may each be another thread.

    Args:
        topic: that the camera publishes.
        steady_ns: when the camera was activated, by the steady clock.
    """

    def __init__(self, topic: str, steady_ns: int):
        self.topic = topic
        self.synchronised = False
        """Whether only frames count that make a set with those of other cameras."""
        self.decodes = False
        """Whether messages are packets of video."""
        self.counts = Counts()
        self.resets = 0
        self.last_error: str | None = None
        self._last_ns = steady_ns
        self._lock = threading.Lock()
        self._period = Period()
        self._rates = Rates()
        self._last_reset: str | None = None

    def received(self, steady_ns: int) -> None:
        """Count a message that came."""
        self.counts.received += 1
        self._last_ns = steady_ns

    def processed(self, tick: Tick) -> None:
        """Count a frame whose labels are published."""
        self.counts.processed += 1
        self.counts.key_frames += tick.is_key
        with self._lock:
            self._period.ticks.append(tick)
            if tick.reset:
                self.resets += 1
                self._last_reset = tick.reset

    def failed(self, error: str) -> None:
        """Note that a frame got no labels."""
        with self._lock:
            self._period.error = self.last_error = error

    def resume(self, steady_ns: int) -> None:
        """Count silence from now on."""
        self._last_ns = steady_ns
        self._rates = Rates()

    def silence_s(self, steady_ns: int) -> float:
        """Return how long no message came, in seconds."""
        return (steady_ns - self._last_ns) / 1e9

    def report(self, now_ns: int, steady_ns: int, wanted_rate_hz: float, publishers: int, state: str) -> Report:
        """Report what happened since the last report.

        Args:
            now_ns: the node's clock.
            steady_ns: the steady clock.
            wanted_rate_hz: 0 wants what the camera sends.
            publishers: how many there are of the topic.
            state: active, inactive, or disabled.
        """
        with self._lock:
            period, self._period = self._period, Period()
            resets, last_reset = self.resets, self._last_reset
        counts = self.counts
        rates = self._rates.update(now_ns, (counts.received, counts.processed, counts.key_frames, counts.in_sets))
        return Report(
            topic=self.topic,
            state=state,
            synchronised=self.synchronised,
            decodes=self.decodes,
            period=period,
            counts=Counts(**vars(counts)),
            rates=rates,
            clock_stands_still=self._rates.stands_still,
            wanted_rate_hz=wanted_rate_hz or (rates[0] if rates else 0.0),
            explicit_rate=wanted_rate_hz > 0,
            silence_s=self.silence_s(steady_ns),
            publishers=publishers,
            resets=resets,
            last_reset=last_reset,
            last_error=self.last_error,
        )


@dataclass(frozen=True)
class Report:
    """Everything known about a camera at one moment; `level_and_message` and `values` put it in words."""

    topic: str
    state: str
    synchronised: bool
    decodes: bool
    period: Period
    counts: Counts
    rates: tuple[float, ...] | None
    clock_stands_still: bool
    wanted_rate_hz: float
    explicit_rate: bool
    silence_s: float
    publishers: int
    resets: int
    last_reset: str | None
    last_error: str | None
    governor: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_silent(self) -> bool:
        """Tell if frames should have come and did not."""
        longest = max(SILENCE_S, 3 / self.wanted_rate_hz) if self.explicit_rate else SILENCE_S
        return self.state == "active" and self.silence_s > longest

    @property
    def input_too_slow(self) -> bool:
        """Tell if fewer frames arrive than labels are wanted."""
        return self.explicit_rate and self.rates is not None and self.rates[0] < TOLERANCE * self.wanted_rate_hz

    @property
    def output_too_slow(self) -> bool:
        return self.rates is not None and self.rates[1] < TOLERANCE * self.wanted_rate_hz

    @property
    def misses_others(self) -> bool:
        """Tell if frames come that make no set with those of other cameras."""
        return self.synchronised and self.rates is not None and self.rates[3] < TOLERANCE * self.rates[0]

    @property
    def clocks(self) -> str | None:
        """Say what is wrong with the camera's clock or this node's; None if nothing is."""
        ages = [tick.age_ns for tick in self.period.ticks if tick.age_ns is not None]
        if not ages:
            return None
        age_s = float(np.median(ages)) / 1e9
        return None if 0 <= age_s <= WORST_AGE_S else f"clocks disagree: stamps are {age_s:.3f} s old"

    def level_and_message(self) -> tuple[bytes, str]:
        """Return ERROR without frames or labels, WARN below the wanted rate, with a text."""
        if self.state != "active":
            return OK, self.state
        if self.period.error:
            return ERROR, self.period.error
        if self.clock_stands_still:
            return WARN, "the node's clock stands still (use_sim_time without a running /clock)"
        if self.is_silent:
            return ERROR, self._why_silent()
        if self.misses_others and not self.counts.in_sets:
            return WARN, f"no frame yet that makes a set with those of the other cameras: {NO_SETS}"
        if self.rates is None or not self.counts.processed:
            return OK, "waiting for frames"
        message = f"{self.rates[1]:.1f} Hz"
        if self.output_too_slow:
            return WARN, f"{message}, wanted {self.wanted_rate_hz:.1f} Hz: {self._why_slow()}"
        return OK, f"{message}, {self.clocks}" if self.clocks else message

    def _why_silent(self) -> str:
        if not self.publishers:
            return f"no frame for {self.silence_s:.1f} s: nobody publishes {self.topic}"
        return f"no frame for {self.silence_s:.1f} s, though {self.topic} has a publisher"

    def _why_slow(self) -> str:
        if self.input_too_slow:
            return f"the camera delivers {self.rates[0]:.1f} Hz"
        if self.misses_others:
            return f"{self.rates[3]:.1f} of {self.rates[0]:.1f} frames per second make a set: {NO_SETS}"
        each_ms = self._engine_ms()
        took = f"the engine takes {each_ms:.0f} ms per frame and " if each_ms else ""
        return f"{took}{self.rates[0] - self.rates[1]:.1f} frames per second are dropped"

    def _engine_ms(self) -> float:
        return float(np.mean([sum(tick.timings.values()) for tick in self.period.ticks])) if self.period.ticks else 0.0

    def values(self) -> dict[str, str]:
        """Return keys and values of the status."""
        rates = [f"{rate:.2f}" for rate in self.rates] if self.rates else ["unknown"] * 4
        counts = self.counts
        return {
            "State": self.state,
            "Input frequency (Hz)": rates[0],
            "Actual frequency (Hz)": rates[1],
            "Key frame frequency (Hz)": rates[2],
            "Minimum acceptable frequency (Hz)": f"{TOLERANCE * self.wanted_rate_hz:.2f}",
            "Frames received": str(counts.received),
            "Frames processed": str(counts.processed),
            "Key frames": str(counts.key_frames),
            **({"Frames in sets": str(counts.in_sets)} if self.synchronised else {}),
            "Frames dropped": str(counts.dropped),
            "Frames repeated": str(counts.repeated),
            "Frames refused": str(counts.refused),
            "Messages lost in transport": str(counts.lost),
            **({"Packets not decoded": str(counts.undecoded)} if self.decodes else {}),
            "Messages not published": str(counts.unpublished),
            "Frames with outdated labels": str(counts.outdated),
            **_percentiles("Processing latency", [tick.processing_ns for tick in self.period.ticks]),
            **self._age(),
            **self._engine(),
            **self.governor,
            "Resets": str(self.resets),
            "Last reset": self.last_reset or "none",
            "Engine faults": str(counts.faults),
            "Last error": self.last_error or "none",
        }

    def _age(self) -> dict[str, str]:
        ages = [tick.age_ns for tick in self.period.ticks if tick.age_ns is not None]
        if self.period.ticks and not ages:
            return dict.fromkeys(_percentile_keys("Age"), "no stamps")
        return _percentiles("Age", ages) | ({"Clocks": self.clocks} if self.clocks else {})

    def _engine(self) -> dict[str, str]:
        """Milliseconds of each stage, averaged over the frames that had it, and the worst age of the labels."""
        stages: dict[str, list[float]] = {}
        for tick in self.period.ticks:
            for stage, took_ms in tick.timings.items():
                stages.setdefault(stage, []).append(took_ms)
        oldest = max((tick.label_age for tick in self.period.ticks), default=None)
        reasons = Counter(tick.reason for tick in self.period.ticks if tick.is_key)
        return {
            **{f"Engine {stage} (ms)": f"{np.mean(took):.2f}" for stage, took in sorted(stages.items())},
            "Engine total (ms)": f"{self._engine_ms():.2f}",
            "Age of the key frame (frames)": "unknown" if oldest is None else str(oldest),
            "Key frames because of": ", ".join(f"{reason} {n}" for reason, n in sorted(reasons.items())) or "none",
        }

    def status(self, node: str, hardware_id: str) -> DiagnosticStatus:
        """Return the report as a message."""
        level, message = self.level_and_message()
        return DiagnosticStatus(
            level=level,
            name=f"{node}: {self.topic}",
            message=message,
            hardware_id=hardware_id,
            values=[KeyValue(key=key, value=value) for key, value in self.values().items()],
        )


def frame_status(name: str, segmentation: Segmentation, too_old: bool, step: str | None = None) -> DiagnosticStatus:
    """Describe one frame's labels.

    Args:
        name: of the status.
        segmentation: of the frame.
        too_old: whether its labels are void because their evidence was too old.
        step: of the governor's ladder; None without a governor.
    """
    values = {
        "Key frame": str(segmentation.is_key).lower(),
        "Reason": segmentation.reason,
        "Age (s)": f"{segmentation.age_s:.3f}",
        "Age (frames)": str(segmentation.age),
        "Void share": f"{float(np.mean(segmentation.labels == VOID)):.4f}",
        "Reset": segmentation.reset or "none",
    }
    if step is not None:
        values["Step"] = step
    return DiagnosticStatus(
        level=ERROR if too_old else OK,
        name=name,
        message="outdated" if too_old else "key frame" if segmentation.is_key else "propagated",
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )


def device_name(device: str) -> str:
    """Return the product name of `device` (cpu, cuda, cuda:N)."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return processor_name()


def _percentile_keys(what: str) -> tuple[str, str, str]:
    return f"{what} p50 (ms)", f"{what} p95 (ms)", f"{what} max (ms)"


def _percentiles(what: str, durations_ns: Sequence[int]) -> dict[str, str]:
    marks = distribution(np.asarray(durations_ns) / 1e6, (50, 95, 100), None).values()
    named = zip(_percentile_keys(what), marks, strict=True)
    return {key: "unknown" if mark is None else f"{mark:.2f}" for key, mark in named}
