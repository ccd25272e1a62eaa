import hashlib
import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import cv2
import numpy as np
import pytest
import torch

from vidseg_core.cli import main as cli
from vidseg_core.models.architectures import FLOW_LIGHT
from vidseg_core.models.files import read_metadata, save_weights
from vidseg_core.networks.flow_light import FlowLight
from vidseg_core.street import Street, StreetConfig


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def online(tmp_path):
    """A directory, and the address under which a web server on this machine serves it."""
    directory = tmp_path / "online"
    directory.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=directory)) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        yield directory, f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.fixture
def registry_file(tmp_path, online, monkeypatch):
    """A registry of two files: `good` is served as registered, `bad` is another file than the registered one."""
    directory, address = online
    monkeypatch.setenv("VIDSEG_WEIGHTS", str(tmp_path / "kept"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    torch.manual_seed(0)
    metadata = {"architecture": FLOW_LIGHT, "training": {"epochs": 3}}
    save_weights(directory / "good.safetensors", FlowLight().state_dict(), metadata)
    (directory / "bad.pt").write_bytes(b"not what was promised")
    sums = {"good": hashlib.sha256((directory / "good.safetensors").read_bytes()).hexdigest(), "bad": "0" * 64}
    lines = ["weights:"]
    for name, file in (("good", "good.safetensors"), ("bad", "bad.pt")):
        lines.append(
            f"  - {{name: {name}, file: {file}, layout: public, architecture: {FLOW_LIGHT}, classes: null, "
            f"licence: MIT, url: '{address}/{file}', checksum: 'sha256:{sums[name]}', note: Of {name}.}}"
        )
    path = tmp_path / "registry.yaml"
    path.write_text("\n".join(lines))
    return path


def vidseg(*arguments) -> int:
    return cli.main(["weights", *map(str, arguments)])


def test_without_an_action_it_lists_what_there_is(registry_file, capsys):
    assert vidseg("--registry", registry_file) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["NAME", "ARCHITECTURE", "CLASSES", "SIZE", "LICENCE", "WHERE"]
    assert rows[1] == f"good {FLOW_LIGHT} - - MIT absent; vidseg weights get good".split()
    assert len(rows) == 3


def test_get_fetches_checks_and_keeps_a_file_once(registry_file, online, tmp_path, capsys):
    kept = tmp_path / "kept/good.safetensors"
    assert vidseg("get", "good", "--registry", registry_file) == 0
    assert kept.read_bytes() == (online[0] / "good.safetensors").read_bytes()
    assert f"good: {kept}" in capsys.readouterr().out
    assert vidseg("get", "good", "--registry", registry_file) == 0
    assert "already here, intact" in capsys.readouterr().out

    assert vidseg("list", "--json", "--registry", registry_file) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed[0]["path"] == str(kept) and listed[0]["bytes"] == kept.stat().st_size and listed[1]["path"] is None


def test_get_keeps_nothing_that_is_not_as_registered(registry_file, tmp_path, capsys):
    assert vidseg("get", "bad", "--registry", registry_file) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.split("vidseg: error: ")[1].startswith("weights 'bad': ") and "not kept" in error
    assert list((tmp_path / "kept").iterdir()) == []


def test_get_to_a_directory(registry_file, tmp_path):
    assert vidseg("get", "good", "--out", tmp_path / "there", "--registry", registry_file) == 0
    assert (tmp_path / "there/good.safetensors").is_file() and not (tmp_path / "kept").exists()


def test_get_of_an_unknown_name(registry_file, capsys):
    assert vidseg("get", "other", "--registry", registry_file) == 2
    assert capsys.readouterr().err == "vidseg: error: no weights named 'other': expected one of ['good', 'bad']\n"


def test_verify_names_the_damaged_file(registry_file, tmp_path, capsys):
    assert vidseg("verify", "--registry", registry_file) == 0
    assert "no registered weight file" in capsys.readouterr().out
    assert vidseg("get", "good", "--registry", registry_file) == 0
    assert vidseg("verify", "good", "--registry", registry_file) == 0
    assert capsys.readouterr().out.endswith("good.safetensors: intact\n")

    path = tmp_path / "kept/good.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert vidseg("verify", "--registry", registry_file) == 2
    assert capsys.readouterr().err == f"vidseg: error: not as registered: {path}\n"
    assert vidseg("get", "good", "--registry", registry_file) == 2
    assert "or damaged" in capsys.readouterr().err


def test_convert_then_show(upstream_weights, tmp_path, capsys):
    ours = tmp_path / "ours.safetensors"
    assert vidseg("convert", upstream_weights / "cityscapes-swnet_model_best.pth.tar", ours) == 0
    assert "swnet-seq, classes: cityscapes" in capsys.readouterr().out
    assert read_metadata(ours)["classes"]["name"] == "cityscapes"
    assert vidseg("show", ours, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["architecture"] == "swnet-seq" and shown["registered_as"] is None
    assert shown["sha256"] == hashlib.sha256(ours.read_bytes()).hexdigest()
    assert shown["metadata"]["classes"]["classes"][0]["name"] == "road"


def test_convert_takes_a_class_table_of_the_right_length_only(upstream_weights, tmp_path, capsys):
    ours = tmp_path / "ours.safetensors"
    public = upstream_weights / "cityscapes-swnet_model_best.pth.tar"
    assert vidseg("convert", public, ours, "--classes", "camvid") == 2
    assert "expected 11 classes as in class table 'camvid', found 19" in capsys.readouterr().err
    assert vidseg("convert", public, tmp_path / "ours.pt") == 2
    assert "expected a file name that ends in .safetensors" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_calibrate_makes_a_file_that_integers_can_be_used_with(tmp_path, capsys):
    from vidseg_core.engine.build import build_engine
    from vidseg_core.engine.config import EngineConfig
    from vidseg_core.models.registry import find_record

    ours = tmp_path / "ours.safetensors"
    streets = [f"street:seed={seed},size=320x240,frames=9" for seed in (1, 2)]
    assert vidseg("calibrate", "camvid-swiftnet-r18", ours, "--count", 2, "--input-scale", 0.5, "--data", *streets) == 0
    assert "32 convolutions have seen 4 pictures" in capsys.readouterr().out
    metadata = read_metadata(ours)
    assert metadata["calibration"] == {"pictures": 4, "input_scale": 0.5} and metadata["classes"]["name"] == "camvid"
    ranges, registered = metadata["activation_ranges"], find_record("camvid-swiftnet-r18").activation_ranges
    assert set(ranges) == set(registered)
    assert ranges["logits.conv"][1] == pytest.approx(registered["logits.conv"][1], rel=0.7)
    with build_engine(EngineConfig(weights=str(ours), runtime="openvino_int8")) as engine:
        assert engine.networks.segmenter.execute._ranges["logits.conv"] == tuple(ranges["logits.conv"])


def test_calibrate_measures_the_ladder_that_the_governor_reads(tmp_path, capsys, monkeypatch):
    from vidseg_core.engine.build import build_engine
    from vidseg_core.engine.config import EngineConfig
    from vidseg_core.evaluation import ladder
    from vidseg_core.models.registry import find_record

    monkeypatch.setattr(ladder, "RUNS", 1)
    monkeypatch.setattr(ladder, "SHARES", (0.5, 1.0))
    (tmp_path / "drive").mkdir()
    street = Street(StreetConfig(seed=3, width=320, height=240, num_frames=4))
    for i in range(4):
        cv2.imwrite(str(tmp_path / "drive" / f"f{i}.png"), street.render(i).image[::2, ::2, ::-1])
    ours = tmp_path / "ours.safetensors"
    options = ("--input-scale", 1, "--ladder", tmp_path / "drive", "--update-weights", "camvid-update-lite0")
    assert vidseg("calibrate", "camvid-swiftnet-r18", ours, *options) == 0
    assert "accuracy:" in capsys.readouterr().out
    metadata = read_metadata(ours)
    assert metadata["ladder"] == {"truth": "own labels", "frames": 4, "size": [120, 160], "rate_hz": 30.0}
    assert set(metadata["activation_ranges"]) == set(find_record("camvid-swiftnet-r18").activation_ranges)
    with build_engine(EngineConfig(weights=str(ours), device="cpu", runtime="eager")) as engine:
        found = engine.accuracy
    assert [age for age, _ in found.lost_by_age_s] == [0.0, 0.0333, 0.0667]
    assert [rows for rows, _ in found.rows] == [60, 120]
    assert found.of_rows(60) < found.of_rows(120) < 99  # by then the next frame is there
    assert found.update.weights == "camvid-update-lite0"
    assert [age for age, _ in found.update.lost_by_age_s] == [0.0, 0.0333, 0.0667]


def test_calibrate_looks_at_data_sets(tmp_path, capsys):
    (tmp_path / "train").mkdir()
    for i in range(3):
        cv2.imwrite(str(tmp_path / "train" / f"f{i}.png"), np.full((64, 96, 3), 60 * i, np.uint8))
    data = (f"camvid:{tmp_path}", f"folder:{tmp_path}:train", tmp_path / "train")
    arguments = (tmp_path / "ours.safetensors", "--count", 2, "--input-scale", 0.5, "--data", *data)
    assert vidseg("calibrate", "camvid-swiftnet-r18", *arguments) == 0
    assert "32 convolutions have seen 6 pictures" in capsys.readouterr().out
    assert vidseg("calibrate", "camvid-swiftnet-r18", *arguments[:-3], f"camvid:{tmp_path}/nowhere") == 2
    assert "nowhere/train: expected a folder with images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["camvid-swiftnet-r18", "DST.pt", "--data", "street:frames=1"], "expected a file name that ends in .safetens"),
        (["camvid-swiftnet-r18", "DST.safetensors", "--data", "nowhere/"], "nowhere/: expected a folder of images"),
        (
            ["camvid-swnet-seq", "DST.safetensors", "--data", "street:frames=1"],
            "expected weights of swiftnet-lite0 or swiftnet-r18",
        ),
        (["camvid-swiftnet-r18", "DST.safetensors"], "expected --data or --ladder, or both, got neither"),
        (
            ["camvid-swiftnet-r18", "DST.safetensors", "--data", "street:frames=1", "--update-weights", "a"],
            "--update-weights: expected --ladder, which measures what it brings, got none",
        ),
        (
            ["camvid-swiftnet-r18", "DST.safetensors", "--ladder", "street:frames=1,size=320x240"],
            "street:frames=1,size=320x240: expected consecutive frames of one size, got 1",
        ),
    ],
)
def test_calibrate_with_something_else(tmp_path, capsys, arguments, message):
    arguments[1] = tmp_path / arguments[1]
    assert vidseg("calibrate", *arguments) == 2
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("option", "value"), [("--count", 0), ("--input-scale", 3)])
def test_calibrate_with_a_number_out_of_range(option, value, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        vidseg("calibrate", "a", tmp_path / "b.safetensors", "--data", "c", option, value)
    assert f"argument {option}: expected" in capsys.readouterr().err


def test_show_prints_what_a_file_says_about_itself(registry_file, online, capsys):
    assert vidseg("show", online[0] / "good.safetensors", "--registry", registry_file) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["architecture"] == FLOW_LIGHT and rows["registered_as"] == "good" and rows["licence"] == "MIT"
    assert rows["values"] == str(sum(value.numel() for value in FlowLight().state_dict().values()))
    assert rows["training"] == '{"epochs": 3}'


def test_show_of_a_file_that_is_no_weight_file(tmp_path, capsys):
    (tmp_path / "text.pt").write_text("text")
    assert vidseg("show", tmp_path / "text.pt") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"vidseg: error: {tmp_path / 'text.pt'}: expected a PyTorch weight file")
    assert said.endswith("(not a pickle of tensors alone)\n")
