"""Memory over a long drive; `make soak` drives for longer."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from vidseg_core.classes import load_classes
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.frame import Frame
from vidseg_core.models.files import save_weights
from vidseg_core.networks.flow_light import FlowLight
from vidseg_core.networks.guided_refine import GuidedRefine
from vidseg_core.networks.swiftnet import SwiftNet
from vidseg_core.overlay import overlay

FRAMES = int(os.environ.get("VIDSEG_SOAK_FRAMES", "500"))
SETTLED = 100  # frames until everything is compiled and allocated
SIZE = (128, 192)


def resident_bytes(engine):
    """Of this process, and of the segmenter's where it has one of its own."""
    processes = ["self"] if engine.turns is None else ["self", engine.networks.segmenter.pid]
    pages = sum(int(Path(f"/proc/{process}/statm").read_text().split()[1]) for process in processes)
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("runtime", "key_frames", "schedule"),
    [
        pytest.param("eager", "sync", "fixed", marks=pytest.mark.long),
        pytest.param("openvino", "sync", "fixed", marks=pytest.mark.long),
        ("eager", "async", "adaptive"),
    ],
)
def test_memory_does_not_grow(tmp_path, runtime, key_frames, schedule):
    classes = load_classes("camvid")
    torch.manual_seed(0)
    save_weights(
        tmp_path / "net.safetensors", SwiftNet(11).state_dict(),
        {"architecture": "swiftnet-r18", "classes": classes.to_dict()},
    )  # fmt: skip
    parts = {"refine": GuidedRefine(11), "flow": FlowLight()}
    tensors = {f"{part}.{key}": value for part, net in parts.items() for key, value in net.state_dict().items()}
    save_weights(tmp_path / "seq.safetensors", tensors, {"architecture": "swnet-seq", "classes": classes.to_dict()})
    config = EngineConfig(
        weights=tmp_path / "net.safetensors", refine_weights=tmp_path / "seq.safetensors", refine=True,
        flow="light", confidence=True, input_scale=0.5, grid_stride=8, device="cpu", runtime=runtime,
        key_frames=key_frames, schedule=schedule, update_weights=tmp_path / "net.safetensors", update_scale=0.25,
    )  # fmt: skip
    images = np.random.default_rng(0).integers(0, 256, (7, *SIZE, 3), dtype=np.uint8)
    with build_engine(config) as engine:
        stream = engine.stream()
        for number in range(FRAMES):
            image = images[number % len(images)]
            overlay(image, stream.step(Frame(image, number * 33_333_333)).labels, classes.lut)
            if number == SETTLED:
                settled = resident_bytes(engine)
        # One frame's labels and overlay are 98 kB: where each were kept, 400 frames would be 39 MB. What allocators
        # and other processes' code pages add was seen to be up to 9 MB.
        assert resident_bytes(engine) - settled < 20_000_000
