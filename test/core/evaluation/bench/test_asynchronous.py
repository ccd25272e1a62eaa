import threading

from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.key_frames.process import SegmenterProcess
from vidseg_core.engine.segmenter import NetworkSegmenter
from vidseg_core.evaluation.bench.asynchronous import bench_async


def watched(monkeypatch, segmenter):
    """The threads that call it from now on."""
    threads, segment = [], segmenter.__call__

    def watch(self, frame):
        threads.append(threading.current_thread().name)
        return segment(self, frame)

    monkeypatch.setattr(segmenter, "__call__", watch)
    return threads


def test_figures_and_that_key_frames_ran_beside(monkeypatch):
    here, beside = watched(monkeypatch, NetworkSegmenter), watched(monkeypatch, SegmenterProcess)
    config = EngineConfig(runtime="eager", input_scale=0.25)
    report = bench_async(config, num_frames=30, size=(240, 320), rate_hz=60.0, rounds=3)
    assert here == ["MainThread"] * 3 and set(beside) == {"vidseg-segmenter"}
    assert report["async_p99_ms"] >= report["async_median_ms"] > 0
    rounds = report["async_rounds"]
    assert len(rounds) == 3
    for one in rounds:
        assert one["async_p99_over_median"] == one["async_p99_ms"] / one["async_median_ms"]
        assert one["async_median_over_sync_non_key"] == one["async_median_ms"] / one["sync_non_key_median_ms"]
    for key in rounds[0]:
        assert report[key] == sorted(one[key] for one in rounds)[1]
    assert 0 < report["async_key_ratio"] <= 0.5 and report["async_oldest_labels"] >= 1
    assert not [thread for thread in threading.enumerate() if thread.name == "vidseg-segmenter"]
