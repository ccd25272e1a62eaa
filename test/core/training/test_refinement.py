import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from vidseg_core.classes import load_classes
from vidseg_core.data.labelled import folder_pair
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.flow import DIS
from vidseg_core.engine.segmenter import TruthSegmenter
from vidseg_core.errors import CheckpointError, ConfigError
from vidseg_core.frame import Frame
from vidseg_core.models.card import InputCard
from vidseg_core.models.checkpoint import load_swnet_seq
from vidseg_core.models.files import read_metadata, read_tensors, save_weights
from vidseg_core.networks.normalisation import MEAN_RGB, STD_RGB
from vidseg_core.networks.swiftnet import SwiftNet
from vidseg_core.training.augment import Augmentation
from vidseg_core.training.clip_loader import ClipSource
from vidseg_core.training.clips import ClipMaker
from vidseg_core.training.mix import make_mix
from vidseg_core.training.refinement import Propagation, RefineTraining, divergence, initialise, train_refine

VIEW = Augmentation(crop=(64, 96), scale=(1.0, 1.2))
QUICK = {"epochs": 2, "batch": 2, "warmup": 0.5, "steps": 2, "hold_back": 0.25, "grid_stride": 4, "augmentation": VIEW}


@pytest.fixture
def mix(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "aannot"):
        (tmp_path / name).mkdir()
    for number in range(8):
        labels = np.kron(rng.integers(0, 11, (6, 8), dtype=np.uint8), np.ones((16, 16), np.uint8))
        image = np.dstack([labels * 20] * 3) + rng.integers(0, 12, (96, 128, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "a" / f"x_{number:03d}.png"), image)
        cv2.imwrite(str(tmp_path / "aannot" / f"x_{number:03d}.png"), labels)
    return make_mix([folder_pair(tmp_path, "a", load_classes("camvid"))], [1.0], QUICK["hold_back"])


def segmenter():
    torch.manual_seed(0)
    return SwiftNet(11)


@pytest.mark.parametrize(("flow", "edge", "feedback"), [("dis", True, False), ("light", False, True)])
def test_training_writes_weights_that_the_engine_runs(mix, tmp_path, flow, edge, feedback):
    config = RefineTraining(flow=flow, edge=edge, feedback=feedback, **QUICK)
    lines = []
    weights = train_refine(mix, segmenter(), config, tmp_path / "out", report=lines.append)
    assert len(lines) == 2 and "warped only" in lines[0]
    light, refine = load_swnet_seq(weights)
    assert refine.edge == edge and (light is not None) == (flow == "light")
    metadata = read_metadata(weights)
    assert (metadata["feedback"], metadata["grid_stride"], metadata["flow"]) == (feedback, 4, flow)
    history = json.loads((tmp_path / "out" / "history.json").read_text())["epochs"]
    assert all(0 <= entry["miou"] <= 1 and 0 <= entry["warped_miou"] <= 1 for entry in history)
    engine = build_engine(
        EngineConfig(refine=True, refine_weights=str(weights), flow=flow, interval=3, runtime="eager"),
        TruthSegmenter(11), mix.classes,
    )  # fmt: skip
    assert engine.networks.feedback == feedback and engine.config.grid_stride == 4
    stream, part = engine.stream(), mix.parts[0].train
    for number in range(3):
        labels = stream.step(Frame(part.read_image(0), number * 10**8, labels=part.read_labels(0))).labels
    assert labels.shape == (96, 128) and stream.refined is not None


def test_it_starts_from_what_fits_of_a_file(tmp_path):
    torch.manual_seed(0)
    classes = load_classes("camvid")
    donor = Propagation(11, RefineTraining(flow="light", edge=True))
    save_weights(tmp_path / "seq.safetensors", donor.state_dict(), {"architecture": "swnet-seq"})
    table = load_classes("cityscapes").to_dict()
    other = Propagation(19, RefineTraining(flow="light", edge=True))
    save_weights(tmp_path / "19.safetensors", other.state_dict(), {"architecture": "swnet-seq", "classes": table})

    def start(name, **config):
        net = Propagation(11, RefineTraining(**config))
        return net, initialise(tmp_path / name, net, classes)

    net, taken = start("seq.safetensors", flow="light", edge=True)
    assert taken == ["the flow network", "the refinement"]
    assert all(torch.equal(value, donor.state_dict()[key]) for key, value in net.state_dict().items())
    net, taken = start("19.safetensors", flow="light", edge=True)
    assert taken == ["the flow network"]
    assert torch.equal(next(net.flow.parameters()), next(other.flow.parameters()))
    assert start("seq.safetensors", flow="dis", edge=True)[1] == ["the refinement"]
    with pytest.raises(CheckpointError, match="11 classes of table 'camvid', edge map off.*19 classes, edge map on"):
        start("19.safetensors", flow="dis", edge=False)


def test_a_resumed_training_ends_where_an_unbroken_one_does(mix, tmp_path):
    config = RefineTraining(**QUICK)
    whole = train_refine(mix, segmenter(), config, tmp_path / "whole", report=lambda line: None)
    first = RefineTraining(**QUICK | {"epochs": 1, "warmup": 0.5})
    train_refine(mix, segmenter(), first, tmp_path / "parts", report=lambda line: None)
    parts = train_refine(mix, segmenter(), config, tmp_path / "parts", resume=True, report=lambda line: None)
    a, b = (json.loads((path.parent / "history.json").read_text())["epochs"] for path in (whole, parts))
    assert [entry["epoch"] for entry in b] == [1, 2]
    assert b[1]["loss"] == pytest.approx(a[1]["loss"], rel=0.2)  # the schedule of the first epoch differs
    with pytest.raises(ConfigError, match="steps was 2, is 3"):
        train_refine(mix, segmenter(), RefineTraining(**QUICK | {"steps": 3}), tmp_path / "parts", resume=True)
    with pytest.raises(ConfigError, match="holds a training already"):
        train_refine(mix, segmenter(), config, tmp_path / "parts")


