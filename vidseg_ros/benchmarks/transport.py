"""Measure what ROS adds, from an image's stamp to its labels in another process: the engine computes nothing.

    python -m vidseg_ros.benchmarks.transport --size 2048x1024 --rate 30 --seconds 30 --json transport.json

One after the other, each as three processes (camera, node, listener to the labels):

- the naive node: Fast DDS as it comes, message objects, a NumPy copy of each image; best effort, and again reliable;
- vidseg's node with `engine: pass_through`: the Fast DDS profile, serialized images read where they lie, memory that is
  freed kept for the next image. The camera is best effort;
- the same with a listener that keeps its memory, too, as the demo's does.

The camera's code is the same in all of them; it keeps its memory, as `camera_player` does. Latency is taken by the
system clock; CPU time is the node's own, from the first measured frame to the last label.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vidseg_core.evaluation.metrics.distribution import distribution
from vidseg_ros.transport import PROFILE_VARIABLES, profile_environment

NAMESPACE = "/vidseg_bench"
PROCESSES = "vidseg_ros.benchmarks.processes"
NODE = ("vidseg_ros.node", "--ros-args", "-r", f"__ns:={NAMESPACE}", "-p", "engine:=pass_through")
TRANSPORT_VARIABLES = (*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS")
LEAST_PIXELS = 64
START_S = 180.0
WARM_UP_S = 10.0
OVERTIME_S = 30.0
END_S = 10.0


class BenchError(RuntimeError):
    """A process of the measurement died or did not answer."""


@dataclass(frozen=True)
class Variant:
    """A node to measure, and how images and labels are sent."""

    name: str
    node: tuple[str, ...]
    with_profile: bool
    camera: str
    labels: str
    listener_options: tuple[str, ...] = ()


def naive(reliability: str) -> Variant:
    node = (PROCESSES, "naive_node", "--reliability", reliability)
    return Variant(f"naive, {reliability.replace('_', ' ')}", node, False, reliability, reliability)


VARIANTS = (
    naive("best_effort"),
    naive("reliable"),
    Variant("vidseg", NODE, True, "best_effort", "reliable"),
    Variant("vidseg, listener too", NODE, True, "best_effort", "reliable", ("--keep-memory",)),
)


@dataclass(frozen=True)
class Result:
    """Frames, milliseconds (None where no labels came), CPU seconds."""

    sent: int
    received: int
    latency_ms: dict[str, float] | None
    node_cpu_s: float


@dataclass(frozen=True)
class Load:
    """Images that the camera sends."""

    width: int
    height: int
    rate_hz: float
    num_frames: int


class Trial:
    """The processes of one measurement. All of them end when it is left."""

    def __init__(self, environment: dict[str, str]):
        self._environment = environment
        self._children: dict[str, subprocess.Popen] = {}
        self._lines: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._told: dict[tuple[str, str], dict[str, Any]] = {}

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *exception) -> None:
        for child in self._children.values():
            child.send_signal(signal.SIGINT)
            with suppress(BrokenPipeError):
                child.stdin.close()
        for child in self._children.values():
            try:
                child.wait(END_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def start(
        self,
        name: str,
        module: Sequence[str],
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
        python: str = sys.executable,
    ) -> None:
        """Run a module of Python, or a file if it ends with `.py`, under this name.

        Args:
            name: what it is called from now on.
            module: it and its arguments.
            environment, folder, python: in place of those of this process.
        """
        how = () if module[0].endswith(".py") else ("-m",)
        self._children[name] = subprocess.Popen(
            [python, *how, *module],
            env=environment or self._environment,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process, which ends the others
        )
        threading.Thread(target=self._read, args=(name,), daemon=True).start()

    def next_phase(self, name: str) -> None:
        with suppress(BrokenPipeError):  # that it has ended is told by what is expected of it next
            self._children[name].stdin.write("go on\n")
            self._children[name].stdin.flush()

    def wait_for(self, name: str, event: str, timeout_s: float) -> dict[str, Any] | None:
        """Wait for what the process of this name tells with this event; None when that does not come in time.

        Raises:
            BenchError: one of the processes has ended.
        """
        deadline_s = time.monotonic() + timeout_s
        while (name, event) not in self._told:
            try:
                teller, line = self._lines.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                return None
            if not line:
                raise BenchError(f"the {teller} ended with status {self._children[teller].wait()}")
            with suppress(json.JSONDecodeError):  # our node may print what it likes
                told = json.loads(line)
                self._told[teller, told["event"]] = told
        return self._told[name, event]

    def expect(self, name: str, event: str, timeout_s: float) -> dict[str, Any]:
        """Wait as `wait_for` does; what does not come in time is an error.

        Raises:
            BenchError: one of the processes has ended, or this one did not tell.
        """
        told = self.wait_for(name, event, timeout_s)
        if told is None:
            raise BenchError(f"expected '{event}' from the {name} within {timeout_s:g} s, got nothing")
        return told

    def play(self, load: Load) -> tuple[list[int], list[tuple[int, int]], float]:
        """Have "camera" send and "listener" hear, once they and "node" have found each other.

        Returns:
            As `summarise` takes it: stamps that were sent; stamp and time of arrival of labels; the CPU seconds
            that the node used meanwhile.

        Raises:
            BenchError: one of the processes has ended, or did not answer.
        """
        self.expect("camera", "matched", START_S)
        self.expect("listener", "matched", START_S)
        self.wait_for("listener", "warm", WARM_UP_S)  # where no labels come there is nothing to warm up
        before_s = self.cpu_s("node")
        self.next_phase("camera")
        sent = self.expect("camera", "sent", load.num_frames / load.rate_hz + OVERTIME_S)["stamps"]
        self.next_phase("listener")
        arrivals = self.expect("listener", "heard", OVERTIME_S)["arrivals"]
        return sent, arrivals, self.cpu_s("node") - before_s

    def pid(self, name: str) -> int:
        """Return the number of the process."""
        return self._children[name].pid

    def cpu_s(self, name: str) -> float:
        """Read the CPU time that the process has used so far, all threads, user and kernel."""
        stat = Path(f"/proc/{self._children[name].pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self, name: str) -> float:
        """Read the resident memory of the process, in units of a million bytes."""
        pages = int(Path(f"/proc/{self._children[name].pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def _read(self, name: str) -> None:
        for line in self._children[name].stdout:
            self._lines.put((name, line))
        self._lines.put((name, ""))


def measure(variant: Variant, load: Load) -> Result:
    """Run one variant.

    Raises:
        BenchError: a process ended or did not answer.
    """
    with Trial(environment_of(variant)) as trial:
        trial.start("listener", (PROCESSES, "listener", "--reliability", variant.labels, *variant.listener_options))
        trial.start("node", variant.node)
        trial.start("camera", (PROCESSES, "camera", "--reliability", variant.camera, *camera_arguments(load)))
        return summarise(*trial.play(load))


def camera_arguments(load: Load) -> tuple[str, ...]:
    return ("--keep-memory", *load_arguments(load))


def load_arguments(load: Load) -> tuple[str, ...]:
    size = (str(load.width), str(load.height))
    return ("--size", *size, "--rate", str(load.rate_hz), "--frames", str(load.num_frames))


def environment_of(variant: Variant) -> dict[str, str]:
    """Return this process's environment with the profile of the package or with none."""
    return profiled_environment() if variant.with_profile else bare_environment()


