"""8 bit integers for the convolutions of ONNX files: what they meet is measured, kept beside the file, and used."""

import json

import cv2
import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx", reason="needs the extra `onnx`")
ort = pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
pytest.importorskip("openvino")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from vidseg_core.backends import choose, probe  # noqa: E402
from vidseg_core.cli import main as cli  # noqa: E402
from vidseg_core.engine.build import build_engine  # noqa: E402
from vidseg_core.engine.config import EngineConfig  # noqa: E402
from vidseg_core.errors import CheckpointError, ConfigError  # noqa: E402
from vidseg_core.frame import Frame  # noqa: E402
from vidseg_core.models.open import open_model  # noqa: E402

MEAN, STD = np.float32([120, 110, 100]), np.float32([60, 50, 40])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A network of three convolutions, one of them of each channel by itself, in half precision; and pictures."""
    folder = tmp_path_factory.mktemp("net")
    rng = np.random.default_rng(0)

    def weights(name, *shape):
        return numpy_helper.from_array(rng.normal(scale=0.5, size=shape).astype(np.float16), name)

    nodes = [
        helper.make_node("Cast", ["first16"], ["first"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["each16"], ["each"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["last16"], ["last"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "first"], ["a"], strides=[4, 4]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "each"], ["c"], group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c", "last"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5, None, None])],
        [weights("first16", 8, 3, 4, 4), weights("each16", 8, 1, 3, 3), weights("last16", 5, 8, 1, 1)],
    )  # fmt: skip
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    path.with_suffix(".card.yaml").write_text(
        f"classes: [a, b, c, d, e]\ninput: {{mean: {MEAN.tolist()}, std: {STD.tolist()}, multiple: 4}}\n"
    )
    (folder / "pictures").mkdir()
    for k in range(3):
        coarse = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "pictures" / f"{k}.png"), np.kron(coarse, np.ones((8, 8, 1), np.uint8)))
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "cache_directory", lambda: tmp_path / "cache" / "openvino")
    monkeypatch.setattr(probe, "in_a_process_of_its_own", lambda asked: "\n".join(probe.trials(asked)))


def met(path):
    """The smallest and the largest value of what each convolution is given, by ONNX Runtime."""
    model = onnx.load(path)
    for name in ("b", "c"):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = {}
    for picture in sorted((path.parent / "pictures").glob("*.png")):
        x = (cv2.imread(str(picture))[..., ::-1] - MEAN) / STD
        given = {"x": np.ascontiguousarray(x.transpose(2, 0, 1)[None], np.float32)}
        for name, value in zip(("a", "c", "y"), (given["x"], *session.run(["b", "c"], given)), strict=True):
            before = found.get(name, (value.min(), value.max()))
            found[name] = min(before[0], value.min()), max(before[1], value.max())
    return found


def test_expected_accuracy_of_a_file_of_others_stays_beside_it(made, capsys, monkeypatch):
    monkeypatch.setattr("vidseg_core.evaluation.ladder.RUNS", 2)
    measured, pictures = made.with_suffix(".accuracy.json"), str(made.parent / "pictures")
    assert cli.main(["weights", "calibrate", str(made), str(made.with_suffix(".json")), "--ladder", pictures]) == 2
    assert f"expected {measured}" in capsys.readouterr().err
    assert open_model(made).card.accuracy is None
    assert cli.main(["weights", "calibrate", str(made), str(measured), "--ladder", pictures]) == 0
    assert f"{measured}: measured on 3 frames" in capsys.readouterr().out
    accuracy = open_model(made).card.accuracy
    assert [rows for rows, _ in accuracy.rows] == [22, 32, 45, 64]
    kept = json.loads(measured.read_text())
    measured.write_text(json.dumps(kept | {"sha256": "0" * 64}))
    with pytest.raises(CheckpointError, match=r"was measured with another network than net\.onnx"):
        open_model(made)
    measured.write_text("{}")
    with pytest.raises(CheckpointError, match=r"net\.accuracy\.json: accuracy: expected rows"):
        open_model(made)
    measured.unlink()


def test_integers_for_a_file_of_others(made, capsys, monkeypatch):
    ranges, pictures = made.with_suffix(".ranges.json"), str(made.parent / "pictures")
    with pytest.raises(ConfigError, match="openvino_int8 needs weights that tell their activation ranges"):
        build_engine(EngineConfig(weights=str(made), runtime="openvino_int8", device="cpu"))
    assert cli.main(["weights", "calibrate", str(made), str(made.with_name("other.json")), "--data", pictures]) == 2
    assert "expected" in capsys.readouterr().err
    assert cli.main(["weights", "calibrate", str(made), str(ranges), "--data", pictures]) == 0
    said = capsys.readouterr().out
    assert "3 convolutions have seen 3 pictures" in said and "openvino int8" in said
    kept = json.loads(ranges.read_text())
    expected = met(made)
    assert set(kept["activation_ranges"]) == set(expected)
    for name, limits in expected.items():
        assert kept["activation_ranges"][name] == pytest.approx(limits, rel=1e-3, abs=1e-3)
    assert all(share > 0.95 for share in kept["agreement_with_float32"].values())
    image = cv2.imread(str(made.parent / "pictures" / "0.png"))[..., ::-1].copy()
    labels = {}
    for runtime in ("onnxruntime", "openvino_int8"):
        config = EngineConfig(weights=str(made), interval=0, fusion=False, runtime=runtime, device="cpu")
        with build_engine(config) as engine:
            labels[runtime] = engine.stream().step(Frame(image, 0)).labels
            assert runtime == "onnxruntime" or engine.runtimes()["segmenter"].startswith("openvino int8")
    assert 0.95 < np.mean(labels["onnxruntime"] == labels["openvino_int8"])
    monkeypatch.setattr("vidseg_core.backends.openvino.integer_instructions", lambda: True)
    network = open_model(made).networks["segmenter"]
    runtime = choose.Runtime("auto", torch.device("cpu"), 1)
    tried = runtime._foreign_backends(network, "segmenter", {"a": (0.0, 1.0)})
    assert [one.name for one in tried] == ["onnxruntime", "openvino_int8"]
    assert [one.name for one in runtime._foreign_backends(network, "segmenter", None)] == ["onnxruntime", "openvino"]
    ranges.write_text(json.dumps(kept | {"sha256": "0" * 64}))
    with pytest.raises(CheckpointError, match="was measured with another network than net.onnx"):
        open_model(made)
    ranges.write_text("{")
    with pytest.raises(CheckpointError, match="expected JSON with activation_ranges"):
        open_model(made)
