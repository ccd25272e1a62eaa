import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mcap.writer import Writer

from vidseg_core.classes import load_classes
from vidseg_core.cli import main as cli
from vidseg_core.cli import replay
from vidseg_core.data.bag_writer import BagWriter
from vidseg_core.data.open import open_source
from vidseg_core.data.wire import ImageWriter, Stamp, Stamped
from vidseg_core.models.files import save_weights
from vidseg_core.networks.swiftnet import SwiftNet

CLASSES = load_classes("camvid")
START_NS = 1_700_000_000 * 10**9
COUNT = 4


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    torch.manual_seed(0)
    save_weights(path, SwiftNet(11).state_dict(), {"architecture": "swiftnet-r18", "classes": CLASSES.to_dict()})
    return str(path)


def record(path, namespace="/camera", truth=True):
    rng = np.random.default_rng(0)
    with BagWriter(path, "mcap") as bag:
        for i in range(COUNT):
            image = rng.integers(0, 256, (72, 96, 3), dtype=np.uint8)
            bag.write_image(f"{namespace}/image_raw", "rgb8", image, START_NS + i * 50_000_000)
            if truth:
                labels = np.full((72, 96), 255, np.uint8) if truth == "void" else image[..., 0] % 11
                bag.write_image(f"{namespace}/labels_truth", "mono8", labels, START_NS + i * 50_000_000)
    return path


@pytest.fixture
def call(weights):
    def run(*arguments):
        options = [
            "--weights",
            weights,
            "--interval",
            "1",
            "--input-scale",
            "0.25",
            "--num-threads",
            "1",
            "--runtime",
            "eager",
        ]
        return cli.main(["replay", *map(str, arguments), *options, "--timings", "key_ms=80,step_ms=10"])

    return run


def test_a_report_that_needs_nothing_beside_it(tmp_path, call, capsys):
    bag, out = record(tmp_path / "drive"), tmp_path / "report"
    assert call(bag, "--out", out, "--json", tmp_path / "figures.json") == 0
    page = (out / "report.html").read_text()
    sources = re.findall(r"(?:src|href)='([^']{0,30})", page)
    assert len(sources) == 2 + 2 * COUNT and all(source.startswith("data:image/") for source in sources)
    assert "http" not in page and str(bag) in page and "simulated clock, key frame 80 ms" in page
    results = json.loads((out / "report.json").read_text())
    assert results == json.loads((tmp_path / "figures.json").read_text())
    assert results["failed"] == [] and results["provenance"]["engine"]["config"]["interval"] == 1
    (one,) = results["recordings"]
    assert (one["topic"], one["reference"], one["size"]) == ("/camera/image_raw", "ground truth", [72, 96])
    assert (one["offline"]["frames"], one["offline"]["key_frames"], one["live"]["frames"]) == (COUNT, 2, COUNT)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{bag}: /camera/image_raw: 4 frames, 2 of them key frames; mIoU ")
    assert lines[1] == str(out / "report.html")
    assert call(bag, "--out", out) == 2
    assert "expected a folder without a report" in capsys.readouterr().err
    assert call(bag, "--out", out, "--overwrite", "--no-live") == 0
    assert json.loads((out / "report.json").read_text())["recordings"][0]["live"] is None


def test_one_broken_recording_does_not_stop_the_others(tmp_path, call, capsys):
    record(tmp_path / "a")
    broken = record(tmp_path / "b") / "b.mcap"
    broken.write_bytes(broken.read_bytes()[:5000])
    record(tmp_path / "c", "/front")
    (tmp_path / "d").mkdir()
    out = tmp_path / "report"
    assert call(tmp_path / "[a-d]", tmp_path / "e", "--topic", "/camera/image_raw", "--out", out) == 2
    captured = capsys.readouterr()
    assert [line.split(": ")[0] for line in captured.out.splitlines()[:-1]] == [str(tmp_path / "a")]
    errors = [line for line in captured.err.splitlines() if line.startswith("vidseg: error: ")]
    expected = [
        "b.mcap: not a recording that can be opened: no whole message in it: ",
        "c: no images on topic '/camera/image_raw'; expected one of ['/front/image_raw', '/front/labels_truth']",
        "d: expected a recording: an .mcap, .db3 or .bag file, or the folder of one",
        "e: expected a recording: an .mcap, .db3 or .bag file, or the folder of one",
    ]
    assert len(errors) == 4 and all(text in line for text, line in zip(expected, errors, strict=True))
    results = json.loads((out / "report.json").read_text())
    assert [one["recording"] for one in results["recordings"]] == [str(tmp_path / "a")]
    assert [one["recording"] for one in results["failed"]] == [str(tmp_path / name) for name in "bcde"]
    page = (out / "report.html").read_text()
    assert "Not replayed" in page and "not a recording that can be opened" in page


