"""Every example runs as a user would start it, on a few frames of the synthetic street."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

STREET = "street:seed={},size=320x240,frames=6"


@pytest.fixture
def run(checkout, tmp_path):
    def run(script, *arguments):
        command = [sys.executable, str(checkout / "examples" / script), *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_all_examples_are_tested(checkout):
    tested = {"label_video.py", "own_segmenter.py", "read_labelled_recording.py", "segformer_to_onnx.py"}
    tested |= {"labelled_cloud.py", "stream_per_camera.py"}
    assert {path.name for path in (checkout / "examples").glob("*.py")} == tested


def test_label_video(run, tmp_path):
    lines = run("label_video.py", STREET.format(0), "labelled")
    assert lines[0] == "frame 0: key frame" and lines[1] == "frame 1: 1 frames after one"
    pictures = sorted((tmp_path / "labelled").glob("*.png"))
    assert len(pictures) == 6 and cv2.imread(str(pictures[0])).shape == (240, 320, 3)


def test_labelled_cloud(run, tmp_path):
    [line] = run("labelled_cloud.py", STREET.format(3), 5, "cloud.png")
    count, _, said = line.partition(" ")
    assert int(count) > 320 * 240 / 2 and said == "points; 100.00% have the label of the pixel that sees them"
    image, labels, colours = np.hsplit(cv2.imread(str(tmp_path / "cloud.png")), 3)
    assert image.shape == (240, 320, 3)
    road = (labels == (128, 64, 128)).all(2)  # in OpenCV's order, too
    assert 0.05 < road.mean() < 0.5 and np.nonzero(road)[0].mean() > 120 > 90 > np.median(colours[road])


def test_own_segmenter(run):
    lines = run("own_segmenter.py", STREET.format(0))
    assert [line.rpartition(" ")[2] for line in lines] == ["0", "1", "2", "3", "4", "0"]
    assert all("% sky" in line for line in lines)


def test_stream_per_camera(run):
    lines = run("stream_per_camera.py", STREET.format(0), STREET.format(1))
    assert lines[0] == "key key" and [line.split()[0] for line in lines] == ["key", "+1", "+2", "+3", "+4", "key"]
    # The second camera's first interval is shorter.
    assert [line.split()[1] for line in lines] == ["key", "+1", "+2", "key", "+1", "+2"]


def test_read_labelled_recording(run, tmp_path):
    made = [sys.executable, "-m", "vidseg_core.cli", "bag", "make", STREET.format(0), "--out", "drive"]
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    lines = run("read_labelled_recording.py", "drive", "/camera/image_raw", "/camera/labels_truth")
    assert len(lines) == 6 and all("320 x 240, mostly " in line and not line.endswith("void") for line in lines)


@pytest.mark.long
def test_segformer_to_onnx(run, tmp_path):
    for package in ("transformers", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    [line] = run("segformer_to_onnx.py", "b0", "b0.onnx", "320", "256")
    assert line.startswith("b0.onnx: 3.7 million numbers")
    assert run_cli(tmp_path, "weights", "inspect", "b0.onnx", "--json")["facts"]["output.stride"]["value"] == 4


def run_cli(folder, *arguments):
    command = [sys.executable, "-m", "vidseg_core.cli", *arguments]
    return json.loads(subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300).stdout)
