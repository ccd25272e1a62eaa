"""A student learns from what a teacher says about unlabelled pictures."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vidseg_core.classes import load_classes
from vidseg_core.cli import main as cli
from vidseg_core.cli import train as command
from vidseg_core.data.open import open_source
from vidseg_core.errors import ConfigError, DatasetError
from vidseg_core.models.files import read_metadata, save_weights
from vidseg_core.models.open import open_model
from vidseg_core.networks.swiftnet import SwiftNet
from vidseg_core.training.augment import Augmentation
from vidseg_core.training.distillation import SoftLoss, cut_soft, train_student
from vidseg_core.training.pseudo_labels import Teacher, label_footage
from vidseg_core.training.segmenter import SegmenterTraining

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = SegmenterTraining(
    width=12, epochs=2, batch=4, warmup=0.5, rate=3e-3, hold_back=0.25, lovasz=0.5,
    augmentation=Augmentation(crop=(64, 64), scale=(0.8, 1.3), blur=0.0, color=0.2),
)  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An untrained network: what it says is consistent, which is all that a student needs."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    torch.manual_seed(0)
    metadata = {"architecture": "swiftnet-r18", "classes": load_classes("camvid").to_dict(), "input_scale": 0.5}
    network = SwiftNet(11, "r18", 12)
    with torch.no_grad():
        network.logits.conv.weight *= 8  # sure of what it says
    save_weights(path, network.state_dict(), metadata)
    return path


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """Twelve pictures of 96 x 64: bright above, dark below."""
    folder = tmp_path_factory.mktemp("footage")
    rng = np.random.default_rng(0)
    for k in range(12):
        picture = rng.integers(0, 30, (64, 96, 3), dtype=np.uint8)
        picture[: rng.integers(20, 40)] += 200
        cv2.imwrite(str(folder / f"{k:02d}.png"), picture)
    return folder


@pytest.fixture(scope="module")
def taught(weights, footage, tmp_path_factory):
    teacher = Teacher(weights)
    cache = tmp_path_factory.mktemp("cache")
    source = open_source(footage)
    return teacher, label_footage(teacher, "footage", 3, lambda: source, range(0, 12, 1), cache, 0), cache


def test_what_a_teacher_says_is_kept(taught, footage):
    teacher, kept, cache = taught
    assert len(kept) == 12 and kept.samples[0].name == "03_000000" and kept.classes.names == teacher.classes.names
    assert teacher.record["input_scale"] == 0.5 and len(teacher.record["sha256"]) == 64
    image = cv2.imread(str(footage / "04.png"))[..., ::-1]
    ids, soft = teacher(np.ascontiguousarray(image))
    assert np.array_equal(kept.read_labels(4), ids) and ids.shape == (64, 96)
    assert np.array_equal(kept.read_soft(4), soft) and soft.shape == (11, 16, 24)
    assert (np.abs(soft.astype(int).sum(0) - 255) <= 6).all()  # probabilities, rounded
    assert np.abs(kept.read_image(4).astype(int) - image).mean() < 10  # a JPEG of it

    def unread():
        raise AssertionError("everything is labelled already")

    again = label_footage(teacher, "footage", 3, unread, range(12), cache, 0)
    assert again.samples == kept.samples
    (kept.folder / "soft" / "03_000007.npz").unlink()  # as if it had been interrupted
    calls = []
    source = open_source(footage)
    counting = Counting(teacher, calls)
    label_footage(counting, "footage", 3, lambda: source, range(12), cache, 0)
    assert len(calls) == 1 and np.isfinite(kept.read_soft(7)).all()
    with pytest.raises(DatasetError, match="expected 21 frames, found fewer"):
        label_footage(teacher, "footage", 3, lambda: source, [20], cache, 0)


class Counting:
    def __init__(self, teacher, calls):
        self.record, self.classes, self._teacher, self._calls = teacher.record, teacher.classes, teacher, calls

    def __call__(self, image):
        self._calls.append(1)
        return self._teacher(image)


def test_views_of_probabilities_follow_those_of_the_picture():
    """A ramp across the picture stays the ramp of the view's own positions."""
    ramp = np.linspace(0, 240, 25)
    soft = np.stack([np.tile(ramp, (17, 1))] * 5).round().astype(np.uint8)  # of a picture of 65 x 97
    view = np.array([[0.5, 0, 20.0], [0, 0.5, 10.0]])  # magnified twice, from (20, 10) on
    cut = cut_soft(soft, view, (65, 97), (33, 49), 2)
    assert cut.shape == (5, 17, 25) and cut.dtype == np.uint8
    columns = 20 + 0.5 * np.linspace(0, 48, 25)
    expected = np.interp(columns, np.linspace(0, 96, 25), soft[0, 0])
    assert np.abs(cut - expected).max() <= 1
    beside = cut_soft(soft, np.array([[1, 0, 200.0], [0, 1, 0.0]]), (65, 97), (33, 49), 2)
    assert not beside.any()