def bare_environment() -> dict[str, str]:
    """Return this process's environment without anything that chooses a transport."""
    return {name: value for name, value in os.environ.items() if name not in TRANSPORT_VARIABLES}


def profiled_environment() -> dict[str, str]:
    """Return this process's environment with the profile of the package, whatever the user has chosen."""
    ours = bare_environment()
    return {**ours, **profile_environment(ours)}


def summarise(sent: list[int], arrivals: list[tuple[int, int]], node_cpu_s: float) -> Result:
    """Compute frames and latencies from stamps of measured images and (stamp, time of arrival) of labels, in ns."""
    measured = set(sent)
    latencies_ms = {stamp: (arrived - stamp) / 1e6 for stamp, arrived in reversed(arrivals) if stamp in measured}
    return Result(len(sent), len(latencies_ms), percentiles(list(latencies_ms.values())), round(node_cpu_s, 2))


def percentiles(latencies_ms: list[float]) -> dict[str, float] | None:
    if not latencies_ms:
        return None
    return distribution(latencies_ms, (50, 95, 100), 2)


def table(results: dict[str, Result]) -> str:
    lines = [f"{'':20s} {'sent':>6s} {'received':>9s} {'p50 ms':>8s} {'p95 ms':>8s} {'max ms':>8s} {'node CPU s':>11s}"]
    for name, result in results.items():
        latency = result.latency_ms or {}
        cells = " ".join(f"{latency[key]:8.1f}" if latency else f"{'-':>8s}" for key in ("p50", "p95", "max"))
        lines.append(f"{name:20s} {result.sent:6d} {result.received:9d} {cells} {result.node_cpu_s:11.2f}")
    return "\n".join(lines)


def write_json(path: Path, load: Load, results: dict[str, Result]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    content = {"load": asdict(load), "results": {name: asdict(result) for name, result in results.items()}}
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def image_size(text: str) -> tuple[int, int]:
    """Parse (width, height) from `2048x1024`, for argparse."""
    match = re.fullmatch(r"(\d{2,5})x(\d{2,5})", text)
    if match is None or min(int(match[1]), int(match[2])) < LEAST_PIXELS:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, {LEAST_PIXELS} pixels or more each, got {text!r}")
    return int(match[1]), int(match[2])


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number, 1 or more, got {text}")
    return value


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--size", type=image_size, default=(2048, 1024), metavar="WxH", help="pixels, default 2048x1024"
    )
    parser.add_argument("--rate", type=positive, default=30.0, metavar="HZ", help="of the camera, default 30")
    parser.add_argument("--seconds", type=positive, default=30.0, help="measured for each node, default 30")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    arguments = parser.parse_args(argv)
    load = Load(*arguments.size, arguments.rate, max(1, round(arguments.rate * arguments.seconds)))

    print(f"{load.width} x {load.height} rgb8, {load.rate_hz:g} Hz, {load.num_frames} frames")
    results = {}
    try:
        for variant in VARIANTS:
            print(f"measuring: {variant.name}", file=sys.stderr)
            results[variant.name] = measure(variant, load)
    except BenchError as error:
        print(f"bench_transport: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(table(results))
    if arguments.json is not None:
        write_json(arguments.json, load, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
