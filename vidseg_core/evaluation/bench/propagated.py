"""Time the propagated frame stage by stage, beside what its bytes alone would take."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch

from vidseg_core import __version__
from vidseg_core.backends.cpu_features import cpuinfo
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.flow import DIS_PIXELS
from vidseg_core.engine.remember import RememberedSegmenter, by_name
from vidseg_core.engine.stream import Stream
from vidseg_core.evaluation.bench.against_plain import OPACITY, STEP_NS, street_frames
from vidseg_core.frame import Frame
from vidseg_core.kernels.cpu.decode import MIXED
from vidseg_core.kernels.decode import one_class
from vidseg_core.kernels.resample import on_grid
from vidseg_core.overlay import overlay
from vidseg_core.threads import over_rows, set_num_threads

STAGES = ("prepare", "flow", "warp", "decode", "overlay", "rest", "frame")
INTERVAL = 4
COPIES = 5
# Bytes of pictures that no cache holds.
UNCACHED = 128_000_000


@dataclass(frozen=True)
class Case:
    """Frames of one size, (H, W), whose logits are carried at 1/`grid_stride`."""

    size: tuple[int, int]
    grid_stride: int

    @property
    def name(self) -> str:
        """Name it in the table."""
        return f"{self.size[1]} x {self.size[0]}, logits at 1/{self.grid_stride}"


CASES = (Case((1024, 2048), 8), Case((1024, 2048), 4), Case((360, 480), 4), Case((240, 320), 2))


def bench_propagated(
    config: EngineConfig, cases: Iterable[Case] = CASES, rounds: int = 30,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict:  # fmt: skip
    """Time propagated frames, overlay included, without refinement and updates, on all threads and on one.

    Args:
        config: weights, runtime and threads; networks see each key frame once.
        cases: what to run.
        rounds: loops of a key frame and four propagated ones, after two that are not counted.
        progress: wraps the iteration over cases and numbers of threads.

    Returns:
        JSON-safe: `version`, `processor`, and `rows`: `case`, `threads`, `gb_s` (copies of pictures, bytes read and
        written), `stages`: name -> `mb` (read and written once), `floor_ms` (those at `gb_s`), `ms` (the shortest),
        `median_ms`, `share` (of the floor in the shortest); without the first two and the last for "rest", which is
        all that no stage counts.
    """
    rows = []
    with build_engine(config) as engine:
        every = set_num_threads(config.num_threads)
        segmenter = RememberedSegmenter(engine.networks.segmenter, recognise=by_name)
        jobs = [(case, threads) for case in cases for threads in sorted({every, 1}, reverse=True)]
        try:
            for case, threads in progress(jobs):
                settings = {"interval": INTERVAL, "grid_stride": case.grid_stride, "fusion": False, "ego_mask": None}
                engine_of_case = engine.variant(replace(config, flow="dis", **settings), segmenter=segmenter)
                frames = street_frames(case.size, INTERVAL + 1)
                segmenter(frames[0])
                set_num_threads(threads)
                stream = engine_of_case.stream(key_delay=0)
                times = _times(stream, frames, rounds, engine.classes.lut)
                with torch.inference_mode():
                    logits = on_grid(segmenter(frames[0]), stage_grid(case))
                    mixed = float((one_class(logits) == MIXED).float().mean())
                rows.append(_row(case, threads, times, logits.shape[1], mixed))
        finally:
            set_num_threads(every)
    return {"version": __version__, "processor": cpuinfo("model name"), "rows": rows}


def stage_grid(case: Case) -> tuple[int, int]:
    """Return (h, w) of the case's grid."""
    return case.size[0] // case.grid_stride, case.size[1] // case.grid_stride


