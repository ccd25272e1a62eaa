"""Whole frames on a card: against plain pipelines, at a camera's rate, of four cameras, and what they ask the card for.

Without a card all of it is rehearsed: kernels are interpreted, and nothing waits for the next picture.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from vidseg_core.arrays import as_tensor, takes_tensors
from vidseg_core.backends.cuda import Half, folded
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.geometry import network_size
from vidseg_core.engine.key_frames.jobs import Delayed
from vidseg_core.engine.stream import Stream
from vidseg_core.evaluation.metrics.distribution import distribution
from vidseg_core.frame import Frame
from vidseg_core.kernels.dispatch import OPERATIONS
from vidseg_core.kernels.resample import resize
from vidseg_core.kernels.transfer import download, upload
from vidseg_core.models.architectures import SEGMENTER
from vidseg_core.models.open import open_model
from vidseg_core.networks.normalisation import MEAN_RGB, STD_RGB

WEIGHTS = "camvid-swiftnet-r18"
SCALE = 0.75
INTERVAL = 4
RATE_HZ = 30
STEP_NS = 33_333_333
CAMERAS = 4
CAMERA_SIZE = (1080, 1920)
PICTURES = 6  # to and fro
SECONDS = 5.0
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
COPIES = {"in": "Memcpy HtoD", "out": "Memcpy DtoH", "on the device": "Memcpy DtoD"}


def texture(size: tuple[int, int], shift: int) -> np.ndarray:
    """Make H x W x 3, uint8: noise of several scales, moved by `shift` pixels along x and a third of it along y."""
    margin = 128
    rng, out = np.random.default_rng(0), np.zeros((size[0] + margin, size[1] + margin, 3), np.float32)
    for scale in (4, 16, 64):
        noise = rng.standard_normal((out.shape[0] // scale + 2, out.shape[1] // scale + 2, 3)).astype(np.float32)
        out += cv2.resize(noise, out.shape[1::-1], interpolation=cv2.INTER_CUBIC) * 12 * scale**0.5
    x, y = shift % margin, shift // 3 % margin
    return np.clip(out[y : y + size[0], x : x + size[1]] + 128, 0, 255).astype(np.uint8)


class Pictures:
    """A camera's pictures, made once."""

    def __init__(self, size: tuple[int, int]):
        self._images = [texture(size, 2 * i) for i in range(PICTURES)]

    def frame(self, number: int) -> Frame:
        turn = number % (2 * PICTURES - 2)
        return Frame(self._images[min(turn, 2 * PICTURES - 2 - turn)], number * STEP_NS)


@contextmanager
def as_on_a_card(rehearse: bool) -> Iterator[None]:
    """In a rehearsal, have what is on the CPU computed by the kernels for CUDA devices, interpreted."""
    with implementations():
        for operation in OPERATIONS.values():
            if rehearse and "cuda" in operation.implementations:
                operation.implementations["cpu"] = takes_tensors(operation.implementations["cuda"], operation.for_host)
        yield


@contextmanager
def in_plain_operations() -> Iterator[None]:
    """Have CUDA tensors computed by plain PyTorch alone."""
    with implementations():
        for operation in OPERATIONS.values():
            operation.implementations.pop("cuda", None)
        yield


@contextmanager
def implementations() -> Iterator[None]:
    """Put back at the end what implements each operation."""
    usual = {name: dict(operation.implementations) for name, operation in OPERATIONS.items()}
    try:
        yield
    finally:
        for name, operation in OPERATIONS.items():
            operation.implementations = usual[name]