def test_a_recording_that_ends_early_is_replayed_as_far_as_it_goes(tmp_path, call, capsys):
    path = tmp_path / "drive"
    with BagWriter(path) as bag:
        for i in range(COUNT):
            height = 72 if i < 3 else 36
            image = np.zeros((height, 96, 3), np.uint8)
            bag.write_image("/image", "rgb8", image, START_NS + i * 50_000_000)
    assert call(path, "--json", tmp_path / "figures.json") == 2
    assert "expected at least 64 x 64 pixels, got 96 x 36" in capsys.readouterr().err
    (one,) = json.loads((tmp_path / "figures.json").read_text())["recordings"]
    assert one["offline"]["frames"] == 3 and "got 96 x 36" in one["error"]
    assert call(path, "--skip-bad") == 0


def test_a_copy_of_the_recording_with_labels_and_overlay(tmp_path, call):
    bag, out = record(tmp_path / "drive"), tmp_path / "copies"
    assert call(bag, "--no-live", "--bag-out", out, "--storage", "mcap") == 0
    stamps = [frame.stamp_ns for frame in open_source(out / "drive")]
    assert stamps == [START_NS + i * 50_000_000 for i in range(COUNT)]
    labels = list(open_source(out / "drive", topic="/camera/labels"))
    overlays = list(open_source(out / "drive", topic="/camera/overlay"))
    assert [frame.stamp_ns for frame in labels] == [frame.stamp_ns for frame in overlays] == stamps
    assert all(frame.image.max() < len(CLASSES) for frame in labels)
    assert len(list(open_source(out / "drive", topic="/camera/labels_truth"))) == COUNT


def test_copies_of_recordings_with_like_names(tmp_path, call):
    """What differs behind a dot only, or by its folder only; and what is named twice is one recording."""
    bags = [record(tmp_path / name) for name in ("drive.1", "drive.2", "a/clip", "b/clip")]
    again = (f"{bags[0]}/", bags[2] / ".." / "clip", bags[1] / "metadata.yaml")
    assert call(*bags, *again, "--no-live", "--bag-out", tmp_path / "copies") == 0
    names = sorted(path.name for path in (tmp_path / "copies").iterdir())
    assert names == ["a_clip", "b_clip", "drive.1", "drive.2"]
    for name in names:
        assert len(list(open_source(tmp_path / "copies" / name, topic="/camera/labels"))) == COUNT


def test_names_of_copies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "drive.bag").mkdir()
    paths = ["one.mcap", "two.db3", "three.bag", "four.mcap.zstd", "drive.bag", "drive.mcap", "x/y/bag", "x/z/bag", "."]
    paths += ["same.db3", "same.mcap", "w/metadata.yaml", "n.mcap/metadata.yaml"]
    names = ["one", "two", "three", "four", "drive.bag", "drive", "y_bag", "z_bag", tmp_path.name]
    names += ["same.db3", "same.mcap", "w", "n"]
    assert list(replay.copy_names(list(map(Path, paths))).values()) == [*names]


