from types import SimpleNamespace

import pytest
import torch

from vidseg_core.classes import load_classes
from vidseg_core.cli import main as cli
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.errors import ConfigError
from vidseg_core.evaluation.bench.against_plain import (
    CASES,
    LOOP,
    NON_KEY,
    SAME,
    Case,
    bench,
    headline,
    run_case,
    table,
    untrained_refinement,
)
from vidseg_core.models.files import save_weights
from vidseg_core.networks.swiftnet import SwiftNet


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    torch.manual_seed(0)
    save_weights(
        path, SwiftNet(11).state_dict(), {"architecture": "swiftnet-r18", "classes": load_classes("camvid").to_dict()}
    )
    return path


def test_the_engine_and_the_plain_pipeline_compute_the_same(weights):
    case = Case("small", (256, 320), 0.5, 8, "light", True, fusion=False)  # scores come on the grid
    engine = build_engine(EngineConfig(weights=weights, device="cpu", runtime="eager"))
    row = run_case(case, engine, interval=2, rounds=2)
    assert row["label_agreement"] > 0.999
    stages = row["stages"]
    assert {"key.segment", "key.frame", "non_key.flow", "non_key.warp", "non_key.refine", "loop"} <= set(stages)
    for stage in ("key.segment", "non_key.decode", "loop"):
        assert stages[stage]["spread"][0] <= stages[stage]["ratio"] <= stages[stage]["spread"][1]
    assert stages["key.frame"]["ms"] > stages["key.segment"]["ms"] > 0
    assert row["loop_vs_eager"] == stages["loop"]["ratio"] and row["non_key_ms"] > 0
    assert "whole loop" in table({"processor": "P", "runtime": "eager", "rows": [row]})


def test_the_plain_pipeline_may_have_another_network_with_statistics_of_its_own(weights, tmp_path):
    case = Case("small", (256, 320), 0.5, 8, "light", False, fusion=False)
    path = tmp_path / "lite.safetensors"
    torch.manual_seed(1)
    metadata = {"architecture": "swiftnet-lite0", "classes": load_classes("camvid").to_dict(),
                "normalisation": {"mean_rgb": [127.0] * 3, "std_rgb": [128.0] * 3}}  # fmt: skip
    save_weights(path, SwiftNet(11, "lite0", 16).state_dict(), metadata)
    config = EngineConfig(weights=path, device="cpu", runtime="eager")
    same, other = (bench(config, [case], interval=1, rounds=1, plain_weights=plain) for plain in (None, str(weights)))
    assert same["rows"][0]["label_agreement"] > 0.999 and same["plain_weights"] is None
    assert other["rows"][0]["label_agreement"] < 0.9 and other["plain_weights"] == weights.name


def test_the_figures_that_are_read_first_come_from_the_cases_that_define_them():
    names = ("loop_vs_eager", "loop_vs_per_frame", "decode_vs_plain", "non_key_ms", "label_agreement")
    rows = [{"case": case.name} | {name: (name, number) for name in names} for number, case in enumerate(CASES)]
    assert CASES[:3] == (SAME, LOOP, NON_KEY)
    assert headline(rows) == {name: (name, {"non_key_ms": 2, "label_agreement": 0}.get(name, 1)) for name in names}
    assert headline([]) == dict.fromkeys(names)


def test_it_is_for_the_cpu(monkeypatch):
    elsewhere = SimpleNamespace(networks=SimpleNamespace(device=torch.device("cuda")))
    monkeypatch.setattr("vidseg_core.evaluation.bench.against_plain.build_engine", lambda config: elsewhere)
    with pytest.raises(ConfigError, match="device: expected cpu, for which the benchmark is written, got cuda"):
        bench(EngineConfig())


def test_untrained_refinement_hands_logits_on():
    warped = torch.randn(1, 11, 12, 16)
    with torch.inference_mode():
        refined = untrained_refinement(11)(warped, torch.randn(1, 3, 12, 16))
    torch.testing.assert_close(refined.logits, warped)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--rounds", "0"], "--rounds: expected 1 or more, got 0"), (["--case", "4096"], "expected part of one of")],
)
def test_bad_arguments(weights, capsys, arguments, message):
    assert cli.main(["bench", "--weights", str(weights), *arguments]) == 2
    assert message in capsys.readouterr().err
