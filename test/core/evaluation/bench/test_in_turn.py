import pytest
import torch

from vidseg_core.classes import load_classes
from vidseg_core.engine.config import EngineConfig
from vidseg_core.errors import ConfigError
from vidseg_core.evaluation.bench.in_turn import HERE, Pairing, bench_in_turn, compared, table
from vidseg_core.evaluation.bench.propagated import Case
from vidseg_core.models.files import save_weights
from vidseg_core.networks.swiftnet import SwiftNet


def test_ratios_are_those_of_all_frames_and_their_spread_is_that_of_rounds():
    def side(*frames):
        return {"flow": [1.0, 2.0], "frame": list(frames)}

    row = compared([(side(2.0, 4.0), side(6.0, 6.0)), (side(3.0, 5.0), side(4.0, 8.0))])
    assert row["ratio"] == pytest.approx(3.5 / 6.0) and row["ratio_shortest"] == pytest.approx(2.0 / 4.0)
    assert row["spread"] == pytest.approx([3.0 / 6.0, 4.0 / 6.0])
    assert row["here"]["stages"] == {"flow": [1.0, 1.5], "frame": [2.0, 3.5]}
    report = {"versions": {"here": "2", "there": "1"}, "processor": "P"}
    text = table(report | {"rows": [{"case": "small", "threads": 2, "asked": 0.7} | row]})
    assert "2 (here) against 1" in text and "0.50 (0.58)   0.50 .. 0.67       0.70" in text


@pytest.mark.parametrize("where", [HERE, HERE / "test"])
def test_only_another_checkout_is_compared_with(where):
    with pytest.raises(ConfigError, match="expected a(nother)? checkout"):
        bench_in_turn(EngineConfig(), where)


@pytest.mark.long
def test_two_processes_take_turns(tmp_path):
    torch.manual_seed(0)
    metadata = {"architecture": "swiftnet-r18", "classes": load_classes("camvid").to_dict()}
    weights = tmp_path / "net.safetensors"
    save_weights(weights, SwiftNet(11, "r18", 16).state_dict(), metadata)
    other = tmp_path / "other"
    other.mkdir()
    (other / "vidseg_core").symlink_to(HERE / "vidseg_core")
    config = EngineConfig(weights=weights, device="cpu", runtime="eager")
    pairings = [Pairing(Case((240, 320), 8), 1, None)]
    report = bench_in_turn(config, other, pairings, rounds=2)
    (row,) = report["rows"]
    assert row["case"] == "320 x 240, logits at 1/8, one thread" and row["threads"] == 1
    assert {"prepare", "flow", "warp", "decode", "overlay", "rest", "frame"} <= set(row["here"]["stages"])
    assert set(row["here"]["stages"]) == set(row["there"]["stages"])
    assert row["ratio"] == pytest.approx(row["here"]["median_ms"] / row["there"]["median_ms"])
