"""The measurement of several cameras: that it runs, and that its figures are what they are called."""

import json
import re

import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from vidseg_ros.benchmarks import cameras as bench_cameras


@pytest.mark.long
def test_two_cameras_on_one_node_are_measured(ros_environment, tmp_path, capfd):
    path = tmp_path / "cameras.json"
    arguments = ["--cameras", "2", "--size", "128x96", "--rate", "20", "--seconds", "1", "--json", str(path)]
    assert bench_cameras.main([*arguments, "-p", "engine:=pass_through"]) == 0
    content = json.loads(path.read_text())
    assert content["load"] == {"width": 128, "height": 96, "rate_hz": 20.0, "num_frames": 20}
    assert content["parameters"] == ["engine:=pass_through"] and list(content["results"]) == ["2"]
    result = content["results"]["2"]
    assert result["sent"] == 20 and 0 < result["labelled"] <= 20
    assert 0 < result["least_labelled"] <= result["labelled"] / 20
    assert result["cpu_ms"] >= 0 and 20 < result["memory_mb"] < 4000
    assert re.search(r"^ +2 +20 +\d+ +\d+% ", capfd.readouterr().out, re.MULTILINE)


def test_shares_are_each_cameras_own():
    sent = [10, 20, 30, 40]  # in turn: 10 and 30 of one camera, 20 and 40 of the other
    arrivals = [(5, 6), (10, 11), (30, 32), (20, 23)]
    result = bench_cameras.result_of(2, sent, arrivals, cpu_s=0.6, memory_mb=100.4)
    assert (result.sent, result.labelled, result.least_labelled) == (4, 3, 0.5)
    assert result.cpu_ms == 200.0 and result.memory_mb == 100


def test_ratios_are_to_the_first():
    one = bench_cameras.Result(4, 4, 1.0, 20.0, {"p50": 1.0, "p95": 2.0, "max": 3.0}, 800.0)
    two = bench_cameras.Result(4, 2, 0.5, 30.0, None, 1000.0)
    lines = bench_cameras.table({1: one, 2: two}).splitlines()
    assert lines[1].split() == ["1", "4", "4", "100%", "20.0", "1.00", "1.0", "2.0", "800", "1.00"]
    assert lines[2].split() == ["2", "4", "2", "50%", "30.0", "1.50", "nan", "nan", "1000", "1.25"]


@pytest.mark.parametrize("arguments", [["--cameras", "0"], ["--cameras", "17"], ["-p", "interval"]])
def test_what_cannot_be_measured_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        bench_cameras.main(arguments)
    assert error.value.code == 2 and "expected" in capsys.readouterr().err