def stage_bytes(case: Case, classes: int, mixed: float, working: tuple[int, int]) -> dict[str, float]:
    """Count the bytes that each stage cannot do without, everything read and written once.

    Args:
        case: sizes.
        classes: number of classes.
        mixed: share of the grid's pixels whose logits labels depend on.
        working: (h, w) of the picture that flow works on.
    """
    pixels, grid = case.size[0] * case.size[1], np.prod(stage_grid(case))
    pyramid = 4 * np.prod(working) * 4 / 3  # float32; each level has a quarter of the one before
    motion = 8 * grid
    return {
        "prepare": float(3 * pixels + 2 * np.prod(working) + pyramid),
        "flow": float(2 * pyramid + motion),
        "warp": float(3 * motion),
        "decode": float(motion + grid + mixed * 4 * classes * grid + pixels),
        "overlay": float(7 * pixels),
    }


def _times(stream: Stream, frames: list[Frame], rounds: int, lut: np.ndarray) -> dict[str, list[float]]:
    times: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 2):
        for k, frame in enumerate(frames):
            frame = replace(frame, stamp_ns=(number * len(frames) + k) * STEP_NS)
            begin = time.perf_counter()
            result = stream.step(frame)
            labelled = time.perf_counter()
            overlay(frame.image, result.labels, lut, OPACITY)
            end = time.perf_counter()
            if number < 2 or result.is_key:
                continue
            for name, milliseconds in result.timings.items():
                times[name].append(milliseconds)
            times["overlay"].append((end - labelled) * 1e3)
            times["rest"].append((labelled - begin) * 1e3 - sum(result.timings.values()))
            times["frame"].append((end - begin) * 1e3)
    return times


def _row(case: Case, threads: int, times: dict[str, list[float]], classes: int, mixed: float) -> dict:
    gb_s, stages = _copies(case), {}
    counted = stage_bytes(case, classes, mixed, _working(case))
    counted["frame"] = sum(counted.values())
    for name in STAGES:
        stage = {"ms": min(times[name]), "median_ms": float(np.median(times[name]))}
        if name in counted:
            floor_ms = counted[name] / gb_s / 1e6
            stage |= {"mb": counted[name] / 1e6, "floor_ms": floor_ms, "share": floor_ms / stage["ms"]}
        stages[name] = stage
    return {"case": case.name, "threads": threads, "gb_s": gb_s, "mixed": mixed, "stages": stages}


def _working(case: Case) -> tuple[int, int]:
    height, width = case.size
    while height * width > DIS_PIXELS:
        height, width = height // 2, width // 2
    return height, width


def _copies(case: Case) -> float:
    """Measure how many GB/s copies of pictures read and write, on the threads that are set, out of no cache."""
    pictures = np.ones((2 * max(1, UNCACHED // (6 * case.size[0] * case.size[1])), *case.size, 3), np.uint8)

    def copy(begin, end, source, target):
        target[begin:end] = source[begin:end]

    best = np.inf
    for _ in range(COPIES):
        for source, target in zip(pictures[::2], pictures[1::2], strict=True):
            begin = time.perf_counter()
            over_rows(copy, case.size[0], source, target)
            best = min(best, time.perf_counter() - begin)
    return 2 * pictures[0].nbytes / best / 1e9


def table(report: dict) -> str:
    """Format the report as text."""
    lines = [f"vidseg {report['version']}, {report['processor']}"]
    for row in report["rows"]:
        lines.append(f"{row['case']}, threads: {row['threads']}, copies {row['gb_s']:.0f} GB/s")
        lines.append(f"  {'stage':<10}{'MB':>8}{'floor ms':>10}{'ms':>8}{'median':>8}{'share':>8}")
        for name, stage in row["stages"].items():
            counted = f"{stage['mb']:8.1f}{stage['floor_ms']:10.2f}" if "mb" in stage else " " * 18
            share = f"{100 * stage['share']:7.0f}%" if "share" in stage else ""
            lines.append(f"  {name:<10}{counted}{stage['ms']:8.2f}{stage['median_ms']:8.2f}{share}")
    return "\n".join(lines)
