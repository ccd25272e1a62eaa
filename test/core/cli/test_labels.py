"""Label files of every command, in forms that others write, with a network of Cityscapes' classes."""

import json

import cv2
import numpy as np
import pytest
import torch

from vidseg_core.classes import load_classes
from vidseg_core.cli import main as cli
from vidseg_core.models.files import save_weights
from vidseg_core.networks.swiftnet import SwiftNet

CLASSES = load_classes("cityscapes")
LABEL_IDS = np.array([ids[0] for ids in CLASSES.file_ids], np.uint8)
SIZE = (64, 96)
STEP_NS = 100_000_000
TABLES = {"labelIds": "cityscapes", "trainIds": "cityscapes-trainids", "colours": "cityscapes"}
ROAD, SKY, CAR = 0, 10, 13
FAST = ("--device", "cpu", "--runtime", "eager", "--flow", "none", "--interval", "1")


def truth(i):
    """Class ids: sky, road, a car that moves, void at the left."""
    labels = np.full(SIZE, ROAD, np.uint8)
    labels[:30] = SKY
    labels[34:50, 10 + 4 * i : 40 + 4 * i] = CAR
    labels[:, :3] = 255
    return labels


def in_form(labels, form):
    """How label files have it: labelIds, trainIds or colours (BGR, as OpenCV writes)."""
    if form == "labelIds":
        return np.append(LABEL_IDS, np.zeros(256 - len(LABEL_IDS), np.uint8))[labels]
    return labels if form == "trainIds" else CLASSES.lut[labels][..., ::-1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "cityscapes.safetensors"
    record = {"architecture": "swiftnet-r18", "classes": CLASSES.to_dict()}
    save_weights(path, SwiftNet(len(CLASSES)).state_dict(), record)
    return str(path)


@pytest.fixture(params=["labelIds", "trainIds", "colours"])
def form(request):
    return request.param


@pytest.fixture
def drive(tmp_path, form):
    """Four images in `val` with labels of that form in `valannot`, named by their stamps in nanoseconds."""
    for name in ("val", "valannot"):
        (tmp_path / name).mkdir()
    for i in range(4):
        stamp = 10**18 + i * STEP_NS
        cv2.imwrite(str(tmp_path / "val" / f"{stamp}.png"), np.repeat(truth(i)[..., None] % 30 * 8, 3, axis=2))
        cv2.imwrite(str(tmp_path / "valannot" / f"{stamp}.png"), in_form(truth(i), form))
    return tmp_path


def vidseg(*arguments):
    return cli.main([str(one) for one in arguments])


def pixels():
    """How many pixels of each class the truth of all four frames has."""
    return np.sum([np.bincount(truth(i).ravel(), minlength=256) for i in range(4)], axis=0)


def test_run_reads_them(drive, form, weights, tmp_path, capsys):
    table = (
        () if form == "colours" else ("--label-classes", {"labelIds": "cityscapes"}.get(form, "cityscapes-trainids"))
    )
    options = ("--labels", drive / "valannot", "--weights", weights, "--no-png", "--no-video", *FAST)
    assert vidseg("run", drive / "val", "--out", tmp_path / "out", *options, *table) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["labelled_frames"] == 4
    assert set(CLASSES.names) - set(summary["absent_classes"]) == {"road", "sky", "car"}
    assert "not in their truth: sidewalk, building, wall" in capsys.readouterr().out


def test_replay_reads_them(drive, form, weights, tmp_path, capsys):
    bag = tmp_path / "bag"
    assert vidseg("bag", "make", drive / "val", "--rate", 10, "--out", bag) == 0
    stamped = tmp_path / "stamped"
    stamped.mkdir()
    for i, path in enumerate(sorted((drive / "valannot").iterdir())):  # a recording's first stamp is one second
        (stamped / f"{10**9 + i * STEP_NS}.png").write_bytes(path.read_bytes())
    table = (
        () if form == "colours" else ("--label-classes", {"labelIds": "cityscapes"}.get(form, "cityscapes-trainids"))
    )
    options = ("--labels", stamped, "--weights", weights, "--no-live", *FAST, "--json", tmp_path / "r.json")
    assert vidseg("replay", bag, *options, *table) == 0
    (recording,) = json.loads((tmp_path / "r.json").read_text())["recordings"]
    assert recording["offline"]["labelled_frames"] == 4 and recording["reference"] == "ground truth"
    assert set(CLASSES.names) - set(recording["offline"]["absent_classes"]) == {"road", "sky", "car"}
    assert "not in the truth: sidewalk, building" in capsys.readouterr().out


def test_evaluate_reads_them_and_names_absent_classes(drive, form, weights, tmp_path, capsys):
    options = ("--classes", TABLES[form], "--weights", weights, "--no-fps", "--fusion", "off", *FAST)
    options += ("--out", tmp_path / "out")
    assert vidseg("evaluate", "--data", f"folder:{drive}", *options) == 0
    result = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(CLASSES.names) - set(result["absent_classes"]) == {"road", "sky", "car"}
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vidseg: the scored frames")]
    assert line.startswith("vidseg: the scored frames have no pixel of sidewalk, building, ") and "car" not in line


def test_bag_make_reads_them(drive, form, tmp_path):
    from vidseg_core.data.open import open_source

    options = ("--labels", drive / "valannot", "--classes", TABLES[form], "--out", tmp_path / "bag")
    assert vidseg("bag", "make", drive / "val", "--rate", 10, *options) == 0
    frames = list(
        open_source(tmp_path / "bag", topic="/camera/image_raw", labels="/camera/labels_truth", classes=CLASSES)
    )
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.labels, truth(i))


