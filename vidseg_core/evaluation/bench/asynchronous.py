"""Time a stream with asynchronous key frames whose frames arrive at a camera's rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.stream import Stream
from vidseg_core.evaluation.metrics.distribution import distribution
from vidseg_core.frame import Frame, Segmentation
from vidseg_core.street import Street, StreetConfig

RATE_HZ = 30.0
SIZE = 360, 480
NUM_FRAMES = 240
ROUNDS = 5
WARM_UP = 10


def bench_async(
    config: EngineConfig, num_frames: int = NUM_FRAMES, size: tuple[int, int] = SIZE, rate_hz: float = RATE_HZ,
    progress: Callable[[Iterable], Iterable] = iter, rounds: int = ROUNDS,
) -> dict:  # fmt: skip
    """Measure the time from a frame's arrival to its labels, waiting included, with asynchronous key frames.

    In turn with it, at the same rate, a stream that waits for its key frames, and only has one: what its other frames
    take. How uneven those are is what the rest of the machine does.

    Args:
        config: weights, runtime, threads, and everything else; `key_frames` is replaced.
        num_frames: measured with asynchronous key frames in each round, a third of it without.
        size: (H, W) of the frames.
        rate_hz: at which they arrive.
        progress: wraps the iteration over the frames, for instance `tqdm`.
        rounds: 1 or more.

    Returns:
        JSON-safe, medians of the rounds: `async_p99_over_median`, `async_key_ratio` (labels fresh from a key frame per
        frame), `async_median_over_sync_non_key`, `async_median_ms`, `async_p99_ms`, `async_oldest_labels` (frames),
        `sync_non_key_median_ms`, `sync_non_key_p99_over_median`; and `async_rounds`, a list of the same of each round.
    """
    street = Street(StreetConfig(0, size[1], size[0], rate_hz, 60))
    frames = [street.render(i) for i in range(30)]
    frames += frames[-2:0:-1]  # there and back again, without a jump
    waits = replace(config, key_frames="sync", schedule="fixed", interval=num_frames)
    with build_engine(waits) as sync, build_engine(replace(config, key_frames="async")) as beside:

        def one_round() -> dict:
            sync_ms, _ = _times(sync.stream(), frames, num_frames // 3, rate_hz, progress)
            async_ms, results = _times(beside.stream(), frames, num_frames, rate_hz, progress)
            median, p99 = distribution(async_ms, (50, 99), None).values()
            sync_median, sync_p99 = distribution(sync_ms, (50, 99), None).values()
            return {
                "async_p99_over_median": float(p99 / median),
                "async_key_ratio": sum(result.is_key for result in results) / len(results),
                "async_median_over_sync_non_key": float(median / sync_median),
                "async_median_ms": float(median),
                "async_p99_ms": float(p99),
                "async_oldest_labels": max(result.age for result in results),
                "sync_non_key_median_ms": float(sync_median),
                "sync_non_key_p99_over_median": float(sync_p99 / sync_median),
            }

        measured = [one_round() for _ in range(rounds)]
    medians = {key: float(np.median([one[key] for one in measured])) for key in measured[0]}
    return medians | {"async_rounds": measured}


def describe(report: dict, size: tuple[int, int] = SIZE) -> str:
    """Format the figures as text; `size` is that of the frames, (H, W)."""
    return (
        f"{size[1]} x {size[0]} at {RATE_HZ:g} Hz, asynchronous key frames: median {report['async_median_ms']:.2f} ms, "
        f"{report['async_median_over_sync_non_key']:.2f} x a synchronous non-key frame; 99th percentile "
        f"{report['async_p99_ms']:.2f} ms, {report['async_p99_over_median']:.2f} x the median ({_spread(report)}; "
        f"non-key frames alone {report['sync_non_key_p99_over_median']:.2f} x); labels fresh from a key frame on "
        f"{100 * report['async_key_ratio']:.0f} % of frames, at most {report['async_oldest_labels']:.0f} frames old"
    )


def _spread(report: dict) -> str:
    ratios = [one["async_p99_over_median"] for one in report["async_rounds"]]
    return f"{min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds"


def _times(
    stream: Stream, frames: list[Frame], count: int, rate_hz: float, progress: Callable[[Iterable], Iterable]
) -> tuple[list[float], list[Segmentation]]:
    """Milliseconds from arrival to labels, and the labels, after `WARM_UP` frames that do not count."""
    times, results = [], []
    begin = None
    for i in progress(range(WARM_UP + count)):
        frame = replace(frames[i % len(frames)], stamp_ns=round(i * 1e9 / rate_hz))
        if begin is None and i == WARM_UP // 2:  # the first frames compile and allocate: nothing arrives meanwhile
            begin = time.perf_counter() - i / rate_hz
        if begin is not None:
            arrival = begin + i / rate_hz
            time.sleep(max(0.0, arrival - time.perf_counter()))
        result = stream.step(frame)
        if i >= WARM_UP:
            times.append((time.perf_counter() - arrival) * 1e3)
            results.append(result)
    return times, results
