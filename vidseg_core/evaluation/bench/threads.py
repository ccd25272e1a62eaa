"""Time each kernel of a propagated frame on one thread, on all, and on as many as are worth it, in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from vidseg_core.arrays import as_array, channels_first, pixels_last
from vidseg_core.backends.cpu_features import cpuinfo
from vidseg_core.engine.flow import DIS_PIXELS
from vidseg_core.evaluation.bench.against_plain import street_frames
from vidseg_core.evaluation.bench.propagated import Case, stage_grid
from vidseg_core.kernels.decode import decode_warped, one_class
from vidseg_core.kernels.difference import difference
from vidseg_core.kernels.flow import dense_flow, pyramid
from vidseg_core.kernels.grey import grey_picture
from vidseg_core.kernels.picture import grid_picture
from vidseg_core.kernels.resample import network_input
from vidseg_core.kernels.update import update
from vidseg_core.kernels.warp import compose, warp
from vidseg_core.overlay import overlay
from vidseg_core.threads import num_threads, regardless, set_num_threads

CASES = (Case((240, 320), 2), Case((360, 480), 2), Case((360, 480), 4), Case((720, 1280), 4), Case((1024, 2048), 4))
CLASSES = 11
CALLS = 10  # before it is the turn of another number of threads
WAYS = ("one", "all", "worth")


def bench_threads(
    threads: int, cases: Iterable[Case] = CASES, rounds: int = 10, progress: Callable[[Iterable], Iterable] = iter
) -> dict:
    """Time the kernels.

    Args:
        threads: all; 0 for those that there are.
        cases: what to run; logits of 11 classes.
        rounds: turns of each.
        progress: wraps the iteration over cases.

    Returns:
        JSON-safe: `processor`, `threads`, and `rows`: `case`, `kernel`, and medians in milliseconds: `one`, `all`,
        `worth` (see `vidseg_core.threads.worth`).
    """
    every = set_num_threads(threads)
    rows = []
    try:
        for case in progress(cases):
            for name, kernel in _kernels(case).items():
                rows.append({"case": case.name, "kernel": name} | _times(kernel, every, rounds))
    finally:
        set_num_threads(every)
    return {"processor": cpuinfo("model name"), "threads": every, "rows": rows}


def _times(kernel: Callable[[], object], every: int, rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS if number % 2 else WAYS[::-1]:
            if num_threads() != (wanted := 1 if way == "one" else every):
                set_num_threads(wanted)
            with regardless(way == "all"):
                kernel()
                for _ in range(CALLS):
                    begin = time.perf_counter()
                    kernel()
                    times[way].append((time.perf_counter() - begin) * 1e3)
    return {way: statistics.median(values) for way, values in times.items()}


def _kernels(case: Case) -> dict[str, Callable[[], object]]:
    """Return what to call, by name."""
    last, frame = street_frames(case.size, 2)
    grid, working = stage_grid(case), case.size
    while working[0] * working[1] > DIS_PIXELS:
        working = working[0] // 2, working[1] // 2
    now, before = (pyramid(grey_picture(one.image, working)) for one in (frame, last))
    flow, logits = dense_flow(now, before, grid), _logits(last.labels, grid)
    alike, shown = one_class(logits), grid_picture(last.image, grid)
    fresh = channels_first(pixels_last(logits)[::2, ::2].copy())
    labels = decode_warped(logits, flow, alike, case.size)
    apart = difference(grid_picture(frame.image, grid), shown, flow)
    lut = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    return {
        "grey levels": partial(grey_picture, frame.image, working),
        "flow": partial(dense_flow, now, before, grid),
        "motions chained": partial(compose, flow, flow),
        "logits moved": partial(warp, logits, flow),
        "labels": partial(decode_warped, logits, flow, alike, case.size),
        "overlay": partial(overlay, frame.image, labels, lut),
        "where one class is": partial(one_class, logits),
        "pictures compared": partial(difference, shown, shown, flow),
        "update": partial(update, logits, fresh, apart),
        "picture for a network": partial(network_input, frame.image, grid),
    }


def _logits(labels: np.ndarray | None, grid: tuple[int, int]) -> np.ndarray:
    """Return 1 x C x h x w, channels last, whose argmax is about the labels on the grid."""
    assert labels is not None  # streets have them
    shares = F.one_hot(torch.from_numpy(labels).long().clamp(max=CLASSES - 1), CLASSES).permute(2, 0, 1)[None]
    shares = F.interpolate(shares.float(), grid, mode="area")
    noise = torch.randn(shares.shape, generator=torch.Generator().manual_seed(0))
    return as_array((8 * shares + 0.3 * noise).contiguous(memory_format=torch.channels_last))


def table(report: dict) -> str:
    """Format the report as text."""
    lines = [f"{report['processor']}, {report['threads']} threads; medians in ms"]
    case = None
    for row in report["rows"]:
        if row["case"] != case:
            case = row["case"]
            lines.append(f"{case:<40}{'one':>8}{'all':>8}{'worth':>8}  all / one")
        times = "".join(f"{row[way]:8.3f}" for way in WAYS)
        lines.append(f"  {row['kernel']:<38}{times}  {row['all'] / row['one']:.2f}")
    return "\n".join(lines)
