"""The run on a card, as far as it goes without one."""

import importlib.util
import json
import os

import pytest
import torch

from vidseg_core.evaluation.bench import gpu


def test_without_a_card_it_says_so(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    with pytest.raises(SystemExit, match="2"):
        gpu.main([])
    assert "no CUDA device" in capsys.readouterr().err


def test_a_rehearsal_wants_the_interpreter(monkeypatch, capsys):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--rehearse"])
    assert "expected TRITON_INTERPRET=1" in capsys.readouterr().err


@pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1" or importlib.util.find_spec("triton") is None,
    reason="needs Triton's interpreter (`make test-triton`)",
)
def test_it_is_rehearsed_end_to_end(tmp_path, capsys):
    assert gpu.main(["--rehearse", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "rehearsal.json").read_text())
    assert len(report["checks"]) >= 11 and all(check["good"] for check in report["checks"].values())
    assert report["checks"]["decode: share of labels that differ"]["value"] == 0
    assert report["frames"]["engine: labels as on the CPU, worst frame"] > 0.97  # on the CPU `auto` may take integers
    assert "BAD" not in capsys.readouterr().out
