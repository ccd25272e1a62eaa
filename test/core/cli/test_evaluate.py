import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
import yaml

from vidseg_core.classes import load_classes
from vidseg_core.cli import main as cli
from vidseg_core.evaluation import ladder
from vidseg_core.models.accuracy import Accuracy
from vidseg_core.models.files import save_weights
from vidseg_core.networks.guided_refine import GuidedRefine
from vidseg_core.networks.swiftnet import SwiftNet

CLASSES = load_classes("camvid")
COUNT = 6
COMMON = ("--device", "cpu", "--num-threads", "1", "--runtime", "eager", "--input-scale", "1")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network that has learnt nothing but has the right form."""
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    torch.manual_seed(0)
    save(path, SwiftNet(len(CLASSES)).state_dict(), "swiftnet-r18")
    return str(path)


def save(path, tensors, architecture, classes=CLASSES):
    save_weights(path, tensors, {"architecture": architecture, "classes": classes.to_dict()})


@pytest.fixture(scope="module")
def refine_weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refine")
    torch.manual_seed(0)
    for edge in (True, False):
        network = GuidedRefine(len(CLASSES), edge=edge)
        tensors = {f"refine.{key}": value for key, value in network.state_dict().items()}
        save(folder / f"edge-{edge}.safetensors", tensors, "guided-refine")
    return folder


@pytest.fixture
def data(tmp_path):
    """A car that drives over a street, six frames."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 60, (96, 160, 3), dtype=np.uint8)
    for name in ("val", "valannot"):
        (root / name).mkdir(parents=True)
    for i in range(COUNT):
        labels = np.full((96, 128), 3, np.uint8)
        labels[:40] = 0
        labels[50:80, 10 + 6 * i : 50 + 6 * i] = 8
        labels[:, :4] = 11  # void
        image = texture[:, 30 - 6 * i : 158 - 6 * i] + labels[..., None] * 12
        cv2.imwrite(str(root / "val" / f"f{i:03d}.png"), image)
        cv2.imwrite(str(root / "valannot" / f"f{i:03d}.png"), labels)
    return root


def run(data, *options, command="evaluate", kind="camvid"):
    return cli.main([command, "--data", f"{kind}:{data}", *map(str, options)])


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_rows_are_all_combinations_and_score_the_same_frames(data, weights, tmp_path, capsys):
    out = tmp_path / "out"
    options = ("--interval", 0, 2, 1, "--flow", "dis", "none", "--fusion", "on", "off")
    assert run(data, "--weights", weights, "--out", out, *options, *COMMON) == 0
    report = results(out)
    rows = report["rows"]
    found = [(row["flow"], row["fusion"], row["interval"]) for row in rows]
    assert found == [(f, u, i) for f in ("dis", "none") for u in (True, False) for i in (0, 1, 2)]
    assert (report["labelled_frames"], report["scored_frames"]) == (COUNT, COUNT - 2)
    known = (COUNT - 2) * 96 * 124
    for row in rows:
        confusion = np.array(row["confusion"])
        assert confusion.sum() == known * (row["interval"] + 1)
        iou = np.diag(confusion) / np.maximum(confusion.sum(0) + confusion.sum(1) - np.diag(confusion), 1)
        present = [name for name, value in row["class_iou"].items() if value is not None]
        assert row["avg_miou"] == pytest.approx(100 * iou.sum() / len(present))
        assert row["pixel_accuracy"] == pytest.approx(100 * np.trace(confusion) / confusion.sum())
        assert row["min_miou"] == row["miou_by_distance"][-1] and len(row["miou_by_distance"]) == row["interval"] + 1
        assert 0 < row["temporal_consistency"] <= 100 and row["fps"] > 0
        assert row["scale"] == 1.0 and row["key_frames"] == "network" and row["refine"] is False
    plain = {(row["flow"], row["interval"]): row for row in rows if not row["fusion"]}
    assert plain["dis", 0]["confusion"] == plain["none", 0]["confusion"]
    assert plain["dis", 2]["miou_by_distance"][:2] == plain["dis", 1]["miou_by_distance"]
    assert report["engine"]["weights"]["segmenter"]["file"] == "untrained.safetensors"
    assert "key frame at t - k" in report["protocol"] and "phase" in report["protocol"]
    assert all(cv2.imread(str(out / f"miou_{name}.png")) is not None for name in ("distance", "fps"))
    assert any((out / "tensorboard").iterdir())
    text = (out / "results.md").read_text()
    assert text.count("| dis no-fusion |") == 4 and "| bicyclist |" in text
    printed = capsys.readouterr().out
    assert "4 of 6 labelled frames scored" in printed and "mIoU in percent by frames since the key frame" in printed


