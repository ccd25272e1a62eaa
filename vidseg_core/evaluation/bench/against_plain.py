"""Time the engine against the pipeline written plainly: both in one process, frame by frame in turn.

The plain pipeline is the published method in eager float32 PyTorch: `interpolate` for every resize, FlowLight,
`grid_sample`, guided refinement, upsampling of all logits and argmax, and a NumPy overlay. It has the same networks,
weights, thread count and frames as the engine, or another segmenter where that is asked for. Times on a shared machine
drift; the ratio of two neighbouring measurements does not, so the median of paired ratios is what counts.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg_core import __version__
from vidseg_core.backends.cpu_features import cpu_bf16, processor_name
from vidseg_core.classes import ClassTable
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.flow import DIS, NetworkFlow
from vidseg_core.engine.geometry import grid_size, network_size
from vidseg_core.engine.refine import Refinement
from vidseg_core.engine.segmenter import NetworkSegmenter
from vidseg_core.engine.state import StageTimes
from vidseg_core.engine.stream import Stream
from vidseg_core.errors import ConfigError
from vidseg_core.frame import Frame
from vidseg_core.models.architectures import SEGMENTER
from vidseg_core.models.card import SWIFTNET_INPUT, InputCard
from vidseg_core.models.open import Model, open_model
from vidseg_core.networks.flow_light import FLOW_UNIT, FlowLight
from vidseg_core.networks.graph import Graph
from vidseg_core.networks.guided_refine import GuidedRefine
from vidseg_core.networks.normalisation import normalise
from vidseg_core.overlay import overlay
from vidseg_core.street import Street, StreetConfig

OPACITY = 0.5
STEP_NS = 33_333_333
STAGES = ("prepare", "compare", "segment", "fuse", "flow", "warp", "refine", "decode", "overlay", "frame")


@dataclass(frozen=True)
class Case:
    """One table of the benchmark.

    Attributes:
        name: shown in the table.
        size: (H, W) of the frames.
        scale: of the segmenter's input.
        grid_stride: 4 or 8.
        flow: the engine's flow; the plain pipeline always uses FlowLight.
        refine: whether both refine propagated logits.
        fusion: whether the engine's key frames blend in the past, which the plain pipeline never does.
    """

    name: str
    size: tuple[int, int]
    scale: float
    grid_stride: int
    flow: str
    refine: bool
    fusion: bool = True


SAME = Case("2048 x 1024, light, refinement, no fusion", (1024, 2048), 0.75, 8, "light", True, fusion=False)
LOOP = Case("2048 x 1024, DIS, refinement", (1024, 2048), 0.75, 8, "dis", True)
NON_KEY = Case("2048 x 1024, DIS", (1024, 2048), 0.75, 8, "dis", False)
CASES = (
    SAME,
    LOOP,
    NON_KEY,
    Case("2048 x 1024, stride 4, DIS", (1024, 2048), 0.75, 4, "dis", False),
    Case("480 x 360, DIS, refinement", (360, 480), 1.0, 4, "dis", True),
    Case("480 x 360, DIS", (360, 480), 1.0, 4, "dis", False),
)


class PlainPipeline:
    """Run the published method as one would first write it: eager float32 PyTorch.

    Args:
        segmenter, flow, refine: networks, float32 and contiguous; `refine` None leaves it out.
        case: sizes and scale.
        lut: 256 x 3, uint8.
        input: how the segmenter's input is made of a picture.
    """

    def __init__(
        self, segmenter: nn.Module, flow: nn.Module, refine: nn.Module | None, case: Case, lut: np.ndarray,
        input: InputCard = SWIFTNET_INPUT,
    ):  # fmt: skip
        self._segmenter, self._flow, self._refine, self._input = segmenter, flow, refine, input
        self._case, self._lut = case, lut
        self._previous: np.ndarray | None = None
        self._logits: Tensor | None = None

    @torch.inference_mode()
    def step(self, image: np.ndarray, is_key: bool) -> tuple[np.ndarray, StageTimes]:
        """Label the next image and draw its overlay: labels (H x W, uint8), and milliseconds per stage."""
        timings = StageTimes()
        size, grid = self._case.size, grid_size(self._case.size, self._case.grid_stride)
        if is_key:
            with timings.stage("segment"):
                given = self._input
                x = self._tensor(image, network_size(size, self._case.scale, given.multiple), given.mean, given.std)
                scores = self._segmenter(x)
                self._logits = _interpolate(scores, grid)
        else:
            with timings.stage("prepare"):
                current, previous = (self._tensor(x, grid).flip(1) for x in (image, self._previous))
            with timings.stage("flow"):
                flow = _interpolate(self._flow(current, previous), grid) / FLOW_UNIT
            with timings.stage("warp"):
                self._logits = _plain_warp(self._logits, flow)
            if self._refine is not None:
                with timings.stage("refine"):
                    self._logits = self._refine(self._logits, current).logits
        self._previous = image
        with timings.stage("decode"):
            labels = _interpolate(self._logits, size).argmax(1)[0].to(torch.uint8).numpy()
        with timings.stage("overlay"):
            (image * (1 - OPACITY) + self._lut[labels] * OPACITY).astype(np.uint8)
        return labels, timings

    def _tensor(self, image: np.ndarray, size: tuple[int, int], *statistics: tuple[float, float, float]) -> Tensor:
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        return _interpolate(normalise(x, *statistics), size)


def _interpolate(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def _plain_warp(values: Tensor, flow: Tensor) -> Tensor:
    h, w = values.shape[2:]
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    grid = torch.stack((2 * (x + flow[:, 0]) / (w - 1) - 1, 2 * (y + flow[:, 1]) / (h - 1) - 1), -1)
    return F.grid_sample(values, grid, align_corners=True)


def untrained_refinement(num_classes: int) -> GuidedRefine:
    """Make a refinement that costs what a trained one costs, and returns the warped logits unchanged.

    Untrained weights would turn labels into noise, and noise takes longer to decode than any picture does.
    """
    refine = GuidedRefine(num_classes).eval()
    norm = refine.guide.guide_decoder[1]
    nn.init.zeros_(norm.weight)
    nn.init.zeros_(norm.bias)
    norm.bias.data[0] = 1.0
    return refine


def run_case(
    case: Case, engine: Engine, interval: int, rounds: int, progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    plain_model: Model | None = None,
) -> dict:  # fmt: skip
    """Time both pipelines on street frames.

    Args:
        engine: gives the segmenter and the class table.
        interval: propagated frames between key frames.
        rounds: how often key frame and propagated frames are measured, after one round that is not counted.
        progress: wraps the iteration over rounds, for instance `tqdm`.
        plain_model: brings the plain pipeline's segmenter; None for the engine's.

    Returns:
        JSON-safe: `case`, `grid_stride`, `stages` (name -> `ms`, `plain_ms`, `ratio`, `spread`), for key and non-key
        frames and the whole loop, `loop_vs_eager`, `loop_vs_per_frame`, `label_agreement`.
    """
    torch.manual_seed(0)
    segmenter = engine.networks.segmenter
    network, given = segmenter.network, segmenter.input
    if plain_model is not None:
        network, given = plain_model.torch_network(SEGMENTER), plain_model.card.input
    elif isinstance(network, Graph):
        raise ConfigError(
            "weights: expected a segmenter that PyTorch can run, as the plain pipeline's, got an ONNX file"
        )
    classes: ClassTable = engine.classes
    light, refine = FlowLight().eval(), untrained_refinement(len(classes)) if case.refine else None
    contiguous = deepcopy(network).to(memory_format=torch.contiguous_format)
    plain = PlainPipeline(contiguous, light, refine, case, classes.lut, given)
    stream = _stream(engine, case, interval, light, refine)
    frames = street_frames(case.size, interval + 1)
    records: dict[str, list[tuple[float, float]]] = defaultdict(list)
    agreement = []
    for number in progress(range(rounds + 1)):
        loop = [0.0, 0.0]
        for k, frame in enumerate(frames):
            # Time goes on, so that key frames have a past from the second round on.
            frame = replace(frame, stamp_ns=(number * len(frames) + k) * STEP_NS)
            times, labels = [None, None], [None, None]
            for which in (0, 1) if (number + k) % 2 else (1, 0):
                labels[which], times[which] = _timed(which, k == 0, frame, plain, stream, classes.lut)
            loop = [total + t["frame"] for total, t in zip(loop, times, strict=True)]
            if number == 0:
                continue
            kind = "key" if k == 0 else "non_key"
            for stage in STAGES:
                if stage in times[0] or stage in times[1]:
                    records[f"{kind}.{stage}"].append((times[0].get(stage, 0.0), times[1].get(stage, 0.0)))
            if case.flow == "light":
                agreement.append(float((labels[0] == labels[1]).mean()))
        if number:
            records["loop"].append(tuple(loop))
    stages = {name: _summary(pairs) for name, pairs in records.items()}
    key = statistics.median(plain_ms for plain_ms, _ in records["key.frame"])
    per_frame = [key * (interval + 1) / ours for _, ours in records["loop"]]
    return {
        "case": case.name, "size": list(case.size), "scale": case.scale, "grid_stride": case.grid_stride,
        "interval": interval, "stages": stages,
        "loop_vs_eager": stages["loop"]["ratio"], "loop_vs_per_frame": statistics.median(per_frame),
        "decode_vs_plain": stages["non_key.decode"]["ratio"] if interval else None,
        "non_key_ms": min(ours for _, ours in records["non_key.frame"]) if interval else None,
        "label_agreement": statistics.mean(agreement) if agreement else None,
    }  # fmt: skip


def _timed(which: int, is_key: bool, frame: Frame, plain: PlainPipeline, stream: Stream, lut: np.ndarray):
    """One frame through one of the two: 0 plain, 1 the engine."""
    begin = time.perf_counter()
    if which == 0:
        labels, timings = plain.step(frame.image, is_key)
    else:
        result = stream.step(frame)
        labels, timings = result.labels, StageTimes(result.timings)
        with timings.stage("overlay"):
            overlay(frame.image, labels, lut, OPACITY)
    timings["frame"] = (time.perf_counter() - begin) * 1e3
    return labels, timings


def _stream(engine: Engine, case: Case, interval: int, light: FlowLight, refine: GuidedRefine | None) -> Stream:
    """The engine with the case's networks, in its own runtime; its segmenter serves all cases."""
    config = replace(
        engine.config, interval=interval, grid_stride=case.grid_stride, input_scale=case.scale, fusion=case.fusion,
        flow="dis", warp_padding="zeros", ego_mask=None,
    )  # fmt: skip
    device, execute = engine.networks.device, engine.runtime.executor
    segmenter = engine.networks.segmenter
    segmenter = NetworkSegmenter(
        segmenter.network, case.scale, device, segmenter.execute, segmenter.input, segmenter.output
    )
    light, refine = (None if n is None else deepcopy(n).to(memory_format=torch.channels_last) for n in (light, refine))
    flow = NetworkFlow(light, execute(light, "flow network")) if case.flow == "light" else DIS(config.dis_preset)
    refine = None if refine is None else Refinement(refine, execute)
    variant = engine.variant(config, segmenter=segmenter, flow=flow, refine=refine, feedback=True, updater=None)
    return variant.stream(key_delay=0)


