"""Check and time everything that runs on a GPU, in one go: `make gpu`.

    python -m vidseg_core.evaluation.bench.gpu --out docs/gpu

needs PyTorch for CUDA, Triton, numba, OpenCV and this package's own files, nothing else and no network. It compares
every kernel with its reference, and the engine's labels with those of the engine on the CPU; times copies, kernels,
networks and whole frames (`gpu_frames.py`); prints tables and writes CARD.json. Exit status 1 where something computes
other than it should; goals of speed that are not reached are told.

    TRITON_INTERPRET=1 python -m vidseg_core.evaluation.bench.gpu --rehearse

goes through all of it on small pictures without a card; its times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg_core import __version__
from vidseg_core.arrays import as_tensor
from vidseg_core.backends.choose import load_backend
from vidseg_core.engine.event_times import EventTimes
from vidseg_core.engine.state import StageTimes
from vidseg_core.evaluation.bench import gpu_frames
from vidseg_core.evaluation.bench.gpu_frames import WEIGHTS, texture
from vidseg_core.kernels import decode, difference, flow, fuse, look, paint, picture, refine, resample, update, warp
from vidseg_core.kernels.dispatch import provide
from vidseg_core.models.architectures import SEGMENTER
from vidseg_core.models.open import open_model
from vidseg_core.networks.normalisation import MEAN_RGB, STD_RGB
from vidseg_core.overlay import Colours, overlay

CLASSES = 19
PROPAGATED = ("look", "flow", "compose", "paint, labels")
"""Kernels of a propagated frame."""
COPY_BYTES = 1 << 30
WARM_UP = 3

Check = tuple[float, float]
"""What was found, and the most that is good."""


def smooth(channels: int, grid: tuple[int, int], scale: float, seed: int) -> Tensor:
    """Make 1 x C x h x w that vary over about eight pixels."""
    rough = torch.randn(1, channels, max(2, grid[0] // 8), max(2, grid[1] // 8), generator=_generator(seed))
    return F.interpolate(rough * scale, grid, mode="bicubic")


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Inputs:
    """Hold what kernels are called with.

    Args:
        size: (H, W) of the picture.
        grid: (h, w).
        device: where they are computed.
    """

    def __init__(self, size: tuple[int, int], grid: tuple[int, int], device: torch.device):
        self.size, self.grid, self.device = size, grid, device
        self.logits, self.past = smooth(CLASSES, grid, 4.0, 0), smooth(CLASSES, grid, 4.0, 1)
        self.fresh = smooth(CLASSES, (grid[0] // 2, grid[1] // 2), 4.0, 2)
        self.way, self.motion = smooth(2, grid, 3.0, 3), smooth(2, grid, 3.0, 4)
        self.apart = smooth(1, grid, 12.0, 5).abs()
        self.guide = torch.rand(1, 11, *grid, generator=_generator(6)).softmax(1)
        self.colours = Colours(np.random.default_rng(7).integers(0, 256, (256, 3), dtype=np.uint8))
        shown = [cv2.resize(texture(size, shift), grid[::-1], interpolation=cv2.INTER_AREA) for shift in (0, 8)]
        self.now, self.before = (torch.from_numpy(x).permute(2, 0, 1)[None].contiguous() for x in shown)
        greys = [cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) for x in shown]
        self.levels = [list(map(as_tensor, flow.pyramid(grey))) for grey in greys]

    def there(self, x: Any) -> Any:
        """Return tensors, or lists of them, on the device."""
        return [self.there(one) for one in x] if isinstance(x, list) else x.to(self.device)


def checks(inputs: Inputs) -> dict[str, Check]:
    """Compare every kernel with its reference, computed on the CPU."""
    found: dict[str, Check] = {}

    def compare(name: str, operation: Any, most: float, *arguments: Any) -> None:
        tensors = [x if not isinstance(x, (Tensor, list)) else inputs.there(x) for x in arguments]
        got = operation.on("cuda")(*tensors)
        expected = operation.reference(*arguments)
        found[f"{name}: largest difference"] = float((got.cpu() - expected).abs().max()), most

    compare("warp", warp.WARP, 4e-4, inputs.logits, inputs.way, True, "border")
    compare("compose", warp.COMPOSE, 4e-4, inputs.motion, inputs.way)
    compare("update", update.UPDATE, 1e-4, inputs.past, inputs.fresh, inputs.apart, None)
    compare("fuse", fuse.FUSE, 1e-3, inputs.logits, inputs.past, inputs.apart, None)
    compare("label edges", refine.LABEL_EDGES, 0.0, inputs.logits)
    compare("guided sum", refine.GUIDED_SUM, 1e-4, inputs.guide, inputs.logits, inputs.past)
    labels = decode.DECODE.on("cuda")(inputs.there(inputs.logits), inputs.size, False)
    differ = labels != decode.decode(inputs.logits, inputs.size)
    found["decode: share of labels that differ"] = float(differ.mean()), 1e-6
    image = texture(inputs.size, 0)
    moved = paint.Moved(inputs.way, decode.one_class(inputs.logits), padding="border")
    moved_there = moved._replace(way=inputs.there(moved.way), one_class=inputs.there(moved.one_class))
    there = inputs.there(torch.from_numpy(image))
    painted = paint.PAINT.on("cuda")(
        inputs.there(inputs.logits), inputs.size, False, moved_there, None, there, inputs.colours
    )
    differ = painted.labels != paint.paint(inputs.logits, inputs.size, moved=moved).labels
    found["paint: share of labels that differ"] = float(differ.mean()), 1e-5
    drawn = overlay(image, painted.labels, inputs.colours.lut, inputs.colours.opacity)
    found["paint: share of the overlay that differs"] = float((painted.overlay != drawn).mean()), 0.0
    levels, shrunk = look.LOOK.on("cuda")(there, inputs.grid)
    expected_levels = map(as_tensor, look.look(image, inputs.grid).levels)
    found["look: largest difference of levels"] = (
        max(float((own.cpu() - level).abs().max()) for own, level in zip(levels, expected_levels, strict=True)), 0.0,
    )  # fmt: skip
    smoothed = picture.GRID_PICTURE.on("cuda")(there, inputs.grid, shrunk).cpu().int()
    apart = (smoothed - as_tensor(picture.grid_picture(image, inputs.grid)).int()).abs()
    found["look: largest difference of the grid's picture"] = float(apart.max()), 1.0
    size = inputs.size[0] // 4 * 3, inputs.size[1] // 4 * 3
    sampled = resample.NETWORK_INPUT.on("cuda")(there, size, False, MEAN_RGB, STD_RGB).cpu()
    apart = (sampled - as_tensor(resample.network_input(image, size))).abs()
    found["look: largest difference of a network's input"] = float(apart.max()), 1e-4
    moved = difference.DIFFERENCE.on("cuda")(*(inputs.there(x) for x in (inputs.now, inputs.before, inputs.way))).cpu()
    expected = difference.DIFFERENCE.reference(inputs.now, inputs.before, inputs.way)
    inside = expected.isfinite()
    found["difference: largest"] = float((moved - expected)[inside].abs().max()), 1e-3
    found["difference: pixels outside that differ"] = float((moved.isfinite() != inside).float().mean()), 0.0
    ours = flow.DENSE_FLOW.on("cuda")(*(inputs.there(x) for x in inputs.levels), inputs.grid, "rounds").cpu()
    apart = (ours - flow.dense_flow(*inputs.levels, inputs.grid, "rounds")).norm(dim=1)
    found["flow: median distance from the CPU's, px"] = float(apart.median()), 1e-3
    # A descent that ends one turn earlier or later, by rounding, moves its patch by less than that.
    found["flow: share farther than 0.5 px from the CPU's"] = float((apart > 0.5).float().mean()), 0.01
    return found


def microseconds(work: Callable[[], object], device: torch.device, rounds: int = 30) -> tuple[float, str]:
    """Return the median time of `work`, replayed as a graph where that is possible, and how it was called."""
    if device.type == "cpu":
        begin = time.perf_counter()
        work()
        return (time.perf_counter() - begin) * 1e6, "rehearsed"
    stream, how, call = torch.cuda.Stream(), "graph", work
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            work()
        stream.synchronize()
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                work()
            call = graph.replay
        except RuntimeError:
            how = "eager"
            torch.cuda.synchronize()
        times = []
        for _ in range(rounds):
            begin_event, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin_event.record(stream)
            call()
            end.record(stream)
            end.synchronize()
            times.append(begin_event.elapsed_time(end) * 1e3)
    return statistics.median(times), how


def kernel_times(inputs: Inputs) -> dict[str, dict[str, Any]]:
    """Time kernels, with the bytes that each has to move; and copies."""
    from vidseg_core.kernels.triton.paint import paint_on_device

    on = inputs.there
    logits, past, fresh, way, motion = map(on, (inputs.logits, inputs.past, inputs.fresh, inputs.way, inputs.motion))
    apart, guide, now, before = map(on, (inputs.apart, inputs.guide, inputs.now, inputs.before))
    current, previous = map(on, inputs.levels)
    height, width = inputs.size
    rehearse = inputs.device.type == "cpu"
    image = torch.from_numpy(texture(inputs.size, 0))

    def pinned_copy(x: Tensor) -> Tensor:
        return x.clone() if rehearse else x.pin_memory()

    pinned, there = pinned_copy(image), image.to(inputs.device)
    labels, back = there[..., 0].contiguous(), pinned_copy(image[..., 0].contiguous())
    moved = paint.Moved(way, decode.one_class(logits), padding="border")
    copied = COPY_BYTES >> 10 if rehearse else COPY_BYTES
    large = torch.empty(copied // 4, device=inputs.device)
    other = torch.empty_like(large)
    evidence, planes, seen = logits.nbytes, height * width, (height // 4 * 3, width // 4 * 3)
    works: dict[str, tuple[int, Callable[[], object]]] = {
        "copy on the device, 1 GiB": (2 * copied, lambda: other.copy_(large)),
        "image to the device, pinned": (3 * planes, lambda: there.copy_(pinned, non_blocking=True)),
        "image to the device, pageable": (3 * planes, lambda: there.copy_(image)),
        "labels from the device, pinned": (planes, lambda: back.copy_(labels, non_blocking=True)),
        "look": (
            3 * planes + 7 * logits[0, 0].numel(), lambda: look.LOOK.on("cuda")(there, inputs.grid),
        ),
        "look, picture on the grid": (
            3 * planes + 3 * logits[0, 0].numel(), lambda: picture.GRID_PICTURE.on("cuda")(there, inputs.grid, None),
        ),
        "look, network input": (
            3 * planes + 12 * seen[0] * seen[1],
            lambda: resample.NETWORK_INPUT.on("cuda")(there, seen, False, MEAN_RGB, STD_RGB),
        ),
        "warp": (2 * evidence + way.nbytes, lambda: warp.WARP.on("cuda")(logits, way, True, "border")),
        "warp, plain": (2 * evidence + way.nbytes, lambda: warp.WARP.reference(logits, way, True, "border")),
        "compose": (3 * way.nbytes, lambda: warp.COMPOSE.on("cuda")(motion, way)),
        "decode": (evidence + planes, lambda: paint_on_device(logits, inputs.size)),
        "paint, labels": (
            evidence + way.nbytes + planes, lambda: paint_on_device(logits, inputs.size, moved=moved),
        ),
        "paint, labels and overlay": (
            evidence + way.nbytes + 7 * planes,
            lambda: paint_on_device(logits, inputs.size, moved=moved, image=there, colours=inputs.colours),
        ),
        "decode, plain": (
            evidence + planes,
            lambda: F.interpolate(logits, inputs.size, mode="bilinear", align_corners=True).argmax(1).to(torch.uint8),
        ),
        "difference": (
            2 * now.nbytes + way.nbytes + apart.nbytes, lambda: difference.DIFFERENCE.on("cuda")(now, before, way),
        ),
        "update": (
            2 * evidence + fresh.nbytes + apart.nbytes, lambda: update.UPDATE.on("cuda")(past, fresh, apart, None),
        ),
        "fuse": (3 * evidence + apart.nbytes, lambda: fuse.FUSE.on("cuda")(logits, past, apart, None)),
        "guided sum": (3 * evidence + guide.nbytes, lambda: refine.GUIDED_SUM.on("cuda")(guide, logits, past)),
        "flow": (
            sum(x.nbytes for x in (*current, *previous)) + way.nbytes,
            lambda: flow.DENSE_FLOW.on("cuda")(current, previous, inputs.grid, "rounds"),
        ),
    }  # fmt: skip
    report: dict[str, dict[str, Any]] = {}
    bandwidth = 0.0
    for name, (size, work) in works.items():
        took, how = microseconds(work, inputs.device)
        bandwidth = bandwidth or size / took  # bytes per microsecond, of the first
        report[name] = {"us": took, "how": how, "bytes": size, "floor_us": size / bandwidth}
    staged, given = pinned.numpy(), image.numpy()
    took = statistics.median(timeit.repeat(lambda: np.copyto(staged, given), number=1, repeat=10)) * 1e6
    report["image into pinned memory, by the host"] = {"us": took, "how": "host", "bytes": 6 * planes}
    return report


def network_times(size: tuple[int, int], device: torch.device) -> dict[str, float]:
    """Time the segmentation network in each runtime, milliseconds, and compare labels with float32's."""
    network: nn.Module = open_model(WEIGHTS, SEGMENTER).networks[SEGMENTER].to(device).eval().requires_grad_(False)
    x = torch.from_numpy(texture(size, 0)).permute(2, 0, 1)[None].float().to(device) / 128 - 1
    report: dict[str, float] = {}
    expected: Tensor | None = None
    rehearse = device.type == "cpu"
    for name in ("eager", "cuda_half") if rehearse else ("eager", "cuda_half", "cuda_half_graph"):
        with torch.inference_mode():
            compiled = load_backend(name).compile(network, (x,), None, 1)
            scores = compiled(x)
            assert isinstance(scores, Tensor)  # of a segmentation network
            labels = scores.argmax(1)
            expected = labels if expected is None else expected
            times = []
            for number in range(1 if rehearse else WARM_UP + 20):
                times.append(milliseconds(lambda compiled=compiled: compiled(x), device))  # type: ignore[misc]
                if number < WARM_UP and not rehearse:
                    times.clear()
        report[f"{name}, ms"] = statistics.median(times)
        report[f"{name}, labels as float32's"] = float((labels == expected).float().mean())
    return report