def test_time_budget_ends_after_a_whole_epoch(mix, tmp_path):
    lines = []
    config = RefineTraining(**QUICK)
    train_refine(mix, segmenter(), config, tmp_path / "out", time_budget_min=1e-6, report=lines.append)
    history = json.loads((tmp_path / "out" / "history.json").read_text())["epochs"]
    assert len(history) == 1 and "stopped after epoch 1 of 2" in lines[-1]


def test_a_state_of_another_training_is_refused(mix, tmp_path):
    config = RefineTraining(**QUICK)
    path = tmp_path / "out" / "last.safetensors"
    path.parent.mkdir()
    save_weights(path, {"net.x": torch.zeros(1)}, {"architecture": "training of swiftnet-r18", "config": {}})
    with pytest.raises(
        CheckpointError, match="the state of a training of guided-refine, found 'training of swiftnet-r18'"
    ):
        train_refine(mix, segmenter(), config, tmp_path / "out", resume=True)


@pytest.mark.long
@pytest.mark.long
def test_two_processes_train_one_refinement(mix, tmp_path):
    """Half of every batch each, gradients and statistics averaged: both hold the same network, one writes it."""
    script = tmp_path / "worker.py"
    script.write_text(
        f"""
import torch
from vidseg_core import distributed
from vidseg_core.classes import load_classes
from vidseg_core.data.labelled import folder_pair
from vidseg_core.networks.swiftnet import SwiftNet
from vidseg_core.training import refinement
from vidseg_core.training.augment import Augmentation
from vidseg_core.training.mix import make_mix
from pathlib import Path

here = Path({str(tmp_path)!r})
real = refinement.RefinementRun.loop
def loop(run, *arguments):
    path = real(run, *arguments)
    state = {{"net": run.net.state_dict(), "average": run.average.net.state_dict(), "history": run.history}}
    torch.save(state, here / f"rank{{distributed.rank()}}.pt")
    return path
refinement.RefinementRun.loop = loop
torch.set_num_threads(1)
with distributed.session("cpu"):
    torch.manual_seed(0)
    mix = make_mix([folder_pair(here, "a", load_classes("camvid"))], [1.0], 0.25)
    view = Augmentation(crop=(64, 96), scale=(1.0, 1.2))
    config = refinement.RefineTraining(epochs=1, batch=4, warmup=0.5, steps=2, hold_back=0.25, grid_stride=4,
                                       augmentation=view, flow="light", feedback=True)
    refinement.train_refine(mix, SwiftNet(11), config, here / "out", report=print)
"""
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("held-back mIoU") == 1
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    for part in ("net", "average"):
        assert all(torch.equal(value, second[part][key]) for key, value in first[part].items())
    assert first["history"][0]["held_back"] == second["history"][0]["held_back"]
    written = read_tensors(tmp_path / "out" / "weights.safetensors")
    assert all(torch.equal(value, first["average"][key]) for key, value in written.items())


def test_an_untrained_refinement_begins_near_the_warped_logits(mix):
    config = RefineTraining(**QUICK)
    source = ClipSource(ClipMaker(VIEW), DIS("fine"), 1.0, 4)
    batch = source.batch([(mix.parts[0].train, 0), (mix.parts[0].train, 1)], 2, (0, 0))
    key = torch.randn(2, 11, 16, 24) * 3
    net = Propagation(11, config).eval()
    with torch.no_grad():
        refined, warped = net(key, batch)
    assert (refined.argmax(1) == warped.argmax(1)).float().mean() > 0.8


def test_gradients_reach_refinement_and_flow_through_every_step(mix):
    config = RefineTraining(flow="light", feedback=True, **QUICK)
    source = ClipSource(ClipMaker(VIEW), None, 1.0, 4)
    batch = source.batch([(mix.parts[0].train, 0), (mix.parts[0].train, 1)], 2, (0, 0))
    net = Propagation(11, config)
    refined, _ = net(torch.randn(2, 11, 16, 24), batch)
    refined.square().mean().backward()
    for part in (net.refine, net.flow):
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in part.parameters())
        assert sum(float(p.grad.abs().sum()) for p in part.parameters()) > 0


def test_divergence_is_zero_for_equal_logits_and_grows():
    logits = torch.randn(1, 5, 4, 4)
    assert divergence(logits, logits + 3.0).item() == pytest.approx(0, abs=1e-6)
    assert divergence(logits, -logits).item() > 0.1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps: expected 1..8, got 0"),
        ({"flow": "none"}, "flow: expected one of"),
        ({"hold_back": 0.0}, "hold_back: expected above 0"),
        ({"grid_stride": 3}, "grid_stride: expected one of"),
        ({"schedule": "flat"}, "schedule: expected one of"),
        ({"motion": -1.0}, "motion: expected 0..4"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(ConfigError, match=message):
        RefineTraining(**values)


def test_the_segmenter_sees_pictures_as_its_card_says(mix):
    card = InputCard(mean=(127.0,) * 3, std=(128.0,) * 3, multiple=32)
    samples = [(mix.parts[0].train, 0), (mix.parts[0].train, 1)]
    own, default = (
        ClipSource(ClipMaker(VIEW), None, 1.0, 4, *more).batch(samples, 1, (0, 0)) for more in ((card,), ())
    )
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN_RGB, STD_RGB))
    for ours, theirs in ((own.key, default.key), (own.last, default.last)):
        torch.testing.assert_close(ours * 128 + 127, theirs * std + mean, rtol=0, atol=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(own.images, default.images, strict=True))  # the grid's are shared
