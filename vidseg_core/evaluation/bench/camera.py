"""A camera in real time: the governor against the best fixed configuration, alone and with a processor taken away."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidseg_core.engine.build import build_engine, update_network
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.governed import GOVERNED, GovernedEngine
from vidseg_core.evaluation.metrics.distribution import distribution
from vidseg_core.evaluation.replay.live import Arrival, Log, percent, play
from vidseg_core.frame import Frame, Segmentation
from vidseg_core.models.open import open_model
from vidseg_core.street import StreetConfig
from vidseg_core.street.pack import packed_frames

CAMERAS = ((640, 360, 30.0), (1280, 720, 30.0), (1920, 1080, 30.0), (2880, 1860, 15.0))
"""Width, height and rate in Hz."""
MOST_FRAMES_BYTES = 2_000_000_000
MOST_STREET_S = 8.0
SETTLED_S = 5.0
ENOUGH = 97.0
"""Percent of the frames after the first seconds that a fixed configuration has to label to be the best."""
SWEEP_SHARE = 0.4
"""Of the seconds of a run, for each fixed configuration of the sweep."""
RATE_SHARE = 0.95
"""Of the frames of any second, that count as the camera's rate."""


@dataclass(frozen=True)
class Fixed:
    """A configuration that somebody might set by hand.

    Attributes:
        key_frames, interval: see `EngineConfig`.
        share: of the size of the network's input that suits the network.
    """

    key_frames: str
    interval: int
    share: float

    def __str__(self) -> str:
        return f"{self.key_frames}, interval {self.interval}, {self.share:g} of the rows"


FIXED = (
    *(Fixed("async", 0, share) for share in (1.0, 0.7, 0.5)),
    Fixed("async", 4, 0.7),
    Fixed("sync", 4, 1.0),
    Fixed("sync", 0, 0.5),
)


def bench_camera(
    config: EngineConfig,
    size: tuple[int, int],
    rate_hz: float,
    seconds: float,
    seed: int,
    tell: Callable[[str], object],
    rounds: int = 1,
) -> dict:
    """Measure one camera.

    Args:
        config: weights, runtime and threads; what the governor chooses is replaced.
        size: (W, H) of the synthetic street's frames.
        rate_hz: at which they arrive.
        seconds: of each run.
        seed: of the street.
        tell: takes a line for every run that comes.
        rounds: how often governor and best configuration are run in turn; the round of median mIoU counts.

    Returns:
        JSON-safe: `governor` and `fixed`, each `alone` and `busy` (see `_run`) with `streaming_mious` of all rounds;
        `best`, the fixed one; `sweep`.
    """
    tell(f"{size[0]} x {size[1]}: draws the street")
    frames = _street(size, rate_hz, seconds, seed)
    sweep = []
    for fixed in FIXED:
        tell(f"{size[0]} x {size[1]}: {fixed}")
        short = frames[: max(2, round(SWEEP_SHARE * len(frames)))]
        sweep.append((fixed, _run(_by_hand(config, fixed, size), (), short, rate_hz, is_busy=False)))
    best, _ = max(sweep, key=lambda one: (min(one[1]["labelled"], ENOUGH), one[1]["streaming_miou"] or 0.0))
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for number in range(rounds):
        for load in ("alone", "busy"):
            for kind in ("governor", "fixed"):
                tell(f"{size[0]} x {size[1]}: {kind if kind == 'governor' else best}, {load}, {number + 1} of {rounds}")
                free = GOVERNED if kind == "governor" else ()
                begins = replace(config, key_frames="async", interval=0)  # as the node does
                asked = begins if kind == "governor" else _by_hand(config, best, size)
                one = _run(asked, free, frames, rate_hz, is_busy=load == "busy")
                runs.setdefault((kind, load), []).append(one)
    found = {kind: {load: _median(runs[kind, load]) for load in ("alone", "busy")} for kind in ("governor", "fixed")}
    return {
        "width": size[0], "height": size[1], "rate_hz": rate_hz, "seconds": seconds, "best": str(best), **found,
        "sweep": [{"configuration": str(fixed), **result} for fixed, result in sweep],
    }  # fmt: skip


def table(reports: list[dict]) -> str:
    """Write what was measured as a table."""
    heads = (
        "camera", "", "what", "labelled", "rate Hz", "p50 ms", "p95 ms", "p99 ms",
        "mIoU", "back s", "memory MB", "first s",
    )  # fmt: skip
    rows = [heads]
    for report in reports:
        camera = f"{report['width']} x {report['height']}, {report['rate_hz']:g} Hz"
        for load in ("alone", "busy"):
            for kind in ("governor", "fixed"):
                one = report[kind][load]
                latency = [one["latency_ms"][mark] for mark in ("p50", "p95", "p99")]
                what = kind if kind == "governor" else report["best"]
                back = "" if one["back_s"] is None else f"{one['back_s']:.1f}"
                figures = [one["labelled"], one["rate_hz"], *latency, one["streaming_miou"]]
                last = (back, f"{one['memory_mb']:.0f}", f"{one['first_label_s']:.1f}")
                rows.append((camera, load, what, *(f"{value:.1f}" for value in figures), *last))
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _by_hand(config: EngineConfig, fixed: Fixed, size: tuple[int, int]) -> EngineConfig:
    suits = open_model(config.weights).card.input.scale_for((size[1], size[0]))
    scale = min(2.0, max(0.25, fixed.share * suits))
    return replace(config, key_frames=fixed.key_frames, interval=fixed.interval, input_scale=scale)


