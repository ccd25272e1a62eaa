"""The measurement of ways from a camera to the node: that it runs, and what it has its processes use."""

import json
import os
import sys

import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from vidseg_ros.benchmarks import ways
from vidseg_ros.benchmarks.transport import Load, Result
from vidseg_ros.transport import PROFILE_VARIABLES, profile_path

NEW = "FASTDDS_DEFAULT_PROFILES_FILE"


@pytest.mark.long
def test_rows_are_measured(ros_environment, tmp_path, capfd):
    path = tmp_path / "ways.json"
    rows = ["shared memory", "UDP, JPEG, reliable", "node of other ROS"]  # the other is this one again
    arguments = ["--sizes", "128x96", "--rate", "20", "--seconds", "1", "--other", sys.executable, "--json", str(path)]
    assert ways.main(["--ways", *rows, *arguments]) == 0
    content = json.loads(path.read_text())
    assert [row["way"] for row in content["rows"]] == rows
    assert all(row["sent"] == 20 and 0 < row["received"] <= 20 for row in content["rows"])
    printed = capfd.readouterr().out.splitlines()
    assert "net.core.rmem_max" in printed[0] and printed[2].startswith("shared memory") and "128x96" in printed[2]


def test_every_remedy_is_a_row():
    assert {way.remedy for way in ways.WAYS.values()} <= {"", *ways.WAYS}


def test_udp_has_the_profile_without_shared_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/of/this/ros")
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA")
    ours, others = ways.environments(ways.UDP, tmp_path)
    text = (tmp_path / "udp.xml").read_text()
    used, whole = text.split("<userTransports>")[1], profile_path().read_text()
    assert "images_shm" not in used and "images_udp" in used and len(text) == len(whole) - len(ways.SHARED_MEMORY)
    assert ours[NEW] == str(tmp_path / "udp.xml") and ours["LD_LIBRARY_PATH"] == "/of/this/ros"
    assert all(others[name] == str(tmp_path / "udp.xml") for name in PROFILE_VARIABLES)
    assert not {"LD_LIBRARY_PATH", "FASTDDS_BUILTIN_TRANSPORTS"} & others.keys()
    assert others["PYTHONPATH"].split(os.pathsep)[0] == str(ways.ROOT)


def test_with_and_without_the_profile(tmp_path):
    assert ways.environments(ways.PROFILE, tmp_path)[0][NEW] == str(profile_path())
    assert not any(name in one for one in ways.environments(ways.BARE, tmp_path) for name in PROFILE_VARIABLES)


def test_the_remedy_is_shown_where_frames_are_missing():
    load, latency = Load(1280, 720, 10.0, 40), {"p50": 5.0, "p95": 9.0, "max": 11.0}
    whole, lossy = (ways.row("UDP, best effort", load, Result(40, got, latency, 0.1)) for got in (40, 33))
    assert whole.split() == ["UDP,", "best", "effort", "1280x720", "2.8", "40", "40", "5.0", "9.0"]
    assert lossy.endswith("  UDP, reliable")
    assert ways.row("no profile", load, Result(40, 0, None, 0.1)).endswith("-        -  shared memory")


@pytest.mark.parametrize(("way", "needed"), [("Cyclone, reliable", "--cyclone"), ("node of other ROS", "--other")])
def test_a_row_without_its_interpreter_is_refused(way, needed, capsys):
    with pytest.raises(SystemExit):
        ways.main(["--ways", way])
    assert f"'{way}' needs {needed}" in capsys.readouterr().err


def test_the_picture_of_a_compressed_camera(ros):
    import cv2

    from vidseg_core.data.wire import parse_compressed
    from vidseg_ros.benchmarks.processes import compressed

    view = parse_compressed(bytes(compressed(64, 48)))
    assert (view.format, view.frame_id) == ("jpeg", "camera")
    assert cv2.imdecode(view.data, cv2.IMREAD_COLOR).shape == (48, 64, 3)