def test_training_reads_them_and_names_absent_classes(drive, form, tmp_path, capsys):
    options = ("--classes", TABLES[form], "--epochs", 1, "--batch", 2, "--crop", 64, 96, "--hold-back", 0, "--float32")
    assert (
        vidseg(
            "train", "segmenter", "--data", f"folder:{drive}:val", *options, "--device", "cpu", "--out", tmp_path / "o"
        )
        == 0
    )
    line = capsys.readouterr().out.splitlines()[0]
    assert "not one training image has a labelled pixel of 16 of 19 classes" in line and "sidewalk, building" in line


def test_data_sets_are_sources(drive, form, weights, tmp_path):
    table = () if form == "colours" else ("--label-classes", TABLES[form])
    options = ("--weights", weights, "--no-png", "--no-video", *FAST)
    assert vidseg("run", f"folder:{drive}", "--out", tmp_path / "out", *options, *table) == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["labelled_frames"] == 4
    assert vidseg("bag", "make", f"folder:{drive}", "--classes", TABLES[form], "--out", tmp_path / "bag") == 0
    from vidseg_core.data.open import open_source

    for i, frame in enumerate(open_source(tmp_path / "bag", labels="/camera/labels_truth", classes=CLASSES)):
        np.testing.assert_array_equal(frame.labels, truth(i))


@pytest.mark.parametrize("form", ["trainIds"], indirect=True)
def test_train_ids_without_the_option_are_refused_and_it_is_named(drive, weights, tmp_path, capsys):
    options = ("--labels", drive / "valannot", "--weights", weights, *FAST)
    assert vidseg("run", drive / "val", "--out", tmp_path / "out", *options) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "look like class ids (trainIds)" in error and "table cityscapes-trainids (--label-classes" in error


@pytest.mark.parametrize("form", ["trainIds"], indirect=True)
def test_what_the_option_does_not_fit(drive, weights, tmp_path, capsys):
    common = ("run", drive / "val", "--out", tmp_path / "out", "--weights", weights, *FAST, "--label-classes")
    assert vidseg(*common, "cityscapes-trainids") == 2
    assert "--label-classes: expected --labels to name a folder of label files, got None" in capsys.readouterr().err
    assert vidseg(*common, "camvid", "--labels", drive / "valannot") == 2
    error = capsys.readouterr().err
    assert "--label-classes: expected the network's classes (road, " in error and "'camvid' has sky, building" in error
    assert vidseg(*common, "nope", "--labels", drive / "valannot") == 2
    assert "no class table 'nope'" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["trainIds"], indirect=True)
def test_what_run_writes_can_be_its_labels(drive, weights, tmp_path):
    options = ("--weights", weights, "--no-video", *FAST)
    assert vidseg("run", drive / "val", "--out", tmp_path / "first", *options) == 0
    again = ("--labels", tmp_path / "first" / "labels", "--label-classes", "cityscapes-trainids")
    assert vidseg("run", drive / "val", "--out", tmp_path / "second", *options, *again) == 0
    assert json.loads((tmp_path / "second" / "summary.json").read_text())["miou"] == 1.0


def test_the_shipped_network_reads_camvid_s_original_colours(tmp_path):
    for name in ("frames", "labels"):
        (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / "frames" / "0001TP_006690.png"), np.full((*SIZE, 3), 90, np.uint8))
    van, sidewalk = (192, 128, 64), (192, 0, 0)  # SUVPickupTruck and Sidewalk, BGR
    colours = np.full((*SIZE, 3), van, np.uint8)
    colours[40:] = sidewalk
    cv2.imwrite(str(tmp_path / "labels" / "0001TP_006690_L.png"), colours)
    options = ("--labels", tmp_path / "labels", "--no-png", "--no-video", "--input-scale", 0.5, *FAST)
    assert vidseg("run", tmp_path / "frames", "--out", tmp_path / "out", *options) == 0
    absent = json.loads((tmp_path / "out" / "summary.json").read_text())["absent_classes"]
    assert set(load_classes("camvid").names) - set(absent) == {"car", "sidewalk"}
