"""Check and time everything that runs on a GPU, in one go: `make gpu`.

    python -m vidseg_core.evaluation.bench.gpu --out docs/gpu

needs PyTorch for CUDA, Triton, numba, OpenCV and this package's own files, nothing else and no network. It compares
every kernel with its reference, and the engine's labels with those of the engine on the CPU; times copies, kernels,
networks and whole frames; prints a table and writes CARD.json. Exit status 1 where something is not as it should be.

    TRITON_INTERPRET=1 python -m vidseg_core.evaluation.bench.gpu --rehearse

goes through the checks on small pictures without a card.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg_core import __version__
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.frame import Frame
from vidseg_core.kernels import decode, difference, flow, fuse, look, paint, picture, refine, resample, update, warp
from vidseg_core.kernels.dispatch import OPERATIONS, provide
from vidseg_core.models.architectures import SEGMENTER
from vidseg_core.models.open import open_model
from vidseg_core.networks.normalisation import MEAN_RGB, STD_RGB
from vidseg_core.overlay import Colours, overlay

CLASSES = 19
WEIGHTS = "camvid-swiftnet-r18"
INTERVAL = 4
STEP_NS = 33_333_333
COPY_BYTES = 1 << 30
WARM_UP = 3

Check = tuple[float, float]
"""What was found, and the most that is good."""


def texture(size: tuple[int, int], shift: int) -> np.ndarray:
    """Make H x W x 3, uint8: noise of several scales, moved by `shift` pixels along x and a third of it along y."""
    margin = 128
    rng, out = np.random.default_rng(0), np.zeros((size[0] + margin, size[1] + margin, 3), np.float32)
    for scale in (4, 16, 64):
        noise = rng.standard_normal((out.shape[0] // scale + 2, out.shape[1] // scale + 2, 3)).astype(np.float32)
        out += cv2.resize(noise, out.shape[1::-1], interpolation=cv2.INTER_CUBIC) * 12 * scale**0.5
    x, y = shift % margin, shift // 3 % margin
    return np.clip(out[y : y + size[0], x : x + size[1]] + 128, 0, 255).astype(np.uint8)


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
        self.levels = [flow.pyramid(grey) for grey in greys]

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
    expected_levels = look.look(image, inputs.grid).levels
    found["look: largest difference of levels"] = (
        max(float((own.cpu() - level).abs().max()) for own, level in zip(levels, expected_levels, strict=True)), 0.0,
    )  # fmt: skip
    smoothed = picture.GRID_PICTURE.on("cuda")(there, inputs.grid, shrunk).cpu().int()
    apart = (smoothed - picture.grid_picture(image, inputs.grid).int()).abs()
    found["look: largest difference of the grid's picture"] = float(apart.max()), 1.0
    size = inputs.size[0] // 4 * 3, inputs.size[1] // 4 * 3
    sampled = resample.NETWORK_INPUT.on("cuda")(there, size, False, MEAN_RGB, STD_RGB).cpu()
    apart = (sampled - resample.network_input(image, size)).abs()
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


def microseconds(work: Callable[[], object], rounds: int = 30) -> tuple[float, str]:
    """Return the median time of `work`, replayed as a graph where that is possible, and how: graph or eager."""
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
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record(stream)
            call()
            end.record(stream)
            end.synchronize()
            times.append(begin.elapsed_time(end) * 1e3)
    return statistics.median(times), how


def kernel_times(inputs: Inputs) -> dict[str, dict[str, Any]]:
    """Time kernels, with the bytes that each has to move; and copies."""
    from vidseg_core.kernels.triton.paint import paint_on_device

    on = inputs.there
    logits, past, fresh, way, motion = map(on, (inputs.logits, inputs.past, inputs.fresh, inputs.way, inputs.motion))
    apart, guide, now, before = map(on, (inputs.apart, inputs.guide, inputs.now, inputs.before))
    current, previous = map(on, inputs.levels)
    height, width = inputs.size
    image = torch.from_numpy(texture(inputs.size, 0))
    pinned, there = image.pin_memory(), image.to(inputs.device)
    labels, back = there[..., 0].contiguous(), image[..., 0].contiguous().pin_memory()
    moved = paint.Moved(way, decode.one_class(logits), padding="border")
    large = torch.empty(COPY_BYTES // 4, device=inputs.device)
    other = torch.empty_like(large)
    evidence, planes, seen = logits.nbytes, height * width, (height // 4 * 3, width // 4 * 3)
    works: dict[str, tuple[int, Callable[[], object]]] = {
        "copy on the device, 1 GiB": (2 * COPY_BYTES, lambda: other.copy_(large)),
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
        "warp, plain": (2 * evidence + way.nbytes, lambda: warp.warp_reference(logits, way, True, "border")),
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
        took, how = microseconds(work)
        bandwidth = bandwidth or size / took  # bytes per microsecond, of the first
        report[name] = {"us": took, "how": how, "bytes": size, "floor_us": size / bandwidth}
    return report


def network_times(size: tuple[int, int], device: torch.device) -> dict[str, float]:
    """Time the segmentation network in each runtime, milliseconds, and compare labels with float32's."""
    from vidseg_core.backends.choose import load_backend

    network: nn.Module = open_model(WEIGHTS, SEGMENTER).networks[SEGMENTER].to(device).eval().requires_grad_(False)
    x = torch.from_numpy(texture(size, 0)).permute(2, 0, 1)[None].float().to(device) / 128 - 1
    report: dict[str, float] = {}
    expected: Tensor | None = None
    for name in ("eager", "cuda_half", "cuda_half_graph"):
        with torch.inference_mode():
            compiled = load_backend(name).compile(network, (x,), None, 1)
            labels = compiled(x).argmax(1)
            expected = labels if expected is None else expected
            for _ in range(WARM_UP):
                compiled(x)
            times = []
            for _ in range(20):
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                compiled(x)
                end.record()
                end.synchronize()
                times.append(begin.elapsed_time(end))
        report[f"{name}, ms"] = statistics.median(times)
        report[f"{name}, labels as float32's"] = float((labels == expected).float().mean())
    return report


