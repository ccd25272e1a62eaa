"""Measure what a frame costs with several cameras on one node, its networks included: the cameras share one rate.

    python -m vidseg_ros.benchmarks.cameras --cameras 1 2 4 --size 640x360 --rate 6 --seconds 20 --json cameras.json

One after the other, each as three processes (all cameras, the node, a listener to the labels). CPU time is the node's
own, from the first measured frame to the last label, over the frames that got labels; memory is the node's afterwards.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vidseg_core.data.writers import write_json
from vidseg_ros.benchmarks.transport import (
    NAMESPACE,
    PROCESSES,
    BenchError,
    Load,
    Trial,
    camera_arguments,
    image_size,
    positive,
    profiled_environment,
    summarise,
)

MOST_CAMERAS = 16


@dataclass(frozen=True)
class Result:
    """Of one number of cameras.

    Attributes:
        sent, labelled: frames, of all cameras.
        least_labelled: the share (0..1) of the camera with the fewest frames labelled, of its own.
        cpu_ms: of the node per labelled frame.
        latency_ms: from a frame's stamp to its labels; None without labels.
        memory_mb: resident.
    """

    sent: int
    labelled: int
    least_labelled: float
    cpu_ms: float | None
    latency_ms: dict[str, float] | None
    memory_mb: float


def measure(num_cameras: int, load: Load, parameters: Sequence[str]) -> Result:
    """Run the node with so many cameras.

    Raises:
        BenchError: a process ended or did not answer.
    """
    names = [f"camera{i}" for i in range(num_cameras)]
    given = [part for one in (f"cameras:=[{','.join(names)}]", *parameters) for part in ("-p", one)]
    with Trial(profiled_environment()) as trial:
        trial.start("listener", (PROCESSES, "listener", "--reliability", "reliable", "--cameras", *names))
        trial.start("node", ("vidseg_ros.node", "--ros-args", "-r", f"__ns:={NAMESPACE}", *given))
        camera = (PROCESSES, "camera", "--reliability", "best_effort", *camera_arguments(load), "--cameras", *names)
        trial.start("camera", camera)
        sent, arrivals, cpu_s = trial.play(load)
        return result_of(num_cameras, sent, arrivals, cpu_s, trial.memory_mb("node"))


def result_of(
    num_cameras: int, sent: list[int], arrivals: list[tuple[int, int]], cpu_s: float, memory_mb: float
) -> Result:
    """Compute from stamps that were sent as each camera in turn, and (stamp, time of arrival) of labels, in ns."""
    whole = summarise(sent, arrivals, cpu_s)
    labelled = {stamp for stamp, _ in arrivals}
    shares = []
    for first in range(num_cameras):
        own = sent[first::num_cameras]
        shares.append(len(labelled & set(own)) / len(own))
    each_ms = round(1e3 * cpu_s / whole.received, 2) if whole.received else None
    return Result(whole.sent, whole.received, round(min(shares), 3), each_ms, whole.latency_ms, round(memory_mb))


def table(results: dict[int, Result]) -> str:
    """Write one line for each number of cameras; ratios are to the first."""
    lines = ["cameras   sent  labelled  least  CPU ms per frame  ratio  p50 ms  p95 ms  memory MB  ratio"]
    first = next(iter(results.values()))
    for number, one in results.items():
        latency = one.latency_ms or {"p50": float("nan"), "p95": float("nan")}
        cpu_ms = one.cpu_ms or float("nan")
        lines.append(
            f"{number:7d}  {one.sent:5d}  {one.labelled:8d}  {100 * one.least_labelled:4.0f}%  {cpu_ms:16.1f}  "
            f"{cpu_ms / (first.cpu_ms or float('nan')):5.2f}  {latency['p50']:6.1f}  {latency['p95']:6.1f}  "
            f"{one.memory_mb:9.0f}  {one.memory_mb / first.memory_mb:5.2f}"
        )
    return "\n".join(lines)


def number_of_cameras(text: str) -> int:
    """Parse a number of cameras, 1 to 16, for argparse."""
    if not 1 <= int(text) <= MOST_CAMERAS:
        raise argparse.ArgumentTypeError(f"expected 1 to {MOST_CAMERAS}, got {text}")
    return int(text)


def parameter(text: str) -> str:
    """Parse name and value of a ROS parameter, for argparse."""
    if not re.fullmatch(r"[\w.]+:=.+", text):
        raise argparse.ArgumentTypeError(f"expected NAME:=VALUE, got {text}")
    return text


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=number_of_cameras, nargs="+", default=[1, 2, 4], metavar="N")
    parser.add_argument("--size", type=image_size, default=(640, 360), metavar="WxH", help="pixels, default 640x360")
    parser.add_argument("--rate", type=positive, default=6.0, metavar="HZ", help="of all together, default 6")
    parser.add_argument("--seconds", type=positive, default=20.0, help="measured for each, default 20")
    parser.add_argument("-p", "--param", action="append", default=[], type=parameter, metavar="NAME:=VALUE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    arguments = parser.parse_args(argv)
    num_frames = max(max(arguments.cameras), round(arguments.rate * arguments.seconds))
    load = Load(*arguments.size, arguments.rate, num_frames)

    print(f"{load.width} x {load.height} rgb8, {load.rate_hz:g} Hz in all, {load.num_frames} frames")
    results = {}
    try:
        for number in arguments.cameras:
            print(f"measuring: {number}", file=sys.stderr)
            results[number] = measure(number, load, arguments.param)
    except BenchError as error:
        print(f"bench_cameras: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(table(results))
    if arguments.json is not None:
        figures = {str(number): asdict(result) for number, result in results.items()}
        write_json(arguments.json, {"load": asdict(load), "parameters": arguments.param, "results": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
