import pytest
import torch

from vidseg_core.classes import load_classes
from vidseg_core.engine.config import EngineConfig
from vidseg_core.evaluation.bench.propagated import STAGES, Case, bench_propagated, stage_bytes, table
from vidseg_core.models.files import save_weights
from vidseg_core.networks.swiftnet import SwiftNet


def test_bytes_are_those_of_pictures_motions_and_labels():
    counted = stage_bytes(Case((1024, 2048), 4), classes=11, mixed=0.25, working=(256, 512))
    pixels, grid = 1024 * 2048, 256 * 512
    assert counted["overlay"] == 7 * pixels and counted["warp"] == 24 * grid
    assert counted["decode"] == 9 * grid + 11 * grid + pixels
    assert counted["prepare"] == pytest.approx(3 * pixels + 2 * grid + 16 / 3 * grid)
    assert counted["flow"] == pytest.approx(2 * 16 / 3 * grid + 8 * grid)


def test_every_stage_is_timed_with_all_threads_and_with_one(tmp_path):
    torch.manual_seed(0)
    metadata = {"architecture": "swiftnet-r18", "classes": load_classes("camvid").to_dict()}
    path = tmp_path / "net.safetensors"
    save_weights(path, SwiftNet(11, "r18", 16).state_dict(), metadata)
    config = EngineConfig(weights=path, device="cpu", runtime="eager", num_threads=2)
    report = bench_propagated(config, [Case((240, 320), 8)], rounds=1)
    assert [row["threads"] for row in report["rows"]] == [2, 1]
    for row in report["rows"]:
        assert tuple(row["stages"]) == STAGES and row["case"] == "320 x 240, logits at 1/8" and row["gb_s"] > 0
        parts = {name: stage for name, stage in row["stages"].items() if name not in ("frame", "rest")}
        assert all(0 < stage["ms"] <= stage["median_ms"] and stage["share"] > 0 for stage in parts.values())
        frame = row["stages"]["frame"]
        assert frame["mb"] == pytest.approx(sum(stage["mb"] for stage in parts.values()))
        assert frame["ms"] > sum(stage["ms"] for stage in parts.values()) > 0
        assert frame["floor_ms"] == pytest.approx(frame["mb"] / row["gb_s"])
    assert "320 x 240, logits at 1/8, threads: 1" in table(report)