def street_frames(size: tuple[int, int], count: int) -> list[Frame]:
    """Render the first `count` frames of the synthetic street of seed 0."""
    street = Street(StreetConfig(seed=0, width=size[1], height=size[0], rate_hz=30.0, num_frames=count))
    return [street.render(i) for i in range(count)]


def _summary(pairs: list[tuple[float, float]]) -> dict:
    plain, ours = zip(*pairs, strict=True)
    ratios = [a / b for a, b in pairs if b > 0]
    return {
        "plain_ms": statistics.median(plain),
        "ms": statistics.median(ours),
        "ratio": statistics.median(ratios) if ratios else None,
        "spread": [min(ratios), max(ratios)] if ratios else None,
    }


def bench(
    config: EngineConfig, cases: Iterable[Case] = CASES, interval: int = 4, rounds: int = 5,
    progress: Callable[[Iterable[int], str], Iterable[int]] = lambda items, name: items,
    plain_weights: str | None = None,
) -> dict:  # fmt: skip
    """Run every case and return its figures, JSON-safe.

    Args:
        config: chooses weights, runtime and threads; stages are timed as they are on the CPU.
        cases: what to run.
        interval, rounds, progress: see `run_case`.
        plain_weights: name or path of the plain pipeline's segmenter; None for the engine's.

    Raises:
        CheckpointError, ConfigError: as `build_engine`.
        CheckpointError: `plain_weights` are missing, damaged, bring no segmenter or have other classes.
        ConfigError: the device is not the CPU.
    """
    engine = build_engine(config)
    if engine.networks.device.type != "cpu":
        raise ConfigError(f"device: expected cpu, for which the benchmark is written, got {engine.networks.device}")
    plain_model = None if plain_weights is None else open_model(plain_weights, SEGMENTER)
    if plain_model is not None:
        plain_model.check_classes(engine.classes)
    rows = [
        run_case(case, engine, interval, rounds, lambda items, c=case: progress(items, c.name), plain_model)
        for case in cases
    ]
    return {
        "version": __version__, "processor": processor(), "cpu_bf16": cpu_bf16(),
        "device": str(engine.networks.device), "runtime": engine.runtimes()["segmenter"],
        "plain_weights": None if plain_model is None else plain_model.path.name,
        **headline(rows), "rounds": rounds, "engine": engine.describe(), "rows": rows,
    }  # fmt: skip


