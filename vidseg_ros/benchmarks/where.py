"""Measure where the time goes from an image's stamp to its labels in another process: the engine computes nothing.

    python -m vidseg_ros.benchmarks.where --size 2048x1024 --rate 30 --seconds 20 --json where.json
    python -m vidseg_ros.benchmarks.where --against ../vidseg-0.1.0 --rounds 3

Three processes: a camera that sends as `camera_player` does, the node, an ordinary listener. Each notes by the system
clock when it begins and ends what it does with a frame, so that a frame's stages add up to its latency. The floor of a
stage is what its copies alone take here (memcpy of as many bytes that lie in no cache). Publishing serialized bytes
is two copies, into the writer's history and from there into shared memory; taking them is two, out of the reader's
history into a buffer of rmw_fastrtps's and from there into the message, and rclpy's `bytes` are a third. What DDS does
between two processes, one more copy, is one stage, together with the time in which the other process wakes up.

What taking costs the listener, 0.5 or 4 ms at this size, differs from start to start: glibc keeps the memory that is
freed, or gives it back and gets it anew for every message, by where its blocks happen to lie. With `--keep-memory` it
is told to keep it, in both checkouts.

With `--against`, another checkout takes its turn in every round, each with its own camera, node and listener, without
notes; ratios are of the median over rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import vidseg_core
from vidseg_core.data.writers import write_json
from vidseg_core.evaluation.metrics.distribution import distribution
from vidseg_ros.benchmarks.transport import (
    NODE,
    OVERTIME_S,
    PROCESSES,
    BenchError,
    Load,
    Result,
    Trial,
    camera_arguments,
    count,
    image_size,
    positive,
    profiled_environment,
    summarise,
)
from vidseg_ros.transport import PROFILE_VARIABLES

HERE = Path(vidseg_core.__file__).parents[1]
FORMER_PROCESSES = "vidseg_ros.tools.bench_processes"
"""What `PROCESSES` was called in 0.1.0."""
PROFILE = "config/fastdds_images.xml"
TRACED = ("vidseg_ros.benchmarks.traced_node", *NODE[1:])
TAKE, PROCESS, WRITE, PUBLISH = "take", "process", "write", "publish"
"""What the node notes."""
KEEPING = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
"""Has glibc keep the memory that a process frees, see mallopt(3)."""
COPIES, CACHE_BYTES = 40, 128 << 20


@dataclass(frozen=True)
class Stage:
    """A stage of a frame's way, between two moments.

    Attributes:
        process: who does it.
        what: is done.
        begin, end: names of the moments.
        image_copies, label_copies: copies of the image and of its labels that it makes.
        ours: whether it is vidseg's to make it short.
    """

    process: str
    what: str
    begin: str
    end: str
    image_copies: int = 0
    label_copies: int = 0
    ours: bool = False


STAGES = (
    Stage("camera", "publishes: image into shared memory", "stamp", "sent", image_copies=2, ours=True),
    Stage("DDS", "image to the node, which wakes up", "sent", "take begins", image_copies=1),
    Stage("node", "takes the image", "take begins", "taken", image_copies=2, ours=True),
    Stage("node", "hands it to the worker", "taken", "worker begins"),
    Stage("node", "reads it where it lies; engine", "worker begins", "labels are there"),
    Stage("node", "writes the labels' message", "labels are there", "written", label_copies=1, ours=True),
    Stage("node", "publishes: labels into shared memory", "written", "published", label_copies=2, ours=True),
    Stage("DDS", "labels to the listener, which wakes up", "published", "listener takes", label_copies=1),
    Stage("listener", "takes the labels, as rclpy does", "listener takes", "listener has", label_copies=3),
    Stage("listener", "calls back", "listener has", "heard"),
)


@dataclass(frozen=True)
class Row:
    """A stage as it was measured; milliseconds.

    Attributes:
        mb: what it copies, in all, in units of a million bytes.
        floor_ms: what that takes at least; None where nothing is copied.
        times_floor: p50 by the floor, of stages that are vidseg's.
    """

    process: str
    what: str
    mb: float
    floor_ms: float | None
    p50_ms: float
    p95_ms: float
    times_floor: float | None


def moments(told: Mapping[str, Mapping], measured: Sequence[int]) -> list[dict[str, int]]:
    """Gather the moments of each frame that came through, in ns.

    Args:
        told: the events `sent` of the camera, `notes` of the node and `heard` of the listener.
        measured: stamps that count.
    """
    frames: dict[int, dict[str, int]] = {stamp: {"stamp": stamp} for stamp in measured}
    for stamp, (_, end) in zip(told["sent"]["stamps"], told["sent"]["published"], strict=True):
        frames[stamp]["sent"] = end
    names = {
        TAKE: ("take begins", "taken"),
        PROCESS: ("worker begins", ""),
        WRITE: ("labels are there", "written"),
        PUBLISH: ("", "published"),
    }
    for name, stamp, begin, end in told["notes"]["notes"]:
        for moment, at in zip(names[name], (begin, end), strict=True):
            if moment and stamp in frames:
                frames[stamp][moment] = at
    for (stamp, arrived), (begin, end) in zip(told["heard"]["arrivals"], told["heard"]["taken"], strict=True):
        if stamp in frames:
            frames[stamp] |= {"listener takes": begin, "listener has": end, "heard": arrived}
    every = {moment for stage in STAGES for moment in (stage.begin, stage.end)}
    return [frame for frame in frames.values() if every <= frame.keys()]


def rows(frames: Sequence[Mapping[str, int]], load: Load, copy_ms: Mapping[int, float]) -> list[Row]:
    """Compute the table.

    Args:
        frames: see `moments`.
        load: what the camera sends.
        copy_ms: milliseconds of one copy, by its bytes.
    """
    labels = load.width * load.height
    found = []
    for stage in STAGES:
        took_ms = np.array([frame[stage.end] - frame[stage.begin] for frame in frames]) / 1e6
        marks = distribution(took_ms, (50, 95), 3)
        num_bytes = stage.image_copies * 3 * labels + stage.label_copies * labels
        floor = stage.image_copies * copy_ms[3 * labels] + stage.label_copies * copy_ms[labels]
        times = round(marks["p50"] / floor, 2) if stage.ours else None
        floor_ms = round(floor, 6) if num_bytes else None
        found.append(Row(stage.process, stage.what, num_bytes / 1e6, floor_ms, marks["p50"], marks["p95"], times))
    return found


def time_copies(num_bytes: int) -> float:
    """Return the median milliseconds of a copy of so many bytes, from memory that is in no cache to such memory."""
    buffers = [np.ones(num_bytes, np.uint8) for _ in range(max(4, CACHE_BYTES // num_bytes))]
    took = []
    for i in range(COPIES):
        source, target = (buffers[(2 * i + j) % len(buffers)] for j in range(2))
        begin = time.perf_counter()
        np.copyto(target, source)
        took.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(took)


def listener_environment(environment: Mapping[str, str], keeps_memory: bool) -> dict[str, str]:
    """Return an environment for the listener, see above."""
    return dict(environment) | (KEEPING if keeps_memory else {})


def trace(load: Load, keeps_memory: bool) -> tuple[Result, list[dict[str, int]]]:
    """Run camera, node and listener with their notes.

    Args:
        load: what the camera sends.
        keeps_memory: of the listener.

    Raises:
        BenchError: a process ended or did not answer, or no frame came through.
    """
    environment = profiled_environment()
    with Trial(environment) as trial:
        ordinary = listener_environment(environment, keeps_memory)
        trial.start("listener", (PROCESSES, "listener", "--reliability", "reliable"), ordinary)
        trial.start("node", TRACED)
        trial.start("camera", (PROCESSES, "camera", "--reliability", "best_effort", *camera_arguments(load)))
        result = summarise(*trial.play(load))
        trial.next_phase("node")
        events = (("camera", "sent"), ("node", "notes"), ("listener", "heard"))
        told = {event: trial.expect(name, event, OVERTIME_S) for name, event in events}
    frames = moments(told, told["sent"]["stamps"])
    if not frames:
        raise BenchError(f"expected frames that come through, got none of {result.sent}")
    return result, frames


def measure(checkout: Path, load: Load, keeps_memory: bool) -> Result:
    """Run camera, node and listener of a checkout, without notes; `load` and `keeps_memory` as for `trace`.

    Raises:
        BenchError: a process ended or did not answer.
    """
    former = not (checkout / Path(*PROCESSES.split("."))).with_suffix(".py").is_file()
    processes = FORMER_PROCESSES if former else PROCESSES
    environment = profiled_environment() | {"PYTHONPATH": str(checkout)}
    environment |= {name: str(checkout / PROFILE) for name in PROFILE_VARIABLES if name in environment}
    with Trial(environment) as trial:
        for name, module in (
            ("listener", (processes, "listener", "--reliability", "reliable")),
            ("node", NODE),
            ("camera", (processes, "camera", "--reliability", "best_effort", *camera_arguments(load))),
        ):
            own = listener_environment(environment, keeps_memory and name == "listener")
            trial.start(name, module, own, folder=checkout)
        return summarise(*trial.play(load))


def table(found: Sequence[Row], latency_ms: Mapping[str, float]) -> str:
    """Write one line for each stage, and one for all."""
    floor, p50, p95 = sum(row.floor_ms or 0.0 for row in found), latency_ms["p50"], latency_ms["p95"]
    name = f"stamp to callback; p95 is {p95 / p50:.2f} times p50"
    width = max(len(one) for one in (name, *(row.what for row in found)))
    lines = [
        f"{'':8s}  {'':{width}s}  {'MB':>5s}  {'floor':>6s}  {'p50':>6s}  {'p95':>6s}  times floor    (milliseconds)"
    ]
    for row in found:
        least = f"{row.floor_ms:6.2f}" if row.floor_ms is not None else f"{'-':>6s}"
        times = f"{row.times_floor:11.2f}" if row.times_floor is not None else f"{'-':>11s}"
        marks = f"{row.mb:5.1f}  {least}  {row.p50_ms:6.2f}  {row.p95_ms:6.2f}  {times}"
        lines.append(f"{row.process:8s}  {row.what:{width}s}  {marks}")
    mb = sum(row.mb for row in found)
    lines.append(f"{'all':8s}  {name:{width}s}  {mb:5.1f}  {floor:6.2f}  {p50:6.2f}  {p95:6.2f}  {p50 / floor:11.2f}")
    return "\n".join(lines)


def versus(results: Mapping[str, Sequence[Result]]) -> str:
    """Write a line for each checkout, medians over its rounds, and the ratio of the first to the second."""
    marks = {}
    lines = [f"{'':24s}  {'labelled':>8s}  {'p50':>6s}  {'p95':>6s}  p95 / p50  p50 of each round"]
    for name, rounds in results.items():
        got = [one.latency_ms for one in rounds if one.latency_ms]
        labelled = sum(one.received for one in rounds) / sum(one.sent for one in rounds)
        p50, p95 = (statistics.median(one[key] for one in got) if got else float("nan") for key in ("p50", "p95"))
        marks[name] = p50
        each = " ".join(f"{one['p50']:.2f}" for one in got)
        marked = f"{p50:6.2f}  {p95:6.2f}  {p95 / p50:9.2f}  {each}"
        lines.append(f"{Path(name).name[-24:]:24s}  {100 * labelled:7.1f}%  {marked}")
    ours, other = marks.values()
    lines.append(f"p50 is {ours / other:.2f} times the other's")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the measurement. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--size", type=image_size, default=(2048, 1024), metavar="WxH", help="pixels, default 2048x1024"
    )
    parser.add_argument("--rate", type=positive, default=30.0, metavar="HZ", help="of the camera, default 30")
    parser.add_argument("--seconds", type=positive, default=20.0, help="measured each time, default 20")
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout, that of an older version say")
    parser.add_argument("--rounds", type=count, default=3, metavar="N", help="turns of each, default 3")
    parser.add_argument("--keep-memory", action="store_true", help="of the listener, in both checkouts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    arguments = parser.parse_args(argv)
    if arguments.against is not None and arguments.against.absolute() == HERE:
        parser.error(f"--against: expected another checkout than this one, {HERE}")
    load = Load(*arguments.size, arguments.rate, max(1, round(arguments.rate * arguments.seconds)))
    against: dict[str, list[Result]] = {}
    try:
        result, frames = trace(load, arguments.keep_memory)
        for number in range(arguments.rounds if arguments.against else 0):
            for checkout in (HERE, arguments.against.absolute()):
                print(f"round {number + 1}: {checkout}", file=sys.stderr)
                against.setdefault(str(checkout), []).append(measure(checkout, load, arguments.keep_memory))
    except BenchError as error:
        print(f"bench_where: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    num_pixels = load.width * load.height
    found = rows(frames, load, {size: time_copies(size) for size in (num_pixels, 3 * num_pixels)})
    print(f"{load.width} x {load.height} rgb8, {load.rate_hz:g} Hz: {result.received} of {result.sent} frames labelled")
    latency_ms = distribution([(frame["heard"] - frame["stamp"]) / 1e6 for frame in frames], (50, 95, 100), 3)
    print(table(found, latency_ms))
    if against:
        print("\n" + versus(against))
    if arguments.json is not None:
        turns = {name: [asdict(one) for one in rounds] for name, rounds in against.items()}
        content = {"load": asdict(load), "processors": os.cpu_count(), "latency_ms": latency_ms}
        content |= {"sent": result.sent, "labelled": result.received, "against": turns}
        write_json(arguments.json, content | {"rows": [asdict(row) for row in found]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
