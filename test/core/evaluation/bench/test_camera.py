"""A camera in real time, played for a moment."""

import subprocess

import pytest

from vidseg_core.engine.config import EngineConfig
from vidseg_core.evaluation.bench import camera
from vidseg_core.evaluation.replay.live import Log, Output


@pytest.mark.long
def test_governor_and_fixed_configurations_are_played_in_turn(monkeypatch, tmp_path):
    from vidseg_core.classes import load_classes
    from vidseg_core.models.files import save_weights
    from vidseg_core.networks.swiftnet import SwiftNet

    path = tmp_path / "untrained.safetensors"
    metadata = {"architecture": "swiftnet-r18", "classes": load_classes("camvid").to_dict()}
    save_weights(path, SwiftNet(11).state_dict(), metadata)
    monkeypatch.setattr(camera, "FIXED", (camera.Fixed("sync", 4, 0.5),))
    told = []
    config = EngineConfig(weights=str(path), runtime="eager")
    report = camera.bench_camera(config, (320, 240), 10.0, 3.0, 0, told.append, rounds=2)
    assert report["best"] == "sync, interval 4, 0.5 of the rows"
    assert len(report["sweep"]) == 1 and len(told) == 1 + 1 + 2 * 4
    for kind in ("governor", "fixed"):
        for load in ("alone", "busy"):
            one = report[kind][load]
            assert 0 < one["labelled"] <= 100 and 0 < one["latency_ms"]["p50"] <= one["latency_ms"]["p99"]
            assert one["streaming_miou"] == min(one["streaming_mious"]) and len(one["streaming_mious"]) == 2
            assert (one["back_s"] is None) == (load == "alone")
            assert one["memory_mb"] > 50 and one["first_label_s"] > 0 and 0 <= one["streaming_miou"] <= 100
    lines = camera.table([report]).splitlines()
    assert len(lines) == 5 and "governor" in lines[1] and "sync, interval 4" in lines[2]


def test_the_rate_is_back_once_no_second_lacks_frames():
    arrivals = [camera.Arrival(round(i * 1e8), None) for i in range(100)]
    all_labelled = [Output(one.at_ns, 0, 0, None) for one in arrivals]
    log = Log(2, 10**8)
    log.outputs = all_labelled
    assert camera._back_s(log, arrivals, 3.0, 10.0) == 0.0
    log.outputs = [one for i, one in enumerate(all_labelled) if i not in (10, 35, 42)]
    assert camera._back_s(log, arrivals, 3.0, 10.0) == 1.3  # the second from 4.3 s on is the first to be whole for good


def test_frames_go_there_and_back_without_a_jump():
    arrivals = camera._street((320, 240), 10.0, 20.0, 0)
    assert [one.at_ns for one in arrivals[:3]] == [0, 100_000_000, 200_000_000]
    assert len(arrivals) == 200
    images = [one.frame.image for one in arrivals]
    assert images[79] is not images[78] and images[80] is images[78] and images[158] is images[0]


@pytest.mark.parametrize("after_s", [None, 60.0])
def test_a_busy_loop_ends_with_the_run(after_s, monkeypatch):
    started, popen = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *given: started.append(popen(*given)) or started[-1])
    with camera._busy(after_s):
        assert [one.poll() for one in started] == [None] * (after_s is not None)
    assert all(one.poll() is not None for one in started)