def milliseconds(work: Callable[[], object], device: torch.device) -> float:
    """Time one call by the card's own clock; by the host's in a rehearsal."""
    times = StageTimes() if device.type == "cpu" else EventTimes()
    with times.stage("work"):
        work()
    return times.milliseconds()["work"]


def goals(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Compare figures with what was aimed at, for 2048 x 1024 on an H100."""
    frames, kernels = report["frames"], report["kernels"]
    loop = frames["engine: loop, ms"]
    latency = report["camera"]["async"]
    ring = kernels["image into pinned memory, by the host"]["us"] / 1e3
    floor = sum(kernels[name]["floor_us"] for name in PROPAGATED) / 1e3
    found = {
        "propagated frame less the copy into pinned memory, ms": (
            frames["engine: propagated frame, whole, ms"] - ring, "<=", 1.0
        ),
        "propagated frame: replay over the floor of its kernels": (
            frames["engine: propagated frame, replay, ms"] / floor, "<=", 2.5
        ),
        "key frame, ms": (frames["engine: key frame, whole, ms"], "<=", 2.5),
        "loop: plain half over engine": (frames["plain half: loop, ms"] / loop, ">=", 3.0),
        "asynchronous: p99 over median": (latency["p99"] / latency["p50"], "<=", 1.3),
        "four cameras of 1920 x 1080: busy": (report["four cameras"]["busy, share of wall time"], "<=", 0.4),
        "labels as on the CPU": (frames["engine: labels as on the CPU, worst frame"], ">=", 0.995),
    }  # fmt: skip
    if "plain operations: loop, ms" in frames:
        found["loop: eager, plain operations over engine"] = frames["plain operations: loop, ms"] / loop, ">=", 8.0
    return {
        name: {
            "value": value,
            "goal": f"{sign} {limit:g}",
            "reached": value <= limit if sign == "<=" else value >= limit,
        }
        for name, (value, sign, limit) in found.items()
    }


def versions(device: torch.device) -> dict[str, Any]:
    """Return what computed: card, driver, libraries."""
    import numba
    import triton

    found: dict[str, Any] = {
        "vidseg": __version__, "python": platform.python_version(), "torch": torch.__version__,
        "triton": triton.__version__, "numba": numba.__version__, "numpy": np.__version__, "opencv": cv2.__version__,
        "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "driver": driver(), "cpus": os.cpu_count(),
    }  # fmt: skip
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found |= {
            "capability": f"{card.major}.{card.minor}", "multiprocessors": card.multi_processor_count,
            "memory, GiB": round(card.total_memory / 2**30, 1),
        }  # fmt: skip
    return found


def driver() -> str | None:
    """Return the version of NVIDIA's driver; None where its tool is not installed, as on Jetson."""
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def main(arguments: list[str] | None = None) -> int:
    """Run everything; see the module."""
    parser = argparse.ArgumentParser(
        prog="make gpu", description="Check and time everything that runs on a GPU; writes CARD.json."
    )
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the JSON file (default: here)")
    parser.add_argument("--loops", type=int, default=10, help="loops of five frames to be timed (default: 10)")
    parser.add_argument(
        "--rehearse",
        action="store_true",
        help="without a card: small pictures, kernels interpreted, times without meaning",
    )
    args = parser.parse_args(arguments)
    rehearse = args.rehearse
    if rehearse and os.environ.get("TRITON_INTERPRET") != "1":
        parser.error("--rehearse: expected TRITON_INTERPRET=1 in the environment")
    if not rehearse and not torch.cuda.is_available():
        parser.error("no CUDA device; `--rehearse` goes through the checks without one")
    if not provide("cuda"):
        parser.error("Triton is not installed")
    report = measure(torch.device("cpu" if rehearse else "cuda"), args.loops)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{re.sub('[^A-Za-z0-9]+', '-', report['card']).strip('-')}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"\n{path}: {'good' if report['good'] else 'not good'}, {report['seconds']:.0f} s")
    return 0 if report["good"] else 1


