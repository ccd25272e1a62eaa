"""Compare the propagated frame of two checkouts, each in a process of its own, in turn.

Times on a machine that others use, too, drift; two that are measured one after the other have the same conditions.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import vidseg_core
from vidseg_core.backends.cpu_features import cpuinfo
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.errors import ConfigError
from vidseg_core.evaluation.bench import turn
from vidseg_core.evaluation.bench.against_plain import street_frames
from vidseg_core.evaluation.bench.propagated import INTERVAL, Case, stage_grid
from vidseg_core.kernels.resample import on_grid
from vidseg_core.threads import set_num_threads

HERE = Path(vidseg_core.__file__).parents[1]
# Frames that each propagates before it is the other's turn: long enough to fill its caches again, short enough for both
# to see the same machine.
FRAMES_EACH = 20


@dataclass(frozen=True)
class Pairing:
    """A case, how many threads it has (0: all), and what the ratio of its medians is to be at most."""

    case: Case
    threads: int
    asked: float | None

    @property
    def name(self) -> str:
        """Name it in the table."""
        return self.case.name + (", one thread" if self.threads == 1 else "")


_LARGE, _FINE = (Case((1024, 2048), stride) for stride in (8, 4))
PAIRINGS = (
    Pairing(_LARGE, 0, 0.65),
    Pairing(_FINE, 0, 0.65),
    Pairing(Case((360, 480), 4), 0, 0.7),
    Pairing(Case((360, 480), 2), 0, None),
    Pairing(Case((240, 320), 2), 0, None),
    Pairing(_LARGE, 1, 0.75),
    Pairing(_FINE, 1, 0.75),
)


def bench_in_turn(
    config: EngineConfig, checkout: Path, pairings: Iterable[Pairing] = PAIRINGS, rounds: int = 10,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict:  # fmt: skip
    """Time propagated frames, overlay included, without refinement and updates, here and in another checkout.

    Both get the same pictures, and the same scores for their key frames, which the network in `config` gives once.

    Args:
        config: weights, runtime and threads.
        checkout: another checkout of this repository, of 0.1.0 or later.
        pairings: what to run.
        rounds: turns of each, after one that is not counted.
        progress: wraps the iteration over pairings.

    Returns:
        JSON-safe: `processor`, `versions` (here, there), and `rows`: `case`, `threads`, `asked`, `ratio` (of the
        medians over all frames, here to there), `ratio_shortest`, `spread` (smallest and largest ratio of a round), and
        for `here` and `there`: `median_ms`, `shortest_ms`, `stages`: name -> [shortest, median].

    Raises:
        ConfigError: `checkout` is none, or one of the processes ends.
    """
    if not (checkout / "vidseg_core" / "engine" / "build.py").is_file():
        raise ConfigError(f"--against {checkout}: expected a checkout of vidseg")
    if checkout.resolve() == HERE.resolve():
        raise ConfigError(f"--against {checkout}: expected another checkout than the one that runs")
    rows, versions = [], []
    with build_engine(config) as engine, TemporaryDirectory(prefix="vidseg-bench-") as folder:
        every = set_num_threads(config.num_threads)
        np.save(Path(folder) / "lut.npy", engine.classes.lut)
        with _process(HERE) as here, _process(checkout.resolve()) as there:
            for pairing in progress(pairings):
                case, threads = pairing.case, pairing.threads or every
                frames = street_frames(case.size, INTERVAL + 1)
                with torch.inference_mode():
                    scores = on_grid(engine.networks.segmenter(frames[0]), stage_grid(case)).float()
                np.save(Path(folder) / "images.npy", np.stack([frame.image for frame in frames]))
                np.save(Path(folder) / "scores.npy", scores.contiguous().numpy())
                task = {"folder": folder, "grid_stride": case.grid_stride, "threads": threads}
                versions = [side.ask(task)["version"] for side in (here, there)]
                turns = list(_turns(here, there, rounds))
                rows.append({"case": pairing.name, "threads": threads, "asked": pairing.asked} | compared(turns))
    names = dict(zip(("here", "there"), versions, strict=True))
    return {"processor": cpuinfo("model name"), "versions": names, "rows": rows}


class _Side:
    """A process that runs `turn` in a checkout."""

    def __init__(self, checkout: Path, process: subprocess.Popen[str]):
        self._checkout = checkout
        self._process = process

    def ask(self, question: dict) -> dict:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise ConfigError(f"{self._checkout}: its process has ended with status {self._process.wait()}, see above")
        found = json.loads(answer)
        if "package" in found and Path(found["package"]) != self._checkout / "vidseg_core":
            raise ConfigError(f"{self._checkout}: expected its own vidseg_core, its process runs {found['package']}")
        return found


@contextmanager
def _process(checkout: Path) -> Iterator[_Side]:
    # By its text, so that the modules beside it are not taken for others; `-c` looks for them in the checkout first.
    command = [sys.executable, "-c", Path(turn.__file__).read_text(encoding="utf-8")]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    with subprocess.Popen(
        command, cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield _Side(checkout, process)
        finally:
            process.kill()


def _turns(here: _Side, there: _Side, rounds: int) -> Iterator[tuple[dict, dict]]:
    """Yield milliseconds by stage of both sides in each round but the first; who begins changes."""
    for number in range(rounds + 1):
        sides = (here, there) if number % 2 else (there, here)
        found = {side: side.ask({"loops": FRAMES_EACH // INTERVAL}) for side in sides}
        if number:
            yield found[here], found[there]


def compared(turns: list[tuple[dict, dict]]) -> dict:
    """Summarise milliseconds by stage, here and there, of all rounds: see `bench_in_turn`."""
    sides = []
    for side in zip(*turns, strict=True):
        times = {name: [value for turn in side for value in turn[name]] for name in side[0]}
        stages = {name: [min(values), statistics.median(values)] for name, values in times.items()}
        shortest, median = stages["frame"]
        sides.append({"median_ms": median, "shortest_ms": shortest, "stages": stages})
    ratios = [statistics.median(here["frame"]) / statistics.median(there["frame"]) for here, there in turns]
    ours, theirs = sides
    return {
        "ratio": ours["median_ms"] / theirs["median_ms"],
        "ratio_shortest": ours["shortest_ms"] / theirs["shortest_ms"],
        "spread": [min(ratios), max(ratios)],
        "here": ours,
        "there": theirs,
    }


def table(report: dict) -> str:
    """Format the report as text."""
    versions = report["versions"]
    lines = [
        f"propagated frame, {versions['here']} (here) against {versions['there']}, {report['processor']}",
        f"  {'shortest (median), ms':<42}{'there':>16}{'here':>16}  times           spread        asked",
    ]
    for row in report["rows"]:
        both = "".join(f"{row[side]['shortest_ms']:8.2f} ({row[side]['median_ms']:5.2f})" for side in ("there", "here"))
        low, high = row["spread"]
        asked = "" if row["asked"] is None else f"{row['asked']:.2f}"
        times = f"{row['ratio_shortest']:.2f} ({row['ratio']:.2f})"
        lines.append(f"  {row['case']:<42}{both}  {times}   {low:.2f} .. {high:.2f}   {asked:>8}")
    for row in report["rows"]:
        lines.append(f"{row['case']}: shortest (median), ms")
        for name in row["here"]["stages"]:
            sides = [row[side]["stages"].get(name) for side in ("there", "here")]
            both = "".join("-".rjust(16) if one is None else f"{one[0]:8.2f} ({one[1]:5.2f})" for one in sides)
            lines.append(f"  {name:<42}{both}")
    return "\n".join(lines)
