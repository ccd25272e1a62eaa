"""Measure how the node's governor answers when processors are taken away, and when they are given back.

    python -m vidseg_ros.benchmarks.governor --size 1280x720 --rate 30 --taken 1 --json governor.json

Three processes: a camera that shows the synthetic street, the node with its defaults, and this one, which listens to
the node's `status` of every frame. Once the step has not changed for a while, a busy loop is pinned to each of the
processors that are taken away, and ended some seconds later. The node's log, with a reason for each move, is shown.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor

from vidseg_core.data.writers import write_json
from vidseg_ros.benchmarks.transport import (
    NAMESPACE,
    START_S,
    BenchError,
    Trial,
    image_size,
    positive,
    profiled_environment,
)

STREET_FRAMES = 120
ENOUGH = 0.95
"""Of the camera's rate."""
RATE_OVER_S = 1.0


@dataclass(frozen=True)
class Labelled:
    """A frame that was labelled: when its status came, by the steady clock, and the governor's step (`Step`)."""

    at_s: float
    step: str


@dataclass(frozen=True)
class Phase:
    """A time in which the computer's load does not change. Seconds count from its begin.

    Attributes:
        name: of the phase.
        seconds: that it took.
        rate_hz: of the labels.
        kept_s: after so many seconds `ENOUGH` of the rate is kept for good; None if it never is.
        moves: of the governor, when and where to.
    """

    name: str
    seconds: float
    rate_hz: float
    kept_s: float | None
    moves: tuple[tuple[float, str], ...]


def phase_of(name: str, frames: Sequence[Labelled], begin_s: float, end_s: float, rate_hz: float) -> Phase:
    """Summarise the frames from one time to another.

    Args:
        name: of the phase.
        frames: of all phases, in order.
        begin_s, end_s: of this one.
        rate_hz: of the camera.
    """
    moves = [
        (round(now.at_s - begin_s, 2), now.step)
        for before, now in pairwise(frames)
        if begin_s <= now.at_s < end_s and now.step != before.step
    ]
    times_s = [frame.at_s - begin_s for frame in frames if begin_s <= frame.at_s < end_s]
    kept_s: float | None = 0.0
    for second in range(int((end_s - begin_s) / RATE_OVER_S)):
        labelled = sum(second <= at_s / RATE_OVER_S < second + 1 for at_s in times_s)
        # One more or less is a matter of where the second begins.
        if labelled + 1 < ENOUGH * rate_hz * RATE_OVER_S:
            kept_s = (second + 1) * RATE_OVER_S
    if kept_s is not None and kept_s > end_s - begin_s - RATE_OVER_S:
        kept_s = None
    rate = len(times_s) / (end_s - begin_s)
    return Phase(name, round(end_s - begin_s, 1), round(rate, 2), kept_s, tuple(moves))


def measure(
    size: tuple[int, int],
    rate_hz: float,
    taken: int,
    seconds: tuple[float, float, float],
    parameters: Sequence[str] = (),
) -> list[Phase]:
    """Run the node once.

    Args:
        size: (W, H) of the camera's frames.
        rate_hz: of the camera.
        taken: processors that are taken away.
        seconds: without a move before they are; in which they are; afterwards.
        parameters: of the node.

    Raises:
        BenchError: a process ended or did not answer.
    """
    settled_s, taken_s, calm_s = seconds
    street = f"street:seed=0,size={size[0]}x{size[1]},rate={rate_hz:g},frames={STREET_FRAMES}"
    names = ("--ros-args", "-r", f"__ns:={NAMESPACE}")
    given = [part for one in parameters for part in ("-p", one)]
    frames: list[Labelled] = []
    with Trial(profiled_environment()) as trial, _status_of_frames(frames) as spin:
        trial.start("camera", ("vidseg_ros.player", street, "--loop", "--reliability", "best_effort", *names))
        trial.start("node", ("vidseg_ros.node", *names, *given))
        deadline_s = time.monotonic() + START_S
        while not (frames and _unchanged_s(frames) > settled_s):
            if time.monotonic() > deadline_s:
                raise BenchError(f"expected the step not to change for {settled_s:g} s, got {frames[-1:]}")
            spin()
        marks_s = [time.monotonic() - settled_s]
        for length_s, processors in ((0.0, 0), (taken_s, taken), (calm_s, 0)):
            with _busy(processors):
                begun_s = time.monotonic()
                while time.monotonic() < begun_s + length_s:
                    spin()
            marks_s.append(time.monotonic())
    phases = zip(("settled", f"{taken} taken away", "given back"), pairwise(marks_s), strict=True)
    return [phase_of(name, frames, begin_s, end_s, rate_hz) for name, (begin_s, end_s) in phases]


