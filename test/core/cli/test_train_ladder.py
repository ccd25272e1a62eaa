"""The footage on which a training measures what the governor has to know of its network."""

import pytest
import torch

from vidseg_core.classes import load_classes
from vidseg_core.cli.main import build_parser
from vidseg_core.cli.train_ladder import Drive, drive_for, store_ladder
from vidseg_core.errors import SourceError
from vidseg_core.evaluation import ladder
from vidseg_core.models.files import read_file, save_weights
from vidseg_core.models.open import open_model
from vidseg_core.networks.swiftnet import SwiftNet


def drive_of(*given):
    arguments = ["train", "segmenter", "--out", "o", *map(str, given)]
    return drive_for(build_parser(arguments).parse_args(arguments))


def test_a_street_that_was_not_trained_on():
    first = "street:scenes=2,frames=20,size=480x270"
    assert drive_of("--data", "camvid:a@3", "--data", f"{first}@2") == Drive(
        "street:seed=1999,size=480x270,frames=240", True
    )
    found = drive_of("--data", first, "--data", "street:seed=1990,scenes=10,frames=10")
    assert found == Drive("street:seed=1989,size=480x270,frames=240", True)
    assert "seed=999," in drive_of("--data", "street:scenes=1000,frames=1000").spec  # it was trained on every other


def test_pictures_do_not_tell():
    why = "not measured, as held-back pictures do not tell their frame rate"
    assert drive_of("--data", "camvid:a", "--data", "folder:b@2") == why


def test_the_first_footage_of_a_teacher_that_is_video(tmp_path):
    (tmp_path / "pictures").mkdir()
    video = tmp_path / "drive.mp4"
    video.touch()
    teacher = ("--teacher", "big.onnx", "--data", tmp_path / "pictures")
    assert drive_of(*teacher, video) == Drive(str(video), False)
    assert drive_of(*teacher, "street:frames=5") == Drive("street:frames=5", False)
    assert drive_of(*teacher, "camvid:a") == "not measured, as pictures do not tell their frame rate"


def test_what_is_asked_for():
    assert drive_of("--data", "camvid:a", "--ladder", "street:frames=9") == Drive("street:frames=9", False)
    assert drive_of("--data", "street:", "--ladder", "none") == "not measured, as --ladder is none"
    with pytest.raises(SourceError, match=r"nowhere.mp4: expected a folder of images, a video file or a recording"):
        drive_of("--data", "street:", "--ladder", "nowhere.mp4")


def test_what_was_measured_stands_in_the_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(ladder, "RUNS", 1)
    monkeypatch.setattr(ladder, "KEY_FRAMES", 2)
    monkeypatch.setattr(ladder, "SHARES", (0.5, 1.0))
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    known = {"architecture": "swiftnet-r18", "classes": load_classes("camvid").to_dict(), "input_scale": 0.5}
    network = SwiftNet(11, "r18", 12)
    save_weights(path, network.state_dict(), known | {"training": {"epochs": 3}})
    drive = Drive("street:seed=3,size=320x240,frames=3", labelled=True)
    line = store_ladder(path, drive, "cpu", 1)
    stored = read_file(path)
    how = {"drive": drive.spec, "truth": "labels"}
    assert stored.metadata["ladder"] == how | {"frames": 3, "size": [240, 320], "rate_hz": 30.0}
    assert stored.metadata["training"] == {"epochs": 3}
    assert torch.equal(stored.tensors["logits.conv.weight"], network.logits.conv.weight)
    found = open_model(path).card.accuracy
    assert found.is_measured and [rows for rows, _ in found.rows] == [60, 120]
    assert line.startswith("expected accuracy for the node's governor, on street:") and "at 120 rows" in line
