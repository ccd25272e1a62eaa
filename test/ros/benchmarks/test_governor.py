"""The measurement of the governor's answers: its figures are what they are called."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from vidseg_ros.benchmarks import governor  # noqa: E402
from vidseg_ros.benchmarks.governor import Labelled, Phase, phase_of  # noqa: E402

RATE_HZ = 10.0


def frames_of(step, begin_s, end_s, every_s=0.1):
    count = round((end_s - begin_s) / every_s)
    return [Labelled(begin_s + (index + 0.5) * every_s, step) for index in range(count)]


def test_moves_and_rates_of_a_phase():
    frames = [
        *frames_of("large", 100, 105),
        *frames_of("large", 105, 106.5, 0.3),  # half of the time for frames is gone
        *frames_of("small", 106.5, 112),
        *frames_of("large", 112, 120),
    ]
    settled, taken, back = (
        phase_of(name, frames, begin_s, end_s, RATE_HZ)
        for name, begin_s, end_s in (("settled", 100, 105), ("taken", 105, 110), ("back", 110, 120))
    )
    assert settled == Phase("settled", 5, 10.0, 0.0, ())
    assert taken == Phase("taken", 5, 8.0, 2.0, ((1.55, "small"),))
    assert back == Phase("back", 10, 10.0, 0.0, ((2.05, "large"),))
    lines = governor.table([settled, taken, back]).splitlines()
    assert lines[2].split() == ["taken", "5.0", "8.00", "2", "s", "1", "1.55", "s"]
    assert lines[3].split() == ["1.55", "s", "small"]


def test_a_rate_that_is_not_kept_at_the_end():
    frames = [*frames_of("large", 0, 4), *frames_of("large", 4, 5, 0.3)]
    assert phase_of("busy", frames, 0, 5, RATE_HZ).kept_s is None


@pytest.mark.long
def test_a_governor_is_measured(ros_environment, tmp_path, capsys):
    path = tmp_path / "governor.json"
    given = ["--size", "320x240", "--rate", "5", "--seconds", "1", "1", "1", "-p", "num_threads:=1"]
    assert governor.main([*given, "--json", str(path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("320 x 240 at 5 Hz") and printed[1].split()[0] == "seconds"
    assert path.is_file()