class Repeats:
    """Stands in for a recorder where there is no card: does the work again, into the same memory."""

    def record(self, work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        made = work()

        def run() -> None:
            for own, new in zip(made, work(), strict=True):
                if own is not None:
                    own.copy_(new)

        return run, made

    def refuse(self, reason: str) -> None:
        raise RuntimeError(f"propagated frames are not recorded: {reason}")


class PlainHalf:
    """The fair baseline: the network on every frame by PyTorch in half precision, channels last, norms folded.

    The picture goes to the card in bytes through pinned memory, is resized there, and labels come back, as ours do.

    Args:
        size: (H, W) of pictures.
        device: of the network.
    """

    def __init__(self, size: tuple[int, int], device: torch.device):
        network: nn.Module = open_model(WEIGHTS, SEGMENTER).networks[SEGMENTER].to(device).eval().requires_grad_(False)
        self._size, self._input, self._device = size, network_size(size, SCALE), device
        example = torch.zeros(1, 3, *self._input, device=device)
        self._network = Half(folded(network, (example,)))
        self._mean, self._std = (torch.tensor(x, device=device).view(1, 3, 1, 1) for x in (MEAN_RGB, STD_RGB))

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Label H x W x 3, uint8."""
        pixels = as_tensor(upload(image, self._device))
        x = (resize(pixels.permute(2, 0, 1)[None].float(), self._input) - self._mean) / self._std
        scores = self._network(x)
        assert isinstance(scores, Tensor)  # of a segmentation network
        full = F.interpolate(scores, self._size, mode="bilinear", align_corners=True)
        return download(full.argmax(1)[0].to(torch.uint8))[0]


def config_on(device: torch.device, rehearse: bool, runtime: str = "eager") -> EngineConfig:
    """Return what is measured; in a rehearsal flow on few pixels."""
    return EngineConfig(
        weights=WEIGHTS, input_scale=SCALE, interval=INTERVAL, dis_preset="rounds", device=str(device),
        runtime=runtime, flow_scale=0.25 if rehearse else None,
    )  # fmt: skip


def engine_on(device: torch.device, *, runtime: str = "auto", key_frames: str = "sync") -> Engine:
    """Build an engine for a card; in a rehearsal one that records, whose kernels `as_on_a_card` has interpreted."""
    if device.type != "cpu":
        return build_engine(replace(config_on(device, False, runtime), key_frames=key_frames))
    engine = build_engine(config_on(device, True)).variant(recorder=Repeats())
    # The interpreter is not for two threads.
    return engine if key_frames == "sync" else engine.variant(key_frames=Delayed(1))


def frame_times(size: tuple[int, int], loops: int, device: torch.device) -> dict[str, float]:
    """Time frames from the picture in memory to labels in memory, milliseconds; compare with the engine on the CPU."""
    rehearse = device.type == "cpu"
    engines = {"engine": engine_on(device), "cpu": build_engine(config_on(torch.device("cpu"), rehearse))}
    if not rehearse:
        engines["plain operations"] = engine_on(device, runtime="eager").variant(recorder=None)
    streams = {name: engine.stream() for name, engine in engines.items()}
    plain = PlainHalf(size, device)
    context: dict[str, Callable[[], AbstractContextManager]] = {
        "engine": lambda: as_on_a_card(rehearse), "plain operations": in_plain_operations,
    }  # fmt: skip
    times: dict[str, list[float]] = {}
    agreement, pictures = [], Pictures(size)
    for number in range(loops * (INTERVAL + 1)):
        frame = pictures.frame(number)
        is_timed = number > INTERVAL or rehearse  # the first loop compiles
        labels = {}
        for name, stream in streams.items():
            if name == "cpu" and number > INTERVAL:
                continue
            with context.get(name, nullcontext)():
                begin = time.perf_counter()
                result = stream.step(frame)
                took = (time.perf_counter() - begin) * 1e3
            labels[name] = result.labels
            kind = f"{name}: {'key' if result.is_key else 'propagated'} frame"
            for stage, stage_took in {"whole": took, **result.timings}.items():
                if is_timed:
                    times.setdefault(f"{kind}, {stage}, ms", []).append(stage_took)
        begin = time.perf_counter()
        plain(frame.image)
        if is_timed:
            times.setdefault("plain half: frame, whole, ms", []).append((time.perf_counter() - begin) * 1e3)
        if "cpu" in labels:
            agreement.append(float((labels["engine"] == labels["cpu"]).mean()))
    report = {name: statistics.median(values) for name, values in times.items()}
    report["engine: labels as on the CPU, worst frame"] = min(agreement)
    for name in engines:
        key, others = (report[f"{name}: {kind} frame, whole, ms"] for kind in ("key", "propagated"))
        report[f"{name}: loop, ms"] = key + INTERVAL * others
        engines[name].close()
    report["plain half: loop, ms"] = (INTERVAL + 1) * report["plain half: frame, whole, ms"]
    return report


def asked_for(size: tuple[int, int], device: torch.device) -> dict[str, dict[str, int]]:
    """Count launches and copies of a key frame and of a propagated frame, by the profiler; 0 in a rehearsal."""
    report = {}
    rehearse = device.type == "cpu"
    pictures = Pictures(size)
    with engine_on(device) as engine:
        stream = engine.stream()
        for number in range(2 * (INTERVAL + 1)):
            with as_on_a_card(rehearse), traced(device) as trace:
                result = stream.step(pictures.frame(number))
            counts = {"launches": sum(event.name in LAUNCHES for event in trace.events())}
            for way, name in COPIES.items():
                counts[f"copies {way}"] = sum(event.name.startswith(name) for event in trace.events())
            report["key frame" if result.is_key else "propagated frame"] = counts  # of the last
            if rehearse and number == 1:
                break
    return report


def traced(device: torch.device) -> profile:
    """Make a context that notes what a device does."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    return profile(activities=activities)


def at_camera_s_rate(size: tuple[int, int], device: torch.device, seconds: float = SECONDS) -> dict[str, dict]:
    """Measure latencies, milliseconds, of a camera at `RATE_HZ`, with key frames waited for and beside the frames."""
    rehearse = device.type == "cpu"
    pictures, report = Pictures(size), {}
    number_of = INTERVAL + 3 if rehearse else round(seconds * RATE_HZ)
    for mode in ("sync", "async"):
        with engine_on(device, key_frames=mode) as engine, as_on_a_card(rehearse):
            stream = engine.stream()
            warm_up = (0 if rehearse else 4) * (INTERVAL + 1)
            took = run([stream], [pictures], warm_up + number_of, rehearse)[0]
            report[mode] = distribution(took[warm_up:])
    return report


def run(streams: Sequence[Stream], pictures: Sequence[Pictures], number_of: int, rehearse: bool) -> list[list[float]]:
    """Step streams at `RATE_HZ`, each at its part of the period: milliseconds from a picture's time to its labels."""
    took: list[list[float]] = [[] for _ in streams]
    begin = time.perf_counter()
    for number in range(number_of):
        for which, (stream, of) in enumerate(zip(streams, pictures, strict=True)):
            due = begin + (number + which / len(streams)) / RATE_HZ
            now = time.perf_counter()
            if not rehearse and now < due:
                time.sleep(due - now)
            due = time.perf_counter() if rehearse else due
            stream.step(of.frame(number))
            took[which].append((time.perf_counter() - due) * 1e3)
    return took


def four_cameras(size: tuple[int, int], device: torch.device, seconds: float = 3.0) -> dict[str, float]:
    """Measure how busy four cameras keep the card: the time in which it does anything, over wall time."""
    rehearse = device.type == "cpu"
    number_of = 2 if rehearse else round(seconds * RATE_HZ)
    pictures = [Pictures(size)] * CAMERAS
    with engine_on(device, key_frames="async") as engine, as_on_a_card(rehearse):
        streams = [engine.stream(phase=i / CAMERAS) for i in range(CAMERAS)]
        if not rehearse:
            run(streams, pictures, 4 * (INTERVAL + 1), rehearse)
        # The trace costs the host time, so latencies are those of another run.
        took = run(streams, pictures, number_of, rehearse)
        with traced(device) as trace:
            begin = time.perf_counter()
            run(streams, pictures, number_of, rehearse)
            wall_us = (time.perf_counter() - begin) * 1e6
    there = [event.time_range for event in trace.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return {
        "busy, share of wall time": united((each.start, each.end) for each in there) / wall_us,
        "rate, Hz": number_of / (wall_us / 1e6),
    } | {f"latency, {name}, ms": value or 0.0 for name, value in distribution(sum(took, [])).items()}


def united(spans: Iterable[tuple[float, float]]) -> float:
    """Return how long anything of (begin, end) lasts; streams of a card overlap."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