def test_the_loss_is_least_where_the_student_says_the_same():
    torch.manual_seed(0)
    truth = torch.randn(2, 5, 8, 8)
    soft, loss = truth.softmax(1), SoftLoss(torch.ones(5))
    same, other = loss(truth, soft), loss(torch.randn(2, 5, 8, 8), soft)
    entropy = -(soft * soft.log()).sum(1)
    confidence = soft.amax(1)
    torch.testing.assert_close(same, (confidence * entropy).sum() / confidence.sum())
    assert other > same + 0.1
    weights = torch.tensor([3.0, 1, 1, 1, 1])
    counting = confidence * weights[soft.argmax(1)]
    torch.testing.assert_close(SoftLoss(weights)(truth, soft), (counting * entropy).sum() / counting.sum())
    # Pixels beside the picture count nowhere.
    beside = torch.cat((soft, torch.zeros(2, 5, 8, 8)), -1)
    wide = torch.cat((truth, torch.randn(2, 5, 8, 8)), -1)
    padded = SoftLoss(torch.ones(5))(F.interpolate(wide, (8, 16)), beside)
    torch.testing.assert_close(padded, same)


@pytest.mark.long
def test_a_student_agrees_more_and_more(taught, tmp_path):
    teacher, kept, _ = taught
    lines = []
    config = replace(QUICK, epochs=3, evaluate_every=3)
    path = train_student(teacher.record, [kept], config, tmp_path, report=lines.append)
    course = json.loads((tmp_path / "history.json").read_text())["epochs"]
    assert course[-1]["loss"] < 0.95 * course[0]["loss"]
    assert "agreement with the teacher: " in lines[-1] and "% of pixels" in lines[-1]
    metadata = read_metadata(path)
    record = metadata["training"]["teacher"]
    assert record["sha256"] == teacher.record["sha256"] and 0 < record["agreement"] <= 1
    best = max((entry for entry in course if "miou" in entry), key=lambda entry: entry["miou"])
    assert record["agreement"] == pytest.approx(best["agreement"])
    assert metadata["training"]["sources"][0]["data"][0]["held_back"] == 3
    model = open_model(path)
    assert model.card.classes.names == teacher.classes.names and model.card.activation_ranges
    # A resumed training has the same teacher.
    other = teacher.record | {"file": "other.onnx", "sha256": "a" * 64}
    longer = replace(config, epochs=4)
    with pytest.raises(ConfigError, match=r"expected a training by other.onnx \(aaaaaaaa\), it is one by teacher"):
        train_student(other, [kept], longer, tmp_path, resume=True, report=list)
    train_student(teacher.record, [kept], longer, tmp_path, resume=True, report=list)
    assert len(json.loads((tmp_path / "history.json").read_text())["epochs"]) == 4
    with pytest.raises(ConfigError, match="leave out --ohem"):
        train_student(teacher.record, [kept], replace(config, hard_pixels=True), tmp_path / "hard", report=list)


def test_at_the_command_line(weights, footage, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "_stop_on_termination", lambda: None)
    given = ["train", "segmenter", "--teacher", str(weights), "--data", str(footage), "street:size=320x240,frames=5",
             "--pictures", "5", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out"), "--epochs", "1",
             "--width", "12", "--batch", "4", "--crop", "64", "64", "--hold-back", "0.2",
             "--num-threads", "1", "--ladder", "none"]  # fmt: skip
    assert cli.main(given) == 0
    said = capsys.readouterr().out
    assert "agreement with the teacher" in said and "weights: " in said
    assert "expected accuracy for the node's governor: not measured, as --ladder is none" in said
    sources = read_metadata(tmp_path / "out" / "weights.safetensors")["training"]["sources"]
    assert [one["train"] + one["held_back"] for one in sources[0]["data"]] == [5, 5]
    assert len(list((tmp_path / "cache").glob("taught-*/soft/*.npz"))) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "camvid:a", "b"], "further sources: they belong to --teacher"),
        (["--data", "camvid:a", "--pictures", "9"], "--pictures: they belong to --teacher"),
        (["--teacher", "camvid-swiftnet-r18", "--data", "a", "--pictures", "1"], "--pictures: expected 2 or more"),
        (["--teacher", "camvid-swiftnet-r18", "--data", "nowhere"], "nowhere: expected a folder of images"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path, capsys):
    assert cli.main(["train", "segmenter", *arguments, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
