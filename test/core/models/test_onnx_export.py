"""SwiftNet as an ONNX file: the same labels in ONNX Runtime, in Nav2's node, and through `weights` again."""

import json

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional as F

onnx = pytest.importorskip("onnx", reason="needs the extra `onnx`")
ort = pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")

from vidseg_core.backends import probe  # noqa: E402
from vidseg_core.classes import load_classes  # noqa: E402
from vidseg_core.cli import main as cli  # noqa: E402
from vidseg_core.engine.build import build_engine  # noqa: E402
from vidseg_core.engine.config import EngineConfig  # noqa: E402
from vidseg_core.errors import CheckpointError, ConfigError  # noqa: E402
from vidseg_core.frame import Frame  # noqa: E402
from vidseg_core.models import onnx_export  # noqa: E402
from vidseg_core.models.files import save_weights  # noqa: E402
from vidseg_core.models.onnx_export import export, pooling_matrix  # noqa: E402
from vidseg_core.models.open import open_model  # noqa: E402
from vidseg_core.networks.swiftnet import SwiftNet  # noqa: E402

SIZE = 96, 160  # three rows of the coarsest map, of which pyramid pooling makes eight


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    torch.manual_seed(0)
    metadata = {"architecture": "swiftnet-r18", "classes": load_classes("camvid").to_dict(), "notices": ["whose"],
                "normalisation": {"mean_rgb": [70.0, 80.0, 90.0], "std_rgb": [50.0, 60.0, 40.0]}}  # fmt: skip
    save_weights(path, SwiftNet(11, "r18", 12).state_dict(), metadata)
    return path


@pytest.fixture
def image():
    coarse = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((8, 8, 1), np.uint8))


@pytest.mark.parametrize("pixels", [3, 5, 8, 17])
def test_pooling_by_matrices_is_adaptive_pooling(pixels):
    x = torch.randn(1, 2, pixels, 7)
    ours = pooling_matrix(pixels, 8) @ x @ pooling_matrix(7, 4).T
    torch.testing.assert_close(ours, F.adaptive_avg_pool2d(x, (8, 4)))


def test_an_exported_network_gives_the_same_labels_everywhere(weights, image, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "cache_directory", lambda: tmp_path / "cache" / "openvino")
    monkeypatch.setattr(probe, "in_a_process_of_its_own", lambda asked: "\n".join(probe.trials(asked)))
    model = open_model(weights)
    path = tmp_path / "net.onnx"
    made = export(model, path, SIZE, [image], classes=model.card.classes)
    assert made.agreement >= 0.999 and made.ontology is None and made.classes == model.card.classes.names
    graph = onnx.load(path)
    assert [one.version for one in graph.opset_import] == [17] and graph.ir_version <= 8
    metadata = {one.key: one.value for one in graph.metadata_props}
    assert json.loads(metadata["classes"])[:2] == ["sky", "building"] and metadata["stride"] == "4"
    assert json.loads(metadata["colours"])[0] == [128, 128, 128] and json.loads(metadata["mean"])[0] == 123.675
    assert json.loads(metadata["notices"]) == ["whose"] and metadata["sha256"] == model.card.checksum
    with build_engine(EngineConfig(weights=str(weights), interval=0, fusion=False, runtime="eager")) as engine:
        own = engine.stream().step(Frame(image, 0)).labels
    again = open_model(path)
    assert again.networks["segmenter"].output == "scores" and again.card.output.stride == 4
    with build_engine(EngineConfig(weights=str(path), interval=0, fusion=False, runtime="onnxruntime")) as engine:
        assert engine.classes.names == model.card.classes.names
        assert (engine.classes.lut == model.card.classes.lut).all()
        assert np.mean(engine.stream().step(Frame(image, 0)).labels == own) > 0.999


def test_for_the_node_of_nav2(weights, image, tmp_path):
    """As its documentation says: `input`, ImageNet's statistics, a class 0 `background`, as large as the picture."""
    model = open_model(weights)
    made = export(model, tmp_path / "net.onnx", SIZE, [image], classes=model.card.classes, background=True)
    session = ort.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
    x = (image.transpose(2, 0, 1) / np.float32(255) - np.float32([0.485, 0.456, 0.406])[:, None, None]) / np.float32(
        [0.229, 0.224, 0.225]
    )[:, None, None]
    output = session.run(None, {"input": x[None].astype(np.float32)})[0]
    assert output.shape == (1, 12, 96, 160)
    ids = output.argmax(1)[0]
    assert ids.min() >= 1  # no pixel is background
    plain = export(model, tmp_path / "plain.onnx", SIZE, [image], classes=model.card.classes)
    other = ort.InferenceSession(str(plain.path), providers=["CPUExecutionProvider"])
    assert np.array_equal(other.run(None, {"input": x[None].astype(np.float32)})[0].argmax(1)[0], ids - 1)
    listed = yaml.safe_load(made.ontology.read_text())
    assert [one["name"] for one in listed["ontology"]["classes"]] == list(model.card.classes.names)
    assert listed["ontology"]["classes"][3]["color"] == [int(v) for v in model.card.classes.colors[3][::-1]]


def test_what_cannot_be_exported(weights, image, tmp_path, monkeypatch):
    model = open_model(weights)
    table = model.card.classes
    with pytest.raises(ConfigError, match="size: expected multiples of 32, got 100 x 96"):
        export(model, tmp_path / "net.onnx", (96, 100), [image], classes=table)
    with pytest.raises(ConfigError, match="expected a file name that ends in .onnx"):
        export(model, tmp_path / "net.pt", SIZE, [image], classes=table)
    monkeypatch.setattr(onnx_export, "_agreement", lambda *_: 0.5)
    with pytest.raises(CheckpointError, match=r"not written: expected ONNX Runtime to give .* found 50.000%"):
        export(model, tmp_path / "net.onnx", SIZE, [image], classes=table)
    assert not list(tmp_path.iterdir())


def test_at_the_command_line(weights, tmp_path, capsys):
    target = tmp_path / "net.onnx"
    assert cli.main(["weights", "export", str(weights), str(target), "--size", "64x96", "--nav2"]) == 0
    said = capsys.readouterr().out
    assert "net.onnx: 12 classes at 96 x 64" in said and "agree on" in said and "net.ontology.yaml" in said
    assert cli.main(["weights", "export", str(weights), str(target), "--size", "65x96"]) == 2
