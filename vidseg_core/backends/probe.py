"""Networks of others, tried in another process first: what ends that one is an error message here.

`python -m vidseg_core.backends.probe` is that process.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from vidseg_core.arrays import as_tensor
from vidseg_core.backends.blob_cache import cache_directory
from vidseg_core.backends.choose import load_backend
from vidseg_core.errors import CheckpointError, ConfigError
from vidseg_core.kernels.queries import scores_of_queries
from vidseg_core.networks.graph import Foreign, from_description
from vidseg_core.threads import available_threads

LONGEST_S = 600
PROGRAM = ("-m", "vidseg_core.backends.probe")


@dataclass(frozen=True)
class Trial:
    """The result of running a network once.

    Attributes:
        shape: of its output, as B x C x h x w, or as whatever order the graph says it has; for masks and classes of
            queries, of the scores that they make.
        finite: whether all values were.
        low, high: the smallest and the largest value; 0 where they are not finite.
    """

    shape: tuple[int, int, int, int]
    finite: bool
    low: float
    high: float


Results = dict[str, Trial | str]
"""By the name of a backend: what running it has given, or what is wrong."""


def probe(graph: Foreign, size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]) -> Trial:
    """Run a network once in another process, by each backend that is installed.

    Results are kept for the next time.

    Args:
        graph: learns which backends run it.
        size: (h, w) of its input.
        mean, std: of red, green and blue: the picture is `(value - mean) / std` of values 0..255.

    Raises:
        CheckpointError: none of them runs it; with what each said.
        ConfigError: no backend for such networks is installed.
    """
    device = torch.device("cpu")
    missing = {name: reason for name in graph.executors if (reason := load_backend(name).available(device))}
    present = [name for name in graph.executors if name not in missing]
    if not present:
        raise ConfigError(f"{graph.path}: nothing here executes {graph.form}: {'; '.join(missing.values())}")
    asked = {
        "graph": graph.describe(),
        "identity": graph.identity(),
        "backends": present,
        "size": size,
        "mean": mean,
        "std": std,
    }
    results = _kept(asked)
    trials = {name: one for name, one in results.items() if isinstance(one, Trial)}
    failed = {name: f"{name}: {one}" for name, one in results.items() if not isinstance(one, Trial)}
    if not trials:
        raise CheckpointError(f"{graph.path}: cannot be executed: {'; '.join(failed.values())}")
    graph.backends, graph.problems = tuple(trials), missing | failed
    return next(iter(trials.values()))


def _kept(asked: dict[str, Any]) -> Results:
    """Results of an earlier trial of the same, or of a new one."""
    text = json.dumps([asked, _versions()], sort_keys=True, default=str)
    file = cache_directory().parent / "onnx" / f"{hashlib.sha256(text.encode()).hexdigest()[:40]}.json"
    try:
        return _parsed(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        pass  # none yet
    lines = in_a_process_of_its_own(asked)
    results = _parsed(lines)
    if all(isinstance(one, Trial) for one in results.values()):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(lines, encoding="utf-8")
        except OSError:
            pass  # tried again next time
    return results


def _parsed(lines: str) -> Results:
    results: Results = {}
    for line in lines.splitlines():
        name, found = json.loads(line)
        results[name] = found if isinstance(found, str) else Trial(**found | {"shape": tuple(found["shape"])})
    return results


def in_a_process_of_its_own(asked: dict[str, Any]) -> str:
    """Run `trials` in another process; where that ends it, the backend that was at work is told of."""
    lines, left = "", list(asked["backends"])
    while left:
        command = [sys.executable, *PROGRAM]
        text = json.dumps(asked | {"backends": left}, default=str)
        try:
            done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=LONGEST_S, check=False)
            said, end = done.stdout, _how_it_ended(done)
        except subprocess.TimeoutExpired as expired:
            said = (expired.stdout or b"").decode() if isinstance(expired.stdout, bytes) else expired.stdout or ""
            end = f"no result within {LONGEST_S} s"
        found = [line for line in said.splitlines() if line.startswith("[")]
        left = left[len(found) :]
        if left:
            found.append(json.dumps([left.pop(0), end]))
        lines += "".join(f"{line}\n" for line in found)
    return lines


def _how_it_ended(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"it ends the process that loads it ({signal.Signals(-done.returncode).name})"
    told = done.stderr.strip().splitlines()
    return " ".join(told[-1].split()) if told else f"exit status {done.returncode}"


def _versions() -> list[str]:
    found = []
    for package in ("torch", "transformers", "openvino", "onnxruntime", "onnx"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(package)
    return found


def trials(asked: dict[str, Any]) -> Iterator[str]:
    """Run a graph by each backend that is asked for; a line of JSON for each."""
    height, width = asked["size"]
    random = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.float32)
    picture = (random - np.float32(asked["mean"])) / np.float32(asked["std"])
    image = torch.from_numpy(picture)[None].permute(0, 3, 1, 2)
    network = from_description(asked["graph"]).eval().requires_grad_(False)
    for name in asked["backends"]:
        try:
            compiled = load_backend(name).compile(network, (image,), None, available_threads())
            with torch.inference_mode():
                output = compiled(image)
                if isinstance(output, tuple):
                    output = as_tensor(scores_of_queries(output[0], output[1].flatten(2)))
        except Exception as error:  # whatever the library raises
            yield json.dumps([name, f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"])
            continue
        finite = bool(torch.isfinite(output).all())
        low, high = (float(output.min()), float(output.max())) if finite else (0.0, 0.0)
        yield json.dumps([name, {"shape": list(output.shape), "finite": finite, "low": low, "high": high}])


if __name__ == "__main__":
    for result in trials(json.loads(sys.stdin.read())):
        print(result, flush=True)