def test_looks_between_key_frames_are_traits_of_methods(data, weights, tmp_path, capsys):
    options = ("--interval", 2, "--update-weights", "none", weights, "--update-scale", 0.5, 1, "--no-fps")
    assert run(data, "--weights", weights, *options, "--out", tmp_path, *COMMON) == 0
    without, *with_it = results(tmp_path)["rows"]
    assert (without["update"], without["update_scale"]) == (None, None)
    assert [(row["update"], row["update_scale"]) for row in with_it] == [(weights, 0.5), (weights, 1)]
    assert {row["miou_by_distance"][0] for row in (without, *with_it)} == {without["miou_by_distance"][0]}
    assert without["confusion"] != with_it[0]["confusion"] != with_it[1]["confusion"]
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("no-update ", "untrained update-scale-0.5 ", "untrained update-scale-1 "))


STREET = "street:seed=3,size=320x240,frames=4"


def test_what_the_governor_has_to_know_with_and_without_an_update_network(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ladder, "RUNS", 1)
    monkeypatch.setattr(ladder, "KEY_FRAMES", 1)
    monkeypatch.setattr(ladder, "SHARES", (1.0,))
    options = ("--data", STREET, "--weights", weights, *COMMON[:-1], "0.25", "--ladder", "--json")
    without, updated = tmp_path / "without.json", tmp_path / "updated.json"
    assert cli.main(["evaluate", *options, str(without)]) == 0
    assert "update" not in yaml.safe_load(capsys.readouterr().out)["accuracy"]
    assert cli.main(["evaluate", *options, str(updated), "--update-weights", weights]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)["accuracy"]
    first, second = (json.loads(path.read_text()) for path in (without, updated))
    assert Accuracy.from_dict(printed) == Accuracy.from_dict(second["accuracy"])
    assert second["accuracy"]["update"]["weights"] == weights
    assert list(printed["update"]["lost_by_age_s"]) == list(printed["lost_by_age_s"]) == [0, 0.0333, 0.0667]
    assert {name: second["accuracy"][name] for name in first["accuracy"]} == first["accuracy"]
    assert (second["drives"], second["rate_hz"]) == ([STREET], 30.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--input-scale", "0.5", "1"), "--ladder: expected one value each of --input-scale, --flow and"),
        (("--update-weights", "none", "camvid-update-lite0"), "--ladder: expected one value each"),
        (("--update-weights", "camvid-update-lite0", "--update-scale", "1"), "--update-scale: expected none with"),
        (("--update-weights", "nosuch"), "nosuch: neither a weight file nor the name of one"),
    ],
)
def test_one_ladder_at_a_time(options, message, capsys):
    assert cli.main(["evaluate", "--data", STREET, "--ladder", *options]) == 2
    assert message in capsys.readouterr().err


def test_interval_zero_alone_scores_every_frame(data, weights, tmp_path):
    assert run(data, "--weights", weights, "--interval", 0, "--no-fps", "--out", tmp_path, *COMMON) == 0
    report = results(tmp_path)
    assert report["scored_frames"] == COUNT and report["rows"][0]["fps"] is None


def test_a_delay_of_key_frames_is_in_the_report(data, weights, tmp_path):
    options = ("--interval", 1, "--key-delay", 1, "--no-fps", "--out", tmp_path)
    assert run(data, "--weights", weights, *options, *COMMON) == 0
    report = results(tmp_path)
    (row,) = report["rows"]
    assert report["scored_frames"] == COUNT - 3 and row["key_delay"] == 1
    assert row["min_miou"] == row["miou_by_distance"][0]  # the frame before the labels come
    assert "phase" in report["protocol"] and "key_delay" in report["definitions"]


