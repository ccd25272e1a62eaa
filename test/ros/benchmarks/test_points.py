"""The measurement of labelled points runs and prints a row for each kind of source."""

import re

import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from vidseg_ros.benchmarks import points  # noqa: E402


def test_every_kind_of_source_is_measured(capsys):
    assert points.main(["--size", "40x30", "--repeats", "3", "--threads", "1"]) == 0
    first, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith("1200 points, 1 threads")
    names = ["depth 16UC1", "depth 32FC1", "cloud, organised", "cloud, one row"]
    for name, row in zip(names, rows, strict=True):
        median, worst95, worst, message = map(float, re.fullmatch(rf"{name} +(.+)", row)[1].split())
        assert 0 <= message <= median <= worst95 <= worst
