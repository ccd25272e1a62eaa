"""The measurement of the transport: that it runs, and that its figures are what they are called."""

import json
import re

import pytest

from vidseg_ros.benchmarks import start, where
from vidseg_ros.benchmarks import transport as bench_transport
from vidseg_ros.transport import profile_path


@pytest.mark.long
def test_a_naive_node_and_ours_are_measured(ros_environment, tmp_path, monkeypatch, capfd):
    pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")
    monkeypatch.setattr(bench_transport, "VARIANTS", bench_transport.VARIANTS[1:3])
    path = tmp_path / "transport.json"
    arguments = ["--size", "128x96", "--rate", "20", "--seconds", "1", "--json", str(path)]
    assert bench_transport.main(arguments) == 0
    content = json.loads(path.read_text())
    assert content["load"] == {"width": 128, "height": 96, "rate_hz": 20.0, "num_frames": 20}
    assert list(content["results"]) == ["naive, reliable", "vidseg"]
    for name, result in content["results"].items():
        assert result["sent"] == 20 and 0 < result["received"] <= 20, name
        assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["p95"] <= result["latency_ms"]["max"], name
        assert result["node_cpu_s"] >= 0, name
    printed = capfd.readouterr().out
    assert "128 x 96 rgb8, 20 Hz, 20 frames" in printed
    assert all(re.search(rf"^{name} +20 ", printed, re.MULTILINE) for name in content["results"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["transport.json"]


def test_a_node_that_ends_is_an_error(ros_environment, monkeypatch, capfd):
    pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")
    broken = bench_transport.Variant("broken", (bench_transport.PROCESSES, "--help"), True, "reliable", "reliable")
    monkeypatch.setattr(bench_transport, "VARIANTS", (broken,))
    assert bench_transport.main(["--size", "128x96", "--seconds", "1"]) == 1
    assert "bench_transport: error: the node ended with status 0" in capfd.readouterr().err


def test_a_frame_counts_once_and_only_if_it_was_measured():
    sent = [1_000_000_000, 2_000_000_000, 3_000_000_000]
    arrivals = [(500_000_000, 501_000_000), (sent[0], sent[0] + 4_000_000), (sent[0], sent[0] + 9_000_000)]
    arrivals.append((sent[2], sent[2] + 6_000_000))
    result = bench_transport.summarise(sent, arrivals, 0.5)
    assert (result.sent, result.received, result.node_cpu_s) == (3, 2, 0.5)
    assert result.latency_ms == {"p50": 5.0, "p95": 5.9, "max": 6.0}


def test_without_labels_there_is_no_latency():
    result = bench_transport.summarise([1, 2], [], 0.0)
    assert (result.received, result.latency_ms) == (0, None)
    assert re.search(r"^none +2 +0 +- +- +- +0.00$", bench_transport.table({"none": result}), re.MULTILINE)


def test_only_our_node_gets_the_profile(monkeypatch):
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", "/somewhere/else.xml")
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA")
    for variant in bench_transport.VARIANTS:
        environment = bench_transport.environment_of(variant)
        expected = str(profile_path()) if variant.name.startswith("vidseg") else None
        assert environment.get("FASTDDS_DEFAULT_PROFILES_FILE") == expected
        assert "FASTDDS_BUILTIN_TRANSPORTS" not in environment and "PATH" in environment


@pytest.mark.parametrize(
    "arguments",
    [["--size", "2048"], ["--size", "32x5000"], ["--size", "-1x5000"], ["--rate", "0"], ["--seconds", "inf"]],
)
def test_arguments_that_mean_nothing(arguments, capsys):
    with pytest.raises(SystemExit):
        bench_transport.main(arguments)
    assert "expected" in capsys.readouterr().err


@pytest.mark.parametrize("bench", [start, where])
@pytest.mark.parametrize("rounds", ["0", "-1"])
def test_no_bench_takes_less_than_one_round(bench, rounds, capsys):
    with pytest.raises(SystemExit) as error:
        bench.main(["--rounds", rounds])
    assert error.value.code == 2 and f"expected a whole number, 1 or more, got {rounds}" in capsys.readouterr().err
