import json
import os
import re
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from vidseg_core.classes import load_classes
from vidseg_core.cli import main as cli
from vidseg_core.data.open import open_source
from vidseg_core.models.files import save_weights
from vidseg_core.networks.swiftnet import SwiftNet

CLASSES = load_classes("camvid")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network that has learnt nothing but has the right form."""
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    torch.manual_seed(0)
    metadata = {"architecture": "swiftnet-r18", "classes": CLASSES.to_dict()}
    save_weights(path, SwiftNet(len(CLASSES)).state_dict(), metadata)
    return str(path)


@pytest.fixture
def drive(tmp_path):
    folder = tmp_path / "drive"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        cv2.imwrite(str(folder / f"f{i}.png"), rng.integers(0, 256, (96, 128, 3), dtype=np.uint8))
    return folder


def written(folder):
    return json.loads((folder / "summary.json").read_text())


def test_a_folder(drive, tmp_path, weights, capsys):
    out = tmp_path / "out"
    status = cli.main(["run", str(drive), "--out", str(out), "--weights", weights, "--interval", "1", "--rate", "12.5"])
    assert status == 0
    summary = written(out)
    assert (summary["frames"], summary["key_frames"]) == (4, 2)
    assert summary["engine"]["config"]["weights"] == weights
    assert len(summary["engine"]["weights"]["segmenter"]["sha256"]) == 64
    assert open_source(out / "overlay.mp4").rate_hz == 12.5
    for i in range(4):
        labels = cv2.imread(str(out / "labels" / f"f{i}.png"), cv2.IMREAD_UNCHANGED)
        assert labels.shape == (96, 128) and labels.max() < len(CLASSES)
    line = capsys.readouterr().out
    assert line.startswith(f"{out}: 4 frames, 2 of them key frames; ") and line.count("\n") == 1


def test_the_real_clip_against_its_truth(shared_data, tmp_path, weights, capsys):
    clip = shared_data / "camvid"
    arguments = [
        "--labels",
        str(clip / "valannot"),
        "--rate",
        "15",
        "--frames",
        "6",
        "--input-scale",
        "0.25",
        "--no-png",
    ]
    assert cli.main(["run", str(clip / "val"), "--out", str(tmp_path / "out"), "--weights", weights, *arguments]) == 0
    summary = written(tmp_path / "out")
    assert (summary["frames"], summary["labelled_frames"]) == (6, 6)
    assert 0 <= summary["miou"] < 0.3
    assert set(summary["iou"]) == set(CLASSES.names)
    assert "mIoU" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["overlay.mp4", "summary.json"]


def fail(capsys, *arguments):
    assert cli.main(["run", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()[-1]


def test_errors_are_one_line(drive, tmp_path, weights, capsys):
    common = ["--out", tmp_path / "out", "--weights", weights]
    missing = tmp_path / "nowhere"
    expected = "expected a folder of images, a video file or a recording, there is nothing"
    assert fail(capsys, missing, *common) == f"vidseg: error: {missing}: {expected}"
    assert "opacity: expected 0 to 1, got 1.5" in fail(capsys, drive, *common, "--opacity", "1.5")
    assert "frames: expected 1 or more, got 0" in fail(capsys, drive, *common, "--frames", "0")
    assert "interval: expected 0 or more, got -1" in fail(capsys, drive, *common, "--interval", "-1")
    assert "expected a frame rate above 0 Hz" in fail(capsys, drive, *common, "--rate", "0")
    (tmp_path / "file").touch()
    assert "file/out: expected a folder that can be written" in fail(capsys, drive, "--out", tmp_path / "file" / "out")
    (tmp_path / "broken.mp4").write_text("nothing")
    assert "broken.mp4: no recording, and not a video file that can be opened" in fail(
        capsys, tmp_path / "broken.mp4", *common
    )


def test_an_unreadable_image_ends_or_is_skipped(drive, tmp_path, weights, capsys):
    (drive / "f2.png").write_text("not an image")
    out = tmp_path / "out"
    common = ["--out", out, "--weights", weights, "--input-scale", "0.5"]
    assert "f2.png: not an image" in fail(capsys, drive, *common)
    assert written(out)["frames"] == 2
    assert "out: expected a folder without results" in fail(capsys, drive, *common)
    assert cli.main(["run", str(drive), *map(str, common), "--overwrite", "--skip-bad"]) == 0
    assert "; 1 skipped" in capsys.readouterr().out
    assert [entry["frame"] for entry in written(out)["skipped"]] == ["f2"]


def test_ctrl_c_leaves_complete_files_and_status_130(drive, tmp_path, weights):
    for i in range(4, 3000):
        os.link(drive / "f0.png", drive / f"f{i}.png")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "vidseg_core.cli", "run", str(drive), "--out", str(out), "--weights", weights]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        seen = b""
        while not re.search(rb"\b[1-9]\d*/3000", seen):  # the progress bar counts frames that are done
            more = os.read(process.stderr.fileno(), 4096)
            assert more, seen.decode()
            seen += more
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, errors.decode()
    assert b"; interrupted" in output and b"Traceback" not in errors
    summary = written(out)
    assert summary["interrupted"] is True and 1 <= summary["frames"] < 3000
    for kind in ("labels", "overlay"):
        assert {p.name for p in (out / kind).iterdir()} == {f"f{i}.png" for i in range(summary["frames"])}
        last = out / kind / f"f{summary['frames'] - 1}.png"
        assert cv2.imread(str(last), cv2.IMREAD_UNCHANGED).shape[:2] == (96, 128)
    assert len(list(open_source(out / "overlay.mp4"))) == summary["frames"]


def test_key_frames_beside_the_stream(drive, tmp_path, weights):
    out = tmp_path / "out"
    options = ["--key-frames", "async", "--interval", "1", "--max-gap-s", "5", "--no-video"]
    assert cli.main(["run", str(drive), "--out", str(out), "--weights", weights, *options]) == 0
    summary = written(out)
    config = summary["engine"]["config"]
    assert (config["key_frames"], config["max_gap_s"], summary["frames"]) == ("async", 5.0, 4)
    assert len(list((out / "labels").iterdir())) == 4
