"""Measure how long a vehicle waits for labels: from the start of the node to its first label, and its memory.

    python -m vidseg_ros.benchmarks.start --against ../vidseg-0.1.0 --rounds 3 --json start.json

A camera is on already when the node starts. The checkout is copied without anything compiled, as a fresh install, and
its step of installing that compiles kernels is run if it has one; then the node starts twice: cold, with the user's
caches empty, and warm, with what the first start has left there. With `--against`, another checkout takes its turn in
every round. Memory is the sum of PSS over all processes of the node, the largest of several looks a second, from the
start until some seconds after the first label.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import vidseg_core
from vidseg_core.data.writers import write_json
from vidseg_ros.benchmarks.transport import (
    NAMESPACE,
    PROCESSES,
    START_S,
    BenchError,
    Load,
    Trial,
    camera_arguments,
    count,
    image_size,
    positive,
    profiled_environment,
)

HERE = Path(vidseg_core.__file__).parents[1]
# Nothing else of a checkout is needed to run the node.
INSTALLED = ("vidseg_core", "vidseg_ros", "config", "launch", "weights", "resource", "package.xml")
LOOK_S = 0.2
NEVER = 10**9


@dataclass(frozen=True)
class Start:
    """One start of the node.

    Attributes:
        first_label_s: from the start of its process to the arrival of the first label elsewhere.
        peak_mb: the largest sum of PSS over its processes, in units of a million bytes.
        settled_mb: the last one.
    """

    first_label_s: float
    peak_mb: float
    settled_mb: float


@dataclass(frozen=True)
class Round:
    """One installation and its two starts; `build_s` is how long its step of compiling took."""

    build_s: float
    cold: Start
    warm: Start


class Memory:
    """Watches the memory of a process and of all that it has started, in a thread, until it is left."""

    def __init__(self, pid: int):
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_mb = self.last_mb = 0.0

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_S):
            self.last_mb = sum(map(pss_mb, family(self._pid)))
            self.peak_mb = max(self.peak_mb, self.last_mb)


def family(pid: int) -> list[int]:
    """List a process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        parents.setdefault(parent, []).append(int(entry))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def pss_mb(pid: int) -> float:
    """Read the proportional set size of a process, in units of a million bytes; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("Pss:")), 0.0)


def install(checkout: Path, target: Path) -> float:
    """Copy a checkout without anything compiled, and compile what its installation compiles. Returns the seconds.

    Raises:
        BenchError: that failed.
    """
    for name in INSTALLED:
        source = checkout / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target / name)
    if not (target / "vidseg_core" / "cli" / "compile.py").is_file():
        return 0.0
    begin_s = time.monotonic()
    command = [sys.executable, "-m", "vidseg_core.cli", "compile"]
    done = subprocess.run(command, cwd=target, env=environment_of(target, target / "cache-of-the-build"), check=False)
    if done.returncode:
        raise BenchError(f"{checkout}: `vidseg compile` ended with status {done.returncode}")
    return time.monotonic() - begin_s


def environment_of(install: Path, cache: Path) -> dict[str, str]:
    """Return this process's environment for an installation and a user whose caches are in a folder of their own."""
    ours = {name: value for name, value in profiled_environment().items() if name != "NUMBA_CACHE_DIR"}
    return {**ours, "PYTHONPATH": str(install), "XDG_CACHE_HOME": str(cache), "HOME": str(cache)}