@contextmanager
def as_on_a_card(rehearse: bool) -> Iterator[None]:
    """In a rehearsal, have the CPU's tensors computed by the kernels for CUDA devices, interpreted."""
    usual = {name: dict(operation.implementations) for name, operation in OPERATIONS.items()}
    for operation in OPERATIONS.values():
        if rehearse and "cuda" in operation.implementations:
            operation.implementations["cpu"] = operation.implementations["cuda"]
    try:
        yield
    finally:
        for name, operation in OPERATIONS.items():
            operation.implementations = usual[name]


def frame_times(size: tuple[int, int], loops: int, device: torch.device) -> dict[str, float]:
    """Time frames from the picture in memory to labels in memory, milliseconds; compare with the engine on the CPU."""
    common = EngineConfig(weights=WEIGHTS, input_scale=0.75, interval=INTERVAL, dis_preset="rounds", device=str(device))
    rehearse = device.type == "cpu"
    if rehearse:
        common = replace(common, flow_scale=0.25, runtime="eager")
    engines = {"engine": build_engine(common), "cpu": build_engine(replace(common, device="cpu", runtime="eager"))}
    if not rehearse:
        engines["eager"] = build_engine(replace(common, runtime="eager"))
    streams = {name: engine.stream() for name, engine in engines.items()}
    times: dict[str, list[float]] = {}
    agreement = []
    for number in range(loops * (INTERVAL + 1)):
        frame = Frame(texture(size, 2 * number), number * STEP_NS)
        labels = {}
        for name, stream in streams.items():
            if name == "cpu" and number > INTERVAL:
                continue
            begin = time.perf_counter()
            with as_on_a_card(rehearse and name == "engine"):
                result = stream.step(frame)
            took = (time.perf_counter() - begin) * 1e3
            labels[name] = result.labels
            if number > INTERVAL or rehearse:  # the first loop compiles
                kind = f"{name}: {'key' if result.is_key else 'propagated'} frame"
                for stage, stage_took in {"whole": took, **result.timings}.items():
                    times.setdefault(f"{kind}, {stage}, ms", []).append(stage_took)
        if "cpu" in labels:
            agreement.append(float((labels["engine"] == labels["cpu"]).mean()))
    report = {name: statistics.median(values) for name, values in times.items()}
    report["engine: labels as on the CPU, worst frame"] = min(agreement)
    for engine in engines.values():
        engine.close()
    return report


def main(arguments: list[str] | None = None) -> int:
    """Run everything; see the module."""
    parser = argparse.ArgumentParser(
        prog="make gpu", description="Check and time everything that runs on a GPU; writes CARD.json."
    )
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the JSON file (default: here)")
    parser.add_argument("--loops", type=int, default=10, help="loops of five frames to be timed (default: 10)")
    parser.add_argument(
        "--rehearse", action="store_true", help="without a card: checks and frames alone, small, interpreted"
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
    import triton

    begin, rehearse = time.time(), device.type == "cpu"
    size, grid = ((128, 256), (32, 64)) if rehearse else ((1024, 2048), (256, 512))
    card = "rehearsal" if rehearse else torch.cuda.get_device_name(device)
    report: dict[str, Any] = {
        "card": card, "vidseg": __version__, "torch": torch.__version__, "triton": triton.__version__,
        "cuda": torch.version.cuda, "size": list(size), "grid": list(grid), "classes": CLASSES,
    }  # fmt: skip
    inputs = Inputs(size, grid, device)
    print(f"{card}: PyTorch {torch.__version__}, Triton {triton.__version__}, CUDA {torch.version.cuda}", flush=True)
    report["checks"] = {
        name: {"value": value, "limit": limit, "good": value <= limit}
        for name, (value, limit) in checks(inputs).items()
    }
    for name, check in report["checks"].items():
        print(f"{'good' if check['good'] else 'BAD '} {name:56s}{check['value']:12.3g}   limit {check['limit']:g}")
    report["good"] = all(check["good"] for check in report["checks"].values())
    # Few pixels and patches: they take the interpreter long.
    report["frames"] = frame_times((64, 128), 1, device) if rehearse else frame_times(size, loops, device)
    if not rehearse:
        report["kernels"] = kernel_times(inputs)
        print(f"\n{'':38s}{'us':>10s}{'floor us':>10s}{'share':>8s}")
        for name, one in report["kernels"].items():
            share = one["floor_us"] / one["us"]
            print(f"{name:38s}{one['us']:10.1f}{one['floor_us']:10.1f}{share:8.0%}  {one['how']}", flush=True)
        report["networks"] = network_times((768, 1536), device)
    print()
    for name, value in (report.get("networks", {}) | report["frames"]).items():
        print(f"{name:50s}{value:10.4f}")
    report["seconds"] = time.time() - begin
    return report


if __name__ == "__main__":
    sys.exit(main())