def test_refinement_and_edge_map_on_and_off(data, weights, refine_weights, tmp_path):
    both = [refine_weights / f"edge-{edge}.safetensors" for edge in (True, False)]
    options = ("--weights", weights, "--refine-weights", *both, "--no-fps", "--interval", 1, "--fusion", "off")
    assert run(data, *options, "--refine", "on", "off", "--out", tmp_path / "a", *COMMON) == 0
    rows = results(tmp_path / "a")["rows"]
    assert [(row["refine"], row["edge"]) for row in rows] == [(True, True), (True, False), (False, None)]
    assert run(data, *options[:3], both[0], *options[5:], "--edge", "on", "off", "--out", tmp_path / "b", *COMMON) == 0
    with_edge, without = results(tmp_path / "b")["rows"]
    assert (with_edge["edge"], without["edge"]) == (True, False)
    assert with_edge["confusion"] == rows[0]["confusion"] != without["confusion"]


def test_truth_on_key_frames(data, tmp_path, capsys):
    """Copied truth is right where nothing moved."""
    report = tmp_path / "report.json"
    options = ("--key-frames", "truth", "--flow", "none", "--interval", 2, "--out", tmp_path / "out", "--json", report)
    assert run(data, *options) == 0
    (row,) = json.loads(report.read_text())["rows"]
    assert row["miou_by_distance"][0] == 100.0 > row["miou_by_distance"][1] > row["miou_by_distance"][2]
    assert row["fps"] is None and row["key_frames"] == "truth"
    assert "none          100.0" in capsys.readouterr().out


def test_predictions_and_strips_of_the_running_schedule(data, tmp_path):
    options = ("--key-frames", "truth", "--flow", "none", "--save-res", "--save-seq-res", "--res-folder-name", "mine")
    assert run(data, *options, "--interval", 2, "--out", tmp_path) == 0
    folder = tmp_path / "mine"
    read = lambda path: cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # noqa: E731
    for i in range(COUNT):
        key = read(data / "valannot" / f"f{i - i % 3:03d}.png")
        predicted = read(folder / "labels" / f"f{i:03d}.png")
        known = key != 11
        assert (predicted == key)[known].mean() > 0.97
        color = read(folder / "color" / f"f{i:03d}.png")[..., ::-1]
        assert np.array_equal(color, CLASSES.lut[predicted])
    assert sorted(path.name for path in (folder / "seq").iterdir()) == ["f000.png", "f003.png"]
    assert read(folder / "seq" / "f000.png").shape == (96, 3 * 128 + 2 * 4, 3)