def start(installed: Path, cache: Path, load: Load, parameters: Sequence[str], seconds: float) -> Start:
    """Start the node once, and end it again.

    Raises:
        BenchError: a process ended, or no label came.
    """
    given = [part for one in parameters for part in ("-p", one)]
    with Trial(profiled_environment()) as trial:
        trial.start("listener", (PROCESSES, "listener", "--reliability", "reliable"))
        trial.start("camera", (PROCESSES, "camera", "--reliability", "best_effort", *camera_arguments(load)))
        trial.expect("camera", "ready", START_S)
        trial.expect("listener", "ready", START_S)
        begin_ns = time.time_ns()
        node = ("vidseg_ros.node", "--ros-args", "-r", f"__ns:={NAMESPACE}", *given)
        trial.start("node", node, environment_of(installed, cache), installed)
        with Memory(trial.pid("node")) as memory:
            first_ns = trial.expect("listener", "first", START_S)["arrived_ns"]
            time.sleep(seconds)
        return Start(round((first_ns - begin_ns) / 1e9, 2), round(memory.peak_mb), round(memory.last_mb))


def measure(checkout: Path, load: Load, parameters: Sequence[str], seconds: float) -> Round:
    """Install a checkout and start it cold and warm.

    Raises:
        BenchError: see `install` and `start`.
    """
    with tempfile.TemporaryDirectory(prefix="vidseg-start-") as folder:
        installed, cache = Path(folder, "install"), Path(folder, "cache")
        installed.mkdir()
        cache.mkdir()
        build_s = install(checkout, installed)
        cold, warm = (start(installed, cache, load, parameters, seconds) for _ in range(2))
        return Round(round(build_s, 1), cold, warm)


def table(results: dict[str, list[Round]]) -> str:
    """Write a line for each checkout, medians over its rounds; and one with the ratios of the first to the second."""
    columns = {
        "build s": lambda one: one.build_s,
        "cold s": lambda one: one.cold.first_label_s,
        "warm s": lambda one: one.warm.first_label_s,
        "cold peak MB": lambda one: one.cold.peak_mb,
        "warm peak MB": lambda one: one.warm.peak_mb,
        "warm settled MB": lambda one: one.warm.settled_mb,
    }
    names = [Path(name).name for name in results]
    width = max(map(len, ("ratio", *names)))
    rows = [[statistics.median(map(read, rounds)) for read in columns.values()] for rounds in results.values()]
    lines = [" " * width + "".join(f"  {column}" for column in columns)]
    for name, row in zip(names, rows, strict=True):
        cells = (f"  {value:{len(column)}.1f}" for column, value in zip(columns, row, strict=True))
        lines.append(f"{name:{width}s}" + "".join(cells))
    if len(rows) == 2:
        ratios = [a / b if b else float("nan") for a, b in zip(*rows, strict=True)]
        cells = (f"  {value:{len(column)}.2f}" for column, value in zip(columns, ratios, strict=True))
        lines.append(f"{'ratio':{width}s}" + "".join(cells))
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout, that of an older version say")
    parser.add_argument("--size", type=image_size, default=(1280, 720), metavar="WxH", help="pixels, default 1280x720")
    parser.add_argument("--rate", type=positive, default=30.0, metavar="HZ", help="of the camera, default 30")
    parser.add_argument("--rounds", type=count, default=3, metavar="N", help="installations of each, default 3")
    parser.add_argument(
        "--seconds", type=positive, default=8.0, help="to go on watching memory after the first label, default 8"
    )
    parser.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME:=VALUE", help="of the node")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    arguments = parser.parse_args(argv)
    load = Load(*arguments.size, arguments.rate, NEVER)
    results: dict[str, list[Round]] = {}
    try:
        for number in range(arguments.rounds):
            for checkout in filter(None, (HERE, arguments.against)):
                print(f"round {number + 1}: {checkout}", file=sys.stderr)
                one = measure(checkout.resolve(), load, arguments.parameters, arguments.seconds)
                results.setdefault(str(checkout), []).append(one)
    except BenchError as error:
        print(f"start: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"{load.width} x {load.height} at {load.rate_hz:g} Hz")
    print(table(results))
    if arguments.json is not None:
        rounds = {name: [asdict(one) for one in found] for name, found in results.items()}
        write_json(arguments.json, {"load": asdict(load), "rounds": rounds})
    return 0


if __name__ == "__main__":
    sys.exit(main())
