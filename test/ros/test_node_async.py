"""Asynchronous key frames in the node, on real DDS: labels do not wait for them, errors and hangs are told."""

import threading
from concurrent.futures import wait

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

import torch  # noqa: E402
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402

from vidseg_core.classes import load_classes  # noqa: E402
from vidseg_core.engine.build import build_engine  # noqa: E402
from vidseg_core.engine.config import EngineConfig  # noqa: E402

WAIT_S = 60


class Gated:
    """Every pixel's class is the image's red channel; computes while the gate is open."""

    num_classes = 11

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.error = None

    def __call__(self, frame):
        assert self.gate.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        ids = torch.arange(self.num_classes)[:, None, None]
        return (torch.from_numpy(frame.image[..., 0].astype(np.int64))[None] == ids)[None].float()


@pytest.fixture
def bench(rig, ros):
    segmenter = Gated()
    config = EngineConfig(key_frames="async", interval=1, flow="none", num_threads=1)
    engine = build_engine(config, segmenter, load_classes("camvid"))
    with rig.Rig(ros, engine, watchdog_s=0.6, interval=1) as one:
        one.segmenter = segmenter
        one.prime(message=one.image(plain(rig, 0)))
        one.stream = one.node.cameras[0]._stream
        yield one
        segmenter.gate.set()
    assert not [thread for thread in threading.enumerate() if thread.name == "vidseg-segmenter"]


def plain(rig, label):
    return np.full((*rig.SIZE, 3), label, dtype=np.uint8)


def label_of(bench, rig, label):
    """Send an image that is all of one class; the class that its labels have."""
    [found] = np.unique(rig.array_of(bench.exchange(bench.image(plain(rig, label)))["labels"]))
    return int(found)


def settle(bench, rig):
    """Until no key frame is under way and the next frame begins one."""
    bench.stream.reset()
    assert label_of(bench, rig, 1) == 1
    assert label_of(bench, rig, 2) == 1


def arrive(bench):
    """Let the key frame under way come to its end."""
    wait([bench.stream._state.waiting.job._result], WAIT_S)


def test_labels_do_not_wait_for_a_key_frame(bench, rig):
    settle(bench, rig)
    bench.spin_reports()
    mark = len(bench.statuses)
    bench.segmenter.gate.clear()
    assert [label_of(bench, rig, label) for label in (3, 4, 5)] == [1, 1, 1]
    bench.segmenter.gate.set()
    arrive(bench)
    assert label_of(bench, rig, 6) == 3  # the key frame was that one
    values = bench.values(bench.spin_reports())
    reports = [bench.values(status) for status in bench.statuses[mark:]]  # one second each
    assert [r["Key frames because of"] for r in reports if r["Key frames because of"] != "none"] == ["interval 1"]
    ages = [r["Age of the key frame (frames)"] for r in reports]
    assert max(age for age in ages if age != "unknown") == "4"
    counts = bench.node.cameras[0].statistics.counts
    assert int(values["Key frames"]) == counts.key_frames < counts.processed


def test_an_error_beside_the_stream_is_an_engine_fault_at_the_next_frame(bench, rig):
    settle(bench, rig)
    faults = bench.node.cameras[0].statistics.counts.faults
    bench.segmenter.error = RuntimeError("out of sorts")
    assert label_of(bench, rig, 3) == 1
    wait([bench.stream._state.waiting.job._result], WAIT_S)
    bench.segmenter.error = None
    bench.publisher("image_raw").publish(bench.image(plain(rig, 4)))
    bench.spin_until(lambda: bench.node.cameras[0].statistics.counts.faults == faults + 1)
    status = bench.spin_reports()
    assert status.level == DiagnosticStatus.ERROR and "out of sorts" in status.message
    assert label_of(bench, rig, 5) == 5  # the stream has started afresh
    assert bench.values(bench.spin_reports())["Last reset"] == "engine fault: RuntimeError"
    assert bench.node.exit_code is None


def test_a_key_frame_that_hangs_ends_the_process_though_labels_go_on(bench, rig):
    settle(bench, rig)
    bench.segmenter.gate.clear()
    assert label_of(bench, rig, 3) == 1
    bench.spin_until(lambda: bench.node.exit_code == 1)
    assert label_of(bench, rig, 4) == 1
    bench.spin_until(lambda: bench.logged("no progress with a key frame for"))
