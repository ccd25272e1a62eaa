"""The run on a card, as far as it goes without one."""

import importlib.util
import json
import os

import pytest
import torch

from vidseg_core.evaluation.bench import gpu, gpu_frames


def test_without_a_card_it_says_so(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    with pytest.raises(SystemExit, match="2"):
        gpu.main([])
    assert "no CUDA device" in capsys.readouterr().err


def test_what_streams_of_a_card_do_at_the_same_time_counts_once():
    assert gpu_frames.united([(4.0, 6.0), (0.0, 3.0), (1.0, 2.0), (5.0, 8.0)]) == 7.0
    assert gpu_frames.united([]) == 0.0


def test_goals_are_told():
    """One of each kind: at most, and at least; copies by the host are left out."""
    kernels = {name: {"us": 9.0, "floor_us": 100.0} for name in gpu.PROPAGATED}
    kernels["image into pinned memory, by the host"] = {"us": 500.0}
    frames = {
        "engine: propagated frame, whole, ms": 1.4, "engine: propagated frame, replay, ms": 0.8,
        "engine: key frame, whole, ms": 3.0, "engine: loop, ms": 8.6, "plain half: loop, ms": 17.2,
        "plain operations: loop, ms": 86.0, "engine: labels as on the CPU, worst frame": 0.996,
    }  # fmt: skip
    report = {
        "frames": frames, "kernels": kernels, "camera": {"async": {"p50": 2.0, "p99": 2.4}},
        "four cameras": {"busy, share of wall time": 0.3},
    }  # fmt: skip
    found = {name: (round(goal["value"], 6), goal["reached"]) for name, goal in gpu.goals(report).items()}
    assert found == {
        "propagated frame less the copy into pinned memory, ms": (0.9, True),
        "propagated frame: replay over the floor of its kernels": (2.0, True),
        "key frame, ms": (3.0, False),
        "loop: plain half over engine": (2.0, False),
        "asynchronous: p99 over median": (1.2, True),
        "four cameras of 1920 x 1080: busy": (0.3, True),
        "labels as on the CPU": (0.996, True),
        "loop: eager, plain operations over engine": (10.0, True),
    }


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
    assert report["frames"]["engine: propagated frame, replay, ms"] > 0  # recorded, and by interpreted kernels
    assert {"torch", "triton", "driver", "cudnn"} <= set(report) and len(report["goals"]) == 7
    assert set(report["asked for"]) == {"key frame", "propagated frame"}
    assert report["camera"]["async"]["p99"] >= report["camera"]["async"]["p50"] > 0
    assert all(one["us"] > 0 for one in report["kernels"].values()) and len(report["kernels"]) > 15
    assert "BAD" not in capsys.readouterr().out