def _unchanged_s(frames: Sequence[Labelled]) -> float:
    """Return for how long the step has not changed."""
    changes = [now.at_s for before, now in pairwise(frames) if now.step != before.step]
    return frames[-1].at_s - (changes[-1] if changes else frames[0].at_s)


@contextmanager
def _status_of_frames(frames: list[Labelled]) -> Iterator[Callable[[], None]]:
    """Append each frame's status to a list while what is given is called again and again."""

    def note(message: DiagnosticArray) -> None:
        values = {one.key: one.value for one in message.status[0].values}
        if "Step" in values:  # before the first frame none is chosen
            frames.append(Labelled(time.monotonic(), values["Step"]))

    rclpy.init()
    node, executor = rclpy.create_node("listener", namespace=NAMESPACE), SingleThreadedExecutor()
    node.create_subscription(DiagnosticArray, "status", note, 100)
    executor.add_node(node)
    try:
        yield lambda: executor.spin_once(timeout_sec=0.05)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()


@contextmanager
def _busy(processors: int) -> Iterator[None]:
    """Keep so many processors busy, those with the highest numbers."""
    code = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
    chosen = sorted(os.sched_getaffinity(0))[::-1][:processors]
    loops = [subprocess.Popen([sys.executable, "-c", code, str(processor)]) for processor in chosen]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def table(phases: Sequence[Phase]) -> str:
    """Write a line for each phase, and one for each move."""
    lines = [f"{'':16s} {'seconds':>8s} {'labels/s':>9s} {'95 % after':>11s} {'moves':>6s} {'first after':>12s}"]
    for one in phases:
        kept = "never" if one.kept_s is None else f"{one.kept_s:.0f} s"
        first = f"{one.moves[0][0]:.2f} s" if one.moves else "-"
        lines.append(
            f"{one.name:16s} {one.seconds:8.1f} {one.rate_hz:9.2f} {kept:>11s} {len(one.moves):6d} {first:>12s}"
        )
        lines += [f"{'':16s} {at_s:8.2f} s  {step}" for at_s, step in one.moves]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=image_size, default=(1280, 720), metavar="WxH", help="pixels, default 1280x720")
    parser.add_argument("--rate", type=positive, default=30.0, metavar="HZ", help="of the camera, default 30")
    parser.add_argument("--taken", type=int, default=1, metavar="N", help="processors taken away, default 1")
    parser.add_argument(
        "--seconds", type=positive, nargs=3, default=(15.0, 20.0, 30.0), metavar="S",
        help="without a move before; with the processors taken away; afterwards; default 15 20 30",
    )  # fmt: skip
    parser.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME:=VALUE", help="of the node")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    arguments = parser.parse_args(argv)
    try:
        phases = measure(
            arguments.size, arguments.rate, arguments.taken, tuple(arguments.seconds), arguments.parameters
        )
    except BenchError as error:
        print(f"governor: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(
        f"{arguments.size[0]} x {arguments.size[1]} at {arguments.rate:g} Hz; settled: {phases[0].rate_hz:g} labels/s"
    )
    print(table(phases))
    if arguments.json is not None:
        write_json(arguments.json, {"phases": [asdict(one) for one in phases]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
