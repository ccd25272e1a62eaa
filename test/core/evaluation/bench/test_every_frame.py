import json

import pytest
import torch

from vidseg_core.classes import load_classes
from vidseg_core.cli import main as cli
from vidseg_core.engine.config import EngineConfig
from vidseg_core.evaluation.bench import asynchronous, every_frame
from vidseg_core.evaluation.bench.every_frame import bench_every_frame, describe
from vidseg_core.models.files import save_weights
from vidseg_core.networks.swiftnet import SwiftNet

SIZE = 240, 320


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    torch.manual_seed(0)
    metadata = {"architecture": "swiftnet-r18", "classes": load_classes("camvid").to_dict()}
    save_weights(path, SwiftNet(11, "r18", 16).state_dict(), metadata)
    return path


def test_video_and_every_frame_are_timed_on_the_same_frames(weights, monkeypatch):
    def timed(stream, frame):  # as if the clock said so
        result = stream.step(frame)
        return (30.0 if result.is_key else 3.0), result.labels

    monkeypatch.setattr(every_frame, "_timed", timed)
    config = EngineConfig(weights=weights, device="cpu", runtime="eager")
    report = bench_every_frame(config, interval=2, size=SIZE, rounds=1)
    assert report["runtime"] == "eager" and report["interval"] == 2 and report["size"] == [240, 320]
    assert (report["every_frame_ms"], report["key_ms"], report["propagated_ms"]) == (30, 30, 3)
    assert report["video_vs_every_frame"] == 2.5 and report["spread"] == [2.5, 2.5]
    assert report["every_frame_hz"] == pytest.approx(1000 / 30) and report["video_hz"] == pytest.approx(1000 / 12)
    assert 0 < report["agreement"] < 1
    for name in ("every_frame", "video", "oldest_every_frame", "oldest"):
        assert 0 <= report[f"{name}_miou"] < 30  # an untrained network
    assert "video has 2.50 times the frames per second" in describe(report)


def test_networks_of_others_are_compared_with_themselves(weights, tmp_path, monkeypatch, capsys):
    onnx = pytest.importorskip("onnx", reason="needs the extra `onnx`")
    pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from vidseg_core.backends import probe

    # Tried in this process, which is faster.
    monkeypatch.setattr(probe, "cache_directory", lambda: tmp_path / "cache" / "openvino")
    monkeypatch.setattr(probe, "in_a_process_of_its_own", lambda asked: "\n".join(probe.trials(asked)))
    kernel = np.random.default_rng(0).normal(size=(5, 3, 4, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "kernel"], ["y"], strides=[4, 4])], "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5, None, None])],
        [numpy_helper.from_array(kernel, "kernel")],
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    path.with_suffix(".card.yaml").write_text(
        "classes: [a, b, c, d, e]\ninput: {mean: [120.0, 110.0, 100.0], std: [60.0, 50.0, 40.0]}\n"
    )
    monkeypatch.setattr(asynchronous, "bench_async", lambda config, **given: given["size"] and ASYNCHRONOUS)
    target = tmp_path / "bench.json"
    given = ["--size", "320x240", "--rounds", "1", "--interval", "1", "--json", str(target)]
    assert cli.main(["bench", "--weights", str(path), *given]) == 0
    report = json.loads(target.read_text())
    assert report["interval"] == 1 and report["video_miou"] is None  # other classes than the street's
    assert report["async_p99_ms"] == 2.0
    said = capsys.readouterr().out
    assert "times the frames per second" in said and "mIoU" not in said and "320 x 240 at 30 Hz" in said


ASYNCHRONOUS = {
    "async_p99_over_median": 2.0, "async_key_ratio": 0.5, "async_median_over_sync_non_key": 1.0, "async_median_ms": 1.0,
    "async_p99_ms": 2.0, "async_oldest_labels": 3.0, "sync_non_key_median_ms": 1.0, "sync_non_key_p99_over_median": 1.1,
    "async_rounds": [{"async_p99_over_median": 2.0}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["video", "--size", "big"], "expected WIDTHxHEIGHT, got 'big'"),
        (["video", "--case", "480"], "--case: it belongs to bench engine"),
        (["--size", "320x240"], "--size: it belongs to bench video"),
        (["video", "--interval", "0"], "--interval: expected 1 or more, got 0"),
    ],
)
def test_bad_arguments(weights, capsys, arguments, message):
    try:
        assert cli.main(["bench", "--weights", str(weights), *arguments]) == 2
    except SystemExit as end:
        assert end.code == 2
    assert message in capsys.readouterr().err


def test_defaults_are_those_of_a_camera():
    assert (every_frame.INTERVAL, every_frame.SIZE, every_frame.RATE_HZ) == (9, (512, 1024), 30.0)