def headline(rows: Iterable[dict]) -> dict:
    """Pick the headline figures from the cases that define them; None where such a case was left out."""
    by_name = {row["case"]: row for row in rows}
    defined_by = {
        "loop_vs_eager": LOOP, "loop_vs_per_frame": LOOP, "decode_vs_plain": LOOP,
        "non_key_ms": NON_KEY, "label_agreement": SAME,
    }  # fmt: skip
    return {name: by_name.get(case.name, {}).get(name) for name, case in defined_by.items()}


def processor() -> str:
    """Name the processor."""
    return processor_name()


def table(report: dict) -> str:
    """Format the report as text."""
    lines = [f"{report['processor']}, {report['runtime']}"]
    for row in report["rows"]:
        lines.append(f"{row['case']}, i = {row['interval']}")
        lines.append(f"  {'stage':<18}{'plain ms':>10}{'ms':>10}{'ratio':>8}   spread")
        for name, stage in row["stages"].items():
            ratio = (
                ""
                if stage["ratio"] is None
                else f"{stage['ratio']:8.2f}   {stage['spread'][0]:.2f} .. {stage['spread'][1]:.2f}"
            )
            lines.append(f"  {name:<18}{stage['plain_ms']:10.2f}{stage['ms']:10.2f}{ratio}")
        lines.append(
            f"  whole loop: {row['loop_vs_eager']:.2f} x the plain pipeline, "
            f"{row['loop_vs_per_frame']:.2f} x plain SwiftNet on every frame"
        )
        if row["label_agreement"] is not None:
            lines.append(f"  labels agree with the plain pipeline's on {100 * row['label_agreement']:.3f} % of pixels")
    return "\n".join(lines)