def test_the_storage_of_a_copy(tmp_path, call, capsys, caplog):
    """SQLite, unless it cannot hold the recording: then MCAP if nothing was said, else an error before the work."""
    path, out = tmp_path / "drive.mcap", tmp_path / "copies"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start("", "test")
        image = writer.register_channel("/image", "cdr", writer.register_schema("sensor_msgs/msg/Image", "", b""))
        for i in range(COUNT):
            header = Stamped(Stamp(5, i * 50_000_000), "camera")
            data = ImageWriter().serialise(header, "mono8", np.zeros((72, 96), np.uint8))
            writer.add_message(image, START_NS + i * 50_000_000, data, 0)
        json_channel = writer.register_channel("/json", "json", 0)
        writer.add_message(json_channel, START_NS, b"{}", 0)
        writer.finish()
    assert call(path, "--no-live", "--bag-out", out, "--storage", "sqlite3") == 2
    said = "storage sqlite3 cannot hold /json, whose messages are serialized as json; expected --storage mcap"
    captured = capsys.readouterr()
    assert said in captured.err and "frames" not in captured.out and not out.exists()
    assert call(path, "--no-live", "--bag-out", out) == 0
    assert "storage mcap: sqlite3 cannot hold /json" in caplog.text
    assert sorted(file.name for file in (out / "drive").iterdir()) == ["drive.mcap", "metadata.yaml"]
    assert call(record(tmp_path / "other"), "--no-live", "--bag-out", out) == 0
    assert (out / "other" / "other.db3").is_file()


def test_modes(tmp_path, call, capsys):
    bag = record(tmp_path / "drive")
    assert call(bag, "--compare", "--json", tmp_path / "modes.json", "--size", "120x80") == 0
    rows = json.loads((tmp_path / "modes.json").read_text())["rows"]
    assert {row["mode"] for row in rows} >= {"per_frame", "sync"}
    assert sorted({row["rate_hz"] for row in rows}) == [20.0, 40.0]
    for row in rows:
        keys = {"mode", "rate_hz", "streaming_miou", "deadline_miou", "latency_ms", "dropped", "key_ms"}
        assert keys <= set(row) and row["key_ms"] == 80
    assert capsys.readouterr().out.splitlines()[1].startswith("mode       rate Hz  streaming  deadline")


def test_without_ground_truth(tmp_path, call, capsys):
    bag = record(tmp_path / "drive", truth=False)
    assert call(bag, "--out", tmp_path / "report") == 0
    assert "mIoU against the per-frame segmenter" in capsys.readouterr().out
    assert "compared with per-frame segmenter on 4 of them" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--frames", 0), "--frames: expected 1 or more, got 0"),
        (("--realtime",), "--realtime: expected no --timings"),
        (("--bag-out", "x", "--size", "90x80"), "--bag-out: expected images of their own size"),
        (("--labels", "/truth"), "no images on topic '/truth'"),
    ],
)
def test_errors(tmp_path, call, capsys, options, message):
    bag = record(tmp_path / "drive")
    assert call(bag, *options) == 2
    assert message in capsys.readouterr().err
    assert call(tmp_path / "x*") == 2
    assert "x*: expected recordings, nothing has such a name" in capsys.readouterr().err


def test_a_path_that_exists_is_no_pattern(tmp_path):
    for name in ("drive [front]", "drive f", "other"):
        (tmp_path / name).mkdir()
    assert replay.expand([str(tmp_path / "drive [front]")]) == [tmp_path / "drive [front]"]
    assert replay.expand([str(tmp_path / "drive*"), str(tmp_path / "drive f")]) == [
        tmp_path / "drive [front]",
        tmp_path / "drive f",
    ]


@pytest.mark.parametrize("options", [(), ("--compare",)])
def test_truth_that_is_void_everywhere_is_no_figure(tmp_path, call, capsys, options):
    void, good, out = record(tmp_path / "void", truth="void"), record(tmp_path / "good"), tmp_path / "out"
    assert call(void, good, "--out", out, *options) == 0
    said = capsys.readouterr().out
    assert "mIoU unknown, no labelled pixel" in said
    first, second = json.loads((out / "report.json").read_text())["recordings"]
    assert first["offline"]["miou"] is None and second["offline"]["miou"] > 0
    assert (out / "report.html").read_text().count("ground truth") >= 2