def _street(size: tuple[int, int], rate_hz: float, seconds: float, seed: int) -> list[Arrival]:
    """Frames of a street, there and back again without a jump, as they arrive."""
    held = int(MOST_FRAMES_BYTES / (4 * size[0] * size[1]))
    count = max(2, min(round(min(seconds, MOST_STREET_S) * rate_hz), held))
    drive = list(packed_frames(StreetConfig(seed, *size, rate_hz, count)))
    turn = drive + drive[-2:0:-1]
    arrivals = []
    for i in range(round(seconds * rate_hz)):
        at_ns = round(i * 1e9 / rate_hz)
        frame = turn[i % len(turn)]
        arrivals.append(Arrival(at_ns, replace(frame, stamp_ns=at_ns, name=str(i + 1), pause_s=0.0)))
    return arrivals


def _run(
    config: EngineConfig, free: Collection[str], frames: list[Arrival], rate_hz: float, is_busy: bool
) -> dict[str, Any]:
    """Play the frames at their pace, with all that a start costs before.

    Returns:
        JSON-safe: `labelled`, percent of the frames after the first seconds; `rate_hz`; `latency_ms` from a frame's
        arrival to its labels, after the first seconds; `streaming_miou`; `back_s`, seconds from when the processor is
        taken away until the rate is the camera's again for good, None without; `memory_mb`, proportional set size of
        all processes without the images played; `first_label_s`, from the start; `moves`, when and where to.
    """
    gc.collect()
    begun_s, period_ns = time.monotonic(), round(1e9 / rate_hz)
    moves: list[tuple[float, str]] = []
    with build_engine(config) as built, closing(_governed(built, free)) as engine:
        stream = engine.stream()
        stream.step(frames[0].frame)
        first_s = time.monotonic() - begun_s
        stream.step(replace(frames[0].frame, stamp_ns=1))
        stream.reset()
        processed = 0

        def step(frame: Frame) -> Segmentation:
            nonlocal processed
            begin_s = time.monotonic()
            result = stream.step(frame)
            processed += 1
            number = int(frame.name)
            arrived_s = played_s + frame.stamp_ns / 1e9
            move = engine.note(
                stream, result, time.monotonic() - begin_s, arrived_s, number, max(0, number - processed)
            )
            if move is not None:
                moves.append((round(frame.stamp_ns / 1e9, 2), str(move.step)))
            return result

        seconds = len(frames) / rate_hz
        with _busy(seconds / 3 if is_busy else None):
            played_s = time.monotonic()
            log = play(step, frames, len(engine.classes), period_ns)
            memory_mb = (
                _memory_mb() - sum({id(one.frame.image): one.frame.image.nbytes for one in frames}.values()) / 1e6
            )
    return _figures(log, frames, rate_hz) | {
        "back_s": _back_s(log, frames, seconds / 3, rate_hz) if is_busy else None,
        "memory_mb": round(memory_mb, 1),
        "first_label_s": round(first_s, 2),
        "moves": moves,
    }


def _governed(engine: Engine, free: Collection[str]) -> GovernedEngine:
    """Leave those options to a governor, as the node does."""
    return GovernedEngine(engine, free, update=update_network(engine) if "update_weights" in free else None)


def _figures(log: Log, frames: list[Arrival], rate_hz: float) -> dict[str, Any]:
    after_ns = min(SETTLED_S, len(frames) / rate_hz / 2) * 1e9
    settled = [output for output in log.outputs if output.arrived_ns >= after_ns]
    due = sum(frame.at_ns >= after_ns for frame in frames)
    return {
        "labelled": round(100 * len(settled) / max(1, due), 2),
        "rate_hz": round(rate_hz * len(settled) / max(1, due), 2),
        "latency_ms": distribution([(one.done_ns - one.arrived_ns) / 1e6 for one in settled], (50, 95, 99, 100)),
        "streaming_miou": percent(log.board.streaming.mean_iou()),
    }


def _back_s(log: Log, frames: list[Arrival], from_s: float, rate_hz: float) -> float:
    """Measure the seconds after `from_s` from which on no second has fewer labelled frames than `RATE_SHARE`."""
    labelled = {output.arrived_ns for output in log.outputs}
    window = round(rate_hz)
    begin = round(from_s * rate_hz)
    back = begin
    for i in range(begin, len(frames) - window + 1):
        if sum(frame.at_ns in labelled for frame in frames[i : i + window]) < RATE_SHARE * window:
            back = i + 1
    return round((back - begin) / rate_hz, 2)


def _median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the run of median mIoU, with those of all."""
    mious = [one["streaming_miou"] for one in runs]
    ordered = sorted(runs, key=lambda one: one["streaming_miou"] or 0.0)
    return ordered[(len(runs) - 1) // 2] | {"streaming_mious": mious}


@contextmanager
def _busy(after_s: float | None) -> Iterator[None]:
    """Keep one processor busy from so many seconds on; None for never."""
    if after_s is None:
        yield
        return
    processor = max(os.sched_getaffinity(0))
    code = f"import os, time; os.sched_setaffinity(0, {{{processor}}}); time.sleep({after_s})\nwhile True: pass"
    loop = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        loop.kill()
        loop.wait()


def _memory_mb() -> float:
    """Sum the proportional set sizes of this process and its children."""
    own = os.getpid()
    total_kb = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, StopIteration, ValueError):
            pid = int(status.parent.name)
            parent = int(status.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            if own in (pid, parent):
                lines = (status.parent / "smaps_rollup").read_text(encoding="utf-8").splitlines()
                total_kb += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total_kb / 1000
