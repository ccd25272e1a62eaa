import json
import sys

import numpy as np
import pytest

from vidseg_core.cli import main as cli
from vidseg_core.data.bag_writer import BagWriter
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix

CLASSES = ("road", "sky")


def results(folder, hits):
    """Results of a run in which drive i has so many pixels of its road right."""
    rows = []
    for i, right in enumerate(hits):
        counts = [[right, 100 - right, 0], [0, 100, 0]]
        miou = 100 * ConfusionMatrix.from_counts(np.array(counts)).mean_iou()
        rows.append(
            {"place": f"drive_{i}", "content": f"c{i}", "topic": "/camera/image_raw", "frames": 10, "miou": miou,
             "reference": "ground truth", "pixel_accuracy": 50 + right / 2, "disagreement": 1.0,
             "temporal_consistency": None, "class_iou": dict.fromkeys(CLASSES, 1.0), "confusion": counts}
        )  # fmt: skip
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({"recordings": rows}))
    return folder


@pytest.fixture
def clip(tmp_path):
    with BagWriter(tmp_path / "clip", "mcap") as bag:
        for i in range(6):
            bag.write_image("/camera/image_raw", "rgb8", np.full((64, 64, 3), i, np.uint8), 10**18 + i * 50_000_000)
    return tmp_path / "clip"


def test_two_runs_are_compared(tmp_path, capsys):
    a, b = results(tmp_path / "a", [60, 60, 60, 60]), results(tmp_path / "b", [60, 50, 40, 30])
    assert cli.main(["fleet", "compare", str(a), str(b), "--json", str(tmp_path / "c.json"), "--most", "2"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "4 drives, by mIoU 3 worse, 0 better, 1 equal"
    assert said[1].startswith("mIoU, all pixels together ") and said[1].endswith("  clear")
    assert [line.split()[-2] for line in said[-2:]] == ["drive_3", "drive_2"]
    written = json.loads((tmp_path / "c.json").read_text())
    assert [row["place"] for row in written["drives"]] == ["drive_3", "drive_2", "drive_1", "drive_0"]
    assert written["pooled_miou"]["high"] < 0


def test_what_is_no_run_is_named(tmp_path, capsys):
    assert cli.main(["fleet", "compare", str(tmp_path), str(tmp_path)]) == 2
    assert "expected the folder of a run of `vidseg fleet replay`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("pyarrow", ("replay",)), ("ray", ("label",)), ("pyarrow", ("label", "--form", "parquet"))],
)
def test_without_the_extra_one_line_says_how_to_install_it(clip, monkeypatch, capsys, module, arguments):
    monkeypatch.setitem(sys.modules, module, None)
    assert cli.main(["fleet", *arguments, str(clip), "--out", str(clip.parent / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    name = {"pyarrow": "pyarrow", "ray": "Ray"}[module]
    assert line == f"vidseg: error: fleet: needs {name}, which is not installed: pip install 'vidseg_ros[fleet]'"
    assert not (clip.parent / "out").exists()


def test_an_object_store_needs_pyarrow(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert cli.main(["fleet", "label", "s3://bucket/drives", "--out", "out"]) == 2
    assert "s3://bucket/drives: needs pyarrow" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--workers", "0"), "--workers: expected 1 or more, got 0"),
        (("--cpus-per-worker", "0"), "--cpus-per-worker: expected 1 or more, got 0"),
        (("--gpus-per-worker", "-1"), "--gpus-per-worker: expected 0 or more, got -1"),
        (("--segment-frames", "0"), "segment_frames: expected 1 or more, got 0"),
        (("--device", "cuda", "--gpus-per-worker", "0"), "expected cpu with --gpus-per-worker 0"),
        (("--weights", "nothing"), "nothing: neither a weight file nor the name of one"),
    ],
)
def test_what_makes_no_sense_is_refused(clip, capsys, arguments, said):
    assert cli.main(["fleet", "label", str(clip), "--out", str(clip.parent / "out"), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_labels_that_would_go_to_one_place_are_refused(clip, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "clip.mcap").write_bytes(b"")
    names = [str(clip), str(tmp_path / "other" / "clip.mcap")]
    assert cli.main(["fleet", "label", *names, "--to", str(tmp_path / "labels"), "--out", str(tmp_path / "out")]) == 2
    assert f"its labels would go to {tmp_path}/labels/clip_labels, as those of {clip}" in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_done_and_does_nothing(clip, tmp_path, capsys):
    (tmp_path / "broken.mcap").write_bytes(b"nothing")
    names = [str(clip), str(tmp_path / "broken.mcap"), "--segment-frames", "2", "--interval", "1", "--lead-frames", "2"]
    options = ["--out", str(tmp_path / "out"), "--dry-run", "--runtime", "eager", "--input-scale", "0.25"]
    assert cli.main(["fleet", "label", *names, *options, "--local-cpus", "3"]) == 2
    shown = capsys.readouterr()
    assert shown.out.splitlines()[:2] == [
        "1 drives in 2 recordings on this machine: 6 frames, 3 segments",
        "to be computed: 3 segments, 6 frames, and 4 before segments that give streams their past",
    ]
    assert "ms for each frame (measured here on 2 frames of" in shown.out and "with 3 workers" in shown.out
    assert "broken.mcap: not a recording that can be opened" in shown.err
    assert not (tmp_path / "out").exists()