def test_without_out_logs_lie_where_they_are_looked_for(data, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--weights", weights, "--no-fps", "--save-res", "--interval", 0, 1, "--fusion", "off")
    assert run(data, *options, "--checkname", "first", *COMMON) == 0
    assert (tmp_path / "logs/run/camvid/first/results.json").is_file()
    assert any((tmp_path / "logs/run/camvid/first/tensorboard").iterdir())
    predictions = tmp_path / "logs/pred_img_res/camvid/first/pred"
    assert sorted(path.name for path in predictions.iterdir()) == ["dis-i0", "dis-i1"]
    assert len(list((predictions / "dis-i1" / "labels").iterdir())) == COUNT


def test_street(tmp_path, capsys):
    options = ("--key-frames", "truth", "--interval", 1, "--out", tmp_path)
    assert run("seed=5,size=320x240,frames=3", *options, kind="street") == 0
    assert results(tmp_path)["rows"][0]["miou_by_distance"][1] > 60


def test_infer_needs_no_labels(data, weights, tmp_path, capsys):
    options = ("--weights", weights, "--interval", 2, "--save-res", "--save-seq-res", "--out", tmp_path / "out")
    assert run(data / "val", *options, *COMMON, command="infer", kind="folder") == 0
    report = results(tmp_path / "out")
    assert report["frames"] == COUNT and "avg_miou" not in report["rows"][0]
    assert report["rows"][0]["fps"] > 0 and 0 < report["rows"][0]["temporal_consistency"] <= 100
    assert len(list((tmp_path / "out" / "pred" / "labels").iterdir())) == COUNT
    assert len(list((tmp_path / "out" / "pred" / "seq").iterdir())) == 2
    assert "6 frames in 1 sequences" in capsys.readouterr().out


def test_infer_on_cityscapes_snippets(shared_data, tmp_path, monkeypatch):
    """Frames without `gtFine`; the network is small here, the layout is what counts."""
    root = tmp_path / "cityscapes"
    root.mkdir()
    (root / "leftImg8bit_sequence").symlink_to(shared_data / "cityscapes_sequence" / "leftImg8bit_sequence")
    options = ("--interval", 2, "--size", "256x128", "--save-seq-res", "--out", tmp_path / "out", *COMMON)
    assert run(root, *options, command="infer", kind="cityscapes") == 0
    names = sorted(path.name for path in (tmp_path / "out" / "pred" / "seq").iterdir())
    assert names == ["lindau_000009_000017_leftImg8bit.png", "munster_000036_000017_leftImg8bit.png"]


def fail(capsys, *arguments, **options):
    assert run(*arguments, **options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = [line for line in captured.err.splitlines() if line.startswith("vidseg: error: ")]
    return line


def test_mistakes_are_one_clear_error(data, weights, refine_weights, tmp_path, capsys):
    common = ("--weights", weights, "--out", tmp_path / "out", "--no-fps", *COMMON)
    assert "nowhere/val: expected a folder" in fail(capsys, tmp_path / "nowhere", *common)
    assert "expected a split of" in fail(capsys, f"{data}:later", *common)
    (data / "test").mkdir()
    cv2.imwrite(str(data / "test" / "f0.png"), np.zeros((96, 128, 3), np.uint8))
    assert "testannot: expected a folder" in fail(capsys, f"{data}:test", *common)
    message = fail(capsys, data, "--interval", 9, *common)
    assert "expected labelled frames with 9 frames before them, the most that one has is 5" in message
    assert "interval: expected 0 or more, got -1" in fail(capsys, data, "--interval", -1, *common)
    message = fail(capsys, data, "--update-weights", "none", "--update-scale", 0.5, *common)
    assert "--update-scale: it is the scale of --update-weights, none are given" in message
    message = fail(capsys, data, "--interval", 2, 1, "--key-delay", 2, *common)
    assert "--key-delay: expected 0 to 1 (--interval), got 2" in message
    edgeless = ("--refine-weights", refine_weights / "edge-False.safetensors", "--edge", "on")
    assert "expected a network made with edge map" in fail(capsys, data, *common, *edgeless)
    wrong = load_classes("cityscapes")
    other = tmp_path / "other.safetensors"
    save(other, SwiftNet(len(wrong)).state_dict(), "swiftnet-r18", wrong)
    message = fail(capsys, data, "--weights", other, *common[2:])
    assert "expected the network's classes (road, " in message and "the data set has sky, " in message
    ours = ("--refine-weights", refine_weights / "edge-True.safetensors")
    message = fail(capsys, data, "--weights", other, *ours, *common[2:])
    assert "edge-True.safetensors" in message and "classes" in message
    cv2.imwrite(str(data / "valannot" / "f003.png"), np.full((96, 128), 99, np.uint8))
    assert "f003.png: label ids [99] are not in class table" in fail(capsys, data, *common)
    for name in ("val", "valannot"):
        (data / name / "f003.png").unlink()
    message = fail(capsys, data, "--interval", 2, *common)
    assert "f004.png: expected 2 consecutive frames before it, there are 0" in message
    assert "missing between number 2 and number 4" in message


def torchrun(data, weights, out, processes):
    arguments = ["--nproc-per-node", str(processes), "-m", "vidseg_core.cli", "evaluate", "--data", f"camvid:{data}"]
    arguments += ["--weights", weights, "--out", str(out), "--interval", "0", "2", "--no-fps"]
    arguments += ["--fusion", "on", "off", *COMMON]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def test_two_processes_count_what_one_counts(data, weights, tmp_path):
    done = torchrun(data, weights, tmp_path / "two", 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("labelled frames scored") == 1, "one writer"
    options = ("--interval", 0, 2, "--no-fps", "--fusion", "on", "off", "--out", tmp_path / "one")
    assert run(data, "--weights", weights, *options, *COMMON) == 0
    two, one = results(tmp_path / "two"), results(tmp_path / "one")
    assert (two["processes"], one["processes"]) == (2, 1)
    assert two["rows"] == one["rows"]
