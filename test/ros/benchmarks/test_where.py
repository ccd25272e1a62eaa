"""The table of where the time goes: that it runs, and that its figures are what they are called."""

import json
import re

import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from vidseg_ros.benchmarks import where
from vidseg_ros.benchmarks.transport import Load, Result

MS = 1_000_000
MOMENTS = [where.STAGES[0].begin, *(stage.end for stage in where.STAGES)]


@pytest.mark.long
def test_a_stream_is_followed_through_all_processes(ros_environment, checkout, tmp_path, capfd):
    path, other = tmp_path / "where.json", tmp_path / "other"
    other.symlink_to(checkout)
    arguments = ["--size", "128x96", "--rate", "20", "--seconds", "1", "--json", str(path)]
    assert where.main([*arguments, "--against", str(other), "--rounds", "1"]) == 0
    content = json.loads(path.read_text())
    assert [row["what"] for row in content["rows"]] == [stage.what for stage in where.STAGES]
    assert content["sent"] == 20 and 0 < content["labelled"] <= 20
    assert 0 < content["latency_ms"]["p50"] <= content["latency_ms"]["p95"]
    assert all(row["floor_ms"] > 0 for row in content["rows"] if row["mb"] > 0)
    assert list(content["against"]) == [str(checkout), str(other)]
    assert all([turn["sent"] for turn in turns] == [20] for turns in content["against"].values())
    printed = capfd.readouterr().out
    assert "128 x 96 rgb8, 20 Hz" in printed and re.search(r"^all +stamp to callback", printed, re.MULTILINE)


def told(stamps, spans_ms):
    """Events of the three processes: each frame reaches its moments after so many milliseconds."""
    at = [{name: stamp + round(ms * MS) for name, ms in zip(MOMENTS, spans_ms, strict=True)} for stamp in stamps]
    notes = []
    for stamp, one in zip(stamps, at, strict=True):
        notes += [
            (where.TAKE, stamp, one["take begins"], one["taken"]),
            (where.PROCESS, stamp, one["worker begins"], one["heard"]),
            (where.WRITE, stamp, one["labels are there"], one["written"]),
            (where.PUBLISH, stamp, one["written"], one["published"]),
        ]
    return {
        "sent": {"stamps": stamps, "published": [(stamp, one["sent"]) for stamp, one in zip(stamps, at, strict=True)]},
        "notes": {"notes": notes},
        "heard": {
            "arrivals": [(stamp, one["heard"]) for stamp, one in zip(stamps, at, strict=True)],
            "taken": [(one["listener takes"], one["listener has"]) for one in at],
        },
    }


def test_the_stages_of_a_frame_add_up_to_its_latency():
    load = Load(100, 50, 10.0, 2)
    frames = where.moments(
        told([5_000 * MS, 6_000 * MS], [0, 2, 3, 7, 8, 9, 11, 12, 14, 20, 20.5]), [5_000 * MS, 6_000 * MS]
    )
    assert [frame["heard"] - frame["stamp"] for frame in frames] == [20.5 * MS] * 2
    rows = where.rows(frames, load, {5_000: 0.5, 15_000: 2.0})
    assert [row.p50_ms for row in rows] == [2, 1, 4, 1, 1, 2, 1, 2, 6, 0.5]
    assert [row.floor_ms for row in rows] == [4.0, 2.0, 4.0, None, None, 0.5, 1.0, 0.5, 1.5, None]
    assert [row.times_floor for row in rows] == [0.5, None, 1.0, None, None, 4.0, 1.0, None, None, None]
    lines = where.table(rows, {"p50": 20.5, "p95": 41.0}).splitlines()
    assert lines[3].split() == ["node", "takes", "the", "image", "0.0", "4.00", "4.00", "4.00", "1.00"]
    assert "p95 is 2.00 times p50" in lines[-1] and lines[-1].split()[-4:] == ["13.50", "20.50", "41.00", "1.52"]


def test_frames_that_did_not_come_through_are_left_out():
    events = told([5_000 * MS, 6_000 * MS], range(11))
    events["heard"] = {"arrivals": events["heard"]["arrivals"][1:], "taken": events["heard"]["taken"][1:]}
    [frame] = where.moments(events, [5_000 * MS, 6_000 * MS])
    assert frame["stamp"] == 6_000 * MS


def test_two_checkouts_are_compared_by_their_medians():
    ours = [Result(10, 10, {"p50": p50, "p95": 2 * p50, "max": 9.0}, 0.1) for p50 in (4.0, 8.0, 5.0)]
    other = [Result(10, 5, {"p50": 10.0, "p95": 11.0, "max": 12.0}, 0.1), Result(10, 0, None, 0.1)]
    lines = where.versus({"/here": ours, "/there/vidseg-0.1.0": other}).splitlines()
    assert lines[1].split() == ["here", "100.0%", "5.00", "10.00", "2.00", "4.00", "8.00", "5.00"]
    assert lines[2].split() == ["vidseg-0.1.0", "25.0%", "10.00", "11.00", "1.10", "10.00"]
    assert lines[3] == "p50 is 0.50 times the other's"
