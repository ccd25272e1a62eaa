"""`vidseg weights inspect`: what is known, an overlay, and a card to edit that is enough."""

import json

import cv2
import numpy as np
import pytest
import yaml

from vidseg_core.cli import main as cli

onnx = pytest.importorskip("onnx", reason="needs the extra `onnx`")
pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")


@pytest.fixture
def net(tmp_path):
    """Class 1 where a pixel is bright."""
    helper = onnx.helper
    weights = np.stack((np.zeros((3, 1, 1)), np.ones((3, 1, 1)))).astype(np.float32)
    dims = [1, "c", "h", "w"]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, dims)],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path / "bright.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.fixture
def image(tmp_path):
    """Dark on the left, bright on the right."""
    picture = np.full((64, 96, 3), 20, np.uint8)
    picture[:, 48:] = 230
    cv2.imwrite(str(tmp_path / "street.png"), picture)
    return tmp_path / "street.png"


def inspect(*arguments):
    return cli.main(["weights", "inspect", *map(str, arguments)])


def test_what_is_missing_is_said_and_the_card_that_is_written_has_a_line_for_it(net, tmp_path, capsys):
    assert inspect(net, "--out", tmp_path / "look") == 2
    said = capsys.readouterr()
    assert "needed: input: {mean: [123.675" in said.out and "add to bright.card.yaml beside it" in said.err
    card = (tmp_path / "look" / "bright.card.yaml").read_text()
    assert "# needed: classes: [" in card and yaml.safe_load(card)["input"]["layout"] == "nchw"
    filled = card.replace("# needed: classes: [road, car, ...]", "classes: [dark, bright]")
    for name in ("mean", "std"):
        filled = filled.replace(f"  # {name}:", f"  {name}:")
    net.with_suffix(".card.yaml").write_text(filled)
    assert inspect(net) == 0, "uncommented, its lines are enough"


def test_a_picture_is_labelled_and_the_card_is_one_that_can_be_used(net, image, tmp_path, capsys):
    net.with_suffix(".card.yaml").write_text(
        "classes: [dark, bright]\ninput: {mean: [127.5, 127.5, 127.5], std: [127.5, 127.5, 127.5], multiple: 1}\n"
    )
    assert inspect(net, "--image", image, "--out", tmp_path / "look", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["shares"] == {"dark": 0.5, "bright": 0.5} and result["missing"] == []
    assert result["facts"]["output.kind"]["from"] == "assumed: its last operation is Conv"
    overlay = cv2.imread(result["overlay"])
    assert overlay.shape == (64, 96, 3) and overlay[:, 60:].mean() > overlay[:, :40].mean() + 50
    # The card that was written says all that is known: it can take the place of the first one.
    net.with_suffix(".card.yaml").write_text((tmp_path / "look" / "bright.card.yaml").read_text())
    assert inspect(net, "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert {name: fact["value"] for name, fact in again["facts"].items() if name != "classes"} == {
        name: fact["value"] for name, fact in result["facts"].items() if name != "classes"
    }


def test_a_card_is_not_overwritten(net, tmp_path, capsys):
    net.with_suffix(".card.yaml").write_text("licence: mine\n")
    assert inspect(net, "--out", tmp_path) == 2
    assert "exists already; a card is not overwritten" in capsys.readouterr().err


def test_a_picture_can_be_looked_at_again_beside_the_card(net, image, tmp_path, monkeypatch, capsys):
    card = net.with_suffix(".card.yaml")
    card.write_text("classes: [dark, bright]\ninput: {mean: [127.5, 127.5, 127.5], std: [127.5, 127.5, 127.5]}\n")
    before = card.read_bytes()
    monkeypatch.chdir(net.parent)
    for _ in range(2):
        assert inspect(net, "--image", image) == 0
        assert "card: bright.card.yaml (kept as it was)" in capsys.readouterr().out
    assert card.read_bytes() == before and (net.parent / "bright.overlay.png").is_file()


def test_our_own_files_are_described_too(capsys):
    assert inspect("camvid-swiftnet-r18", "--json") == 0
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert facts["architecture"]["value"] == "swiftnet-r18" and len(facts["classes"]["value"]["classes"]) == 11
