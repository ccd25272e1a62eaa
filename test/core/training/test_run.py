"""The loop of every training, with a network of one number."""

import json
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vidseg_core.classes import load_classes
from vidseg_core.models.files import read_metadata, read_tensors
from vidseg_core.training.run import STATE_FILE, WEIGHTS_FILE, Run


@dataclass(frozen=True)
class Config:
    epochs: int = 4
    batch: int = 2
    rate: float = 0.1
    warmup: float = 0.0
    schedule: str = "cosine"
    average: float = 0.0
    seed: int = 0


class OneNumber(Run):
    """Learns 3; its score in each epoch is as told."""

    samples = "numbers"
    architectures = ("number",)

    def __init__(self, output, scores, config):
        net = nn.Linear(1, 1)
        mix = SimpleNamespace(
            parts=(), classes=load_classes("camvid"), draws=lambda seed, epoch, batch: [[(0, 0)] * batch] * 3
        )
        super().__init__(mix, config, output, torch.device("cpu"), net, torch.optim.AdamW(net.parameters(), lr=0.1))
        self.scores = scores
        self.kept = {"told": []}

    def batches(self, draws, workers):
        yield from (torch.ones(2, 1) for _ in draws)

    def loss_of(self, batch):
        return (self.net(batch) - 3).square().mean()

    def evaluate(self, entry, workers):
        if (score := self.scores[entry["epoch"] - 1]) is not None:
            entry |= {"miou": score, "held_back": {}}

    def weights(self, entry):
        return dict(self.average.net.state_dict()), {"architecture": "number", "epoch": entry["epoch"]}

    def line(self, entry):
        self.kept["told"].append(entry["epoch"])
        return f"epoch {entry['epoch']}"


def run(tmp_path, *scores, **config):
    return OneNumber(tmp_path, scores, replace(Config(), epochs=len(scores), **config))


def best_epoch(tmp_path):
    return read_metadata(tmp_path / WEIGHTS_FILE)["epoch"]


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ((0.1, 0.3, 0.2, 0.25), 2),
        ((0.3, 0.3, 0.1, 0.3), 4),  # of equals the last one
        ((0.1, None, 0.05, None), 1),  # epochs that are not evaluated are not better
        ((None, None, None, None), 4),  # nothing is held back
    ],
)
def test_the_best_epoch_s_weights_are_kept(tmp_path, scores, best):
    run(tmp_path, *scores).loop(1, float("inf"), lambda line: None)
    assert best_epoch(tmp_path) == best


def test_it_learns_and_says_what_it_does(tmp_path):
    one = run(tmp_path, *[0.5] * 30)
    lines = []
    assert one.loop(1, float("inf"), lines.append) == tmp_path / WEIGHTS_FILE
    assert one.net(torch.ones(1, 1)).item() == pytest.approx(3, abs=0.2)
    assert lines == [f"epoch {k}" for k in range(1, 31)]
    [first, *_, last] = json.loads((tmp_path / "history.json").read_text())["epochs"]
    assert last["loss"] < first["loss"] and "numbers_per_second" in last


@pytest.mark.parametrize("evaluated", [1, 2, 3])
def test_epochs_between_evaluations(tmp_path, evaluated):
    one = run(tmp_path, *[0.5] * 4)
    one.evaluate_every = evaluated
    one.loop(1, float("inf"), lambda line: None)
    assert [e["epoch"] for e in one.history if "miou" in e] == {1: [1, 2, 3, 4], 2: [2, 4], 3: [3, 4]}[evaluated]


def test_a_resumed_run_is_where_it_was(tmp_path):
    whole, parts = run(tmp_path / "whole", *[0.5] * 4), run(tmp_path / "parts", *[0.5] * 4)
    for one in (whole, parts):
        one.output.mkdir()
        one.net.load_state_dict({"weight": torch.zeros(1, 1), "bias": torch.zeros(1)})
        one.begin_from_here()
    whole.loop(1, float("inf"), lambda line: None)
    parts.loop(1, 0.0, lambda line: None)  # no second epoch fits in
    assert parts.epoch == 1
    again = run(tmp_path / "parts", *[0.5] * 4)
    again.restore()
    assert again.kept == {"told": []}, "as it was saved, before its line was told"
    again.loop(1, float("inf"), lambda line: None)
    ours, theirs = (read_tensors(one.output / STATE_FILE) for one in (again, whole))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_after_another_beginning_the_average_begins_there(tmp_path):
    one = run(tmp_path, 0.5, average=0.999)
    one.net.load_state_dict({"weight": torch.full((1, 1), 7.0), "bias": torch.zeros(1)})
    one.begin_from_here()
    assert one.average.net.weight.item() == 7 and one.average.updates == 0


def test_a_state_has_the_layout_of_version_0_1(tmp_path):
    """Trainings that an older version began go on: names of tensors and of metadata never change."""
    one = run(tmp_path, 0.5)
    one.loop(1, float("inf"), lambda line: None)
    metadata, tensors = read_metadata(tmp_path / STATE_FILE), read_tensors(tmp_path / STATE_FILE)
    prefixes = ("net", "average", "optimizer.step", "optimizer.exp_avg", "optimizer.exp_avg_sq")
    assert tensors.keys() == {f"{prefix}.{name}" for prefix in prefixes for name in ("weight", "bias")}
    assert {"architecture", "config", "history", "updates", "classes", "told"} <= metadata.keys()
    assert metadata["architecture"] == "training of number" and metadata["updates"] == 3
    assert [c["name"] for c in metadata["classes"]["classes"]] == list(load_classes("camvid").names)
    assert metadata["config"]["epochs"] == 1 and metadata["history"] == one.history