def measure(device: torch.device, loops: int) -> dict[str, Any]:
    """Check and time everything on a CUDA device, print tables, and return all figures.

    Args:
        device: a CUDA device; or the CPU, for a rehearsal on small pictures in Triton's interpreter.
        loops: of five frames, to be timed.
    """
    begin, rehearse = time.time(), device.type == "cpu"
    size, grid = ((128, 256), (32, 64)) if rehearse else ((1024, 2048), (256, 512))
    small = (64, 128)  # few pixels and patches: they take the interpreter long
    card = "rehearsal" if rehearse else torch.cuda.get_device_name(device)
    report: dict[str, Any] = {"card": card, **versions(device), "size": list(size), "grid": list(grid)}
    report["classes"] = CLASSES
    inputs = Inputs(size, grid, device)
    print(f"{card}: " + ", ".join(f"{name} {value}" for name, value in versions(device).items()), flush=True)
    report["checks"] = {
        name: {"value": value, "limit": limit, "good": value <= limit}
        for name, (value, limit) in checks(inputs).items()
    }
    for name, check in report["checks"].items():
        print(f"{'good' if check['good'] else 'BAD '} {name:56s}{check['value']:12.3g}   limit {check['limit']:g}")
    report["good"] = all(check["good"] for check in report["checks"].values())
    report["kernels"] = kernel_times(inputs)
    print(f"\n{'':38s}{'us':>10s}{'floor us':>10s}{'share':>8s}")
    for name, one in report["kernels"].items():
        floor = one.get("floor_us")
        share = "" if floor is None else f"{floor:10.1f}{floor / one['us']:8.0%}"
        print(f"{name:38s}{one['us']:10.1f}{share:18s}  {one['how']}", flush=True)
    report["networks"] = network_times(small if rehearse else (768, 1536), device)
    seen = small if rehearse else size
    report["frames"] = gpu_frames.frame_times(seen, 1 if rehearse else loops, device)
    report["asked for"] = gpu_frames.asked_for(seen, device)
    report["camera"] = gpu_frames.at_camera_s_rate(seen, device)
    report["four cameras"] = gpu_frames.four_cameras(small if rehearse else gpu_frames.CAMERA_SIZE, device)
    report["goals"] = goals(report)
    print()
    flat = report["networks"] | report["frames"] | {f"four cameras: {k}": v for k, v in report["four cameras"].items()}
    for group in ("asked for", "camera"):
        flat |= {f"{which}: {k}": v for which, values in report[group].items() for k, v in values.items()}
    for name, value in flat.items():
        print(f"{name:50s}{value:10.4f}")
    print()
    for name, goal in report["goals"].items():
        reached = "no goal in a rehearsal" if rehearse else "reached" if goal["reached"] else "NOT REACHED"
        print(f"{name:56s}{goal['value']:10.3f}   goal {goal['goal']:8s} {reached}")
    report["seconds"] = time.time() - begin
    return report


if __name__ == "__main__":
    sys.exit(main())
