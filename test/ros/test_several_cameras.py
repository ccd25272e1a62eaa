"""Several cameras in one process: none starves, and frames that belong together are processed as a set."""

import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

THREE = ["front", "left", "right"]
TWO = ["front", "left"]
MS = 1_000_000
DEADLINE_S = 60


@pytest.fixture
def synchronised(rig, ros):
    """A rig of two cameras whose frames are processed as sets; the first ones are labelled already."""
    pytest.importorskip("message_filters", reason="needs message_filters, which comes with a ROS distribution")
    made = []

    def make(**parameters):
        bench = rig.Rig(ros, rig.StandIn(), cameras=TWO, sync="approximate", **parameters)
        made.append(bench)
        for camera in TWO:
            bench.connect(camera)
        deadline = time.monotonic() + DEADLINE_S
        while len(bench.engine.steps) < 2:
            assert time.monotonic() < deadline, "no set is found"
            publish(bench, dict.fromkeys(TWO, bench.next_stamp()))
            bench.idle()
        bench.engine.steps.clear()
        return bench

    yield make
    for bench in made:
        bench.close()


def publish(bench, stamps):
    """One frame of each camera in turn, with these stamps (ns)."""
    for camera, stamp_ns in stamps.items():
        pixels = np.zeros((64, 80, 3), dtype=np.uint8)
        bench.publisher(f"{camera}/image_raw").publish(bench.image(pixels, stamp_ns=stamp_ns))


def processed(bench):
    return [(frame.stream, frame.stamp_ns) for frame in bench.engine.steps]


def counts_of(bench):
    return [camera.statistics.counts for camera in bench.node.cameras]


def test_an_overloaded_engine_serves_all_cameras_in_turn(rig, ros):
    engine, turns = rig.StandIn(), threading.Semaphore(0)
    engine.before = lambda frame: turns.acquire(timeout=DEADLINE_S)
    with rig.Rig(ros, engine, cameras=THREE) as bench:
        try:
            for camera in THREE:
                bench.connect(camera)
            for done in range(1, 13):
                before = [counts.received for counts in counts_of(bench)]
                for camera, frames in zip(THREE, (5, 2, 1), strict=True):
                    for _ in range(frames):
                        publish(bench, {camera: bench.next_stamp()})
                bench.spin_until(
                    lambda before=before: all(
                        counts.received > count for counts, count in zip(counts_of(bench), before, strict=True)
                    )
                )
                turns.release()
                bench.spin_until(lambda done=done: sum(counts.processed for counts in counts_of(bench)) == done)
        finally:
            turns.release(10)
        served = [frame.stream for frame in engine.steps][:12]
        assert all(set(served[i : i + 3]) == set(THREE) for i in range(1, 10)), served
        front, _, right = counts_of(bench)
        assert front.received > right.received and front.dropped > right.dropped


def test_frames_with_close_stamps_are_a_set_and_others_are_left_out(synchronised):
    bench = synchronised(sync_slop_s=0.02)
    first, alone, second = (bench.next_stamp() for _ in range(3))
    publish(bench, {"front": first, "left": first + 15 * MS})
    bench.idle()
    publish(bench, {"front": alone})
    bench.idle()
    publish(bench, {"left": second + 1 * MS, "front": second})
    bench.spin_until(lambda: len(bench.engine.steps) == 4)
    bench.idle()
    # In the order of the parameter `cameras`, whatever came first.
    expected = [("front", first), ("left", first + 15 * MS), ("front", second), ("left", second + 1 * MS)]
    assert processed(bench) == expected
    for camera, _, stamp_ns in ((*pair, pair[1]) for pair in expected):
        topic = f"{camera}/labels"
        assert stamp_ns in [bench_stamp(message) for message in bench.received[topic]]
    assert counts_of(bench)[0].in_sets == counts_of(bench)[1].in_sets


def bench_stamp(message):
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def test_frames_that_are_too_far_apart_make_no_set_and_diagnostics_say_so(synchronised):
    bench = synchronised(sync_slop_s=0.005)
    for _ in range(3):
        stamp_ns = bench.next_stamp()
        publish(bench, {"front": stamp_ns, "left": stamp_ns + 6 * MS})
    bench.idle()
    assert processed(bench) == []

    def complains():
        stamp_ns = bench.next_stamp()
        publish(bench, {"front": stamp_ns, "left": stamp_ns + 6 * MS})
        return any("make a set" in status.message and status.level == b"\x01" for status in bench.statuses)

    bench.spin_until(complains)
    values = bench.values(bench.statuses[-1])
    assert int(values["Frames in sets"]) < int(values["Frames received"])


def test_a_recording_that_begins_again_goes_on_in_sets(synchronised):
    bench = synchronised()
    for _ in range(6):  # without partners: they stay, and are newer than all that comes
        publish(bench, {"front": bench.next_stamp()})
        bench.idle()
    earlier = [bench.stamp_ns - 100_000 * MS + i * 33 * MS for i in range(3)]
    for stamp_ns in earlier:
        publish(bench, {"front": stamp_ns, "left": stamp_ns})
        bench.idle()
    assert processed(bench) == [(camera, stamp_ns) for stamp_ns in earlier for camera in TWO]


def test_the_newest_set_takes_the_place_of_one_that_waits(synchronised, rig):
    bench, gate = synchronised(), rig.Gate()
    bench.engine.before = gate
    dropped = [counts.dropped for counts in counts_of(bench)]
    stamps = [bench.next_stamp() for _ in range(3)]
    publish(bench, dict.fromkeys(TWO, stamps[0]))
    bench.spin_until(gate.reached.is_set)
    for stamp_ns in stamps[1:]:
        publish(bench, dict.fromkeys(TWO, stamp_ns))
        bench.idle()
    gate.open()
    bench.spin_until(lambda: len(bench.engine.steps) == 4)
    assert processed(bench) == [(camera, stamp_ns) for stamp_ns in (stamps[0], stamps[2]) for camera in TWO]
    assert [counts.dropped for counts in counts_of(bench)] == [count + 1 for count in dropped]


def test_a_fault_with_one_camera_spares_the_other(synchronised):
    bench, stamp_ns = synchronised(), 0

    def break_front(frame):
        if frame.stream == "front":
            raise RuntimeError("broken")

    bench.engine.before = break_front
    stamp_ns = bench.next_stamp()
    publish(bench, dict.fromkeys(TWO, stamp_ns))
    bench.spin_until(lambda: stamp_ns in [bench_stamp(message) for message in bench.received["left/labels"]])
    assert counts_of(bench)[0].faults == 1 and counts_of(bench)[1].faults == 0


def test_a_frame_from_before_1970_is_labelled_by_itself(synchronised):
    bench = synchronised()
    publish(bench, {"front": -5_000 * MS})
    bench.spin_until(lambda: processed(bench) == [("front", -5_000 * MS)])
    stamp_ns = bench.next_stamp()
    publish(bench, dict.fromkeys(TWO, stamp_ns))
    bench.spin_until(lambda: len(bench.engine.steps) == 3)


def test_without_message_filters_configuring_fails_and_names_it(rig, ros, monkeypatch):
    monkeypatch.setitem(sys.modules, "message_filters", None)
    with rig.Rig(ros, rig.StandIn(), cameras=TWO, sync="approximate") as bench:
        assert bench.node.exit_code == 1
        bench.spin_until(lambda: bench.logged("configure failed"))
        assert "needs the package message_filters, which is not installed" in bench.logged("configure failed")[0]


def test_one_camera_is_no_set(rig, ros):
    with rig.Rig(ros, rig.StandIn(), sync="approximate") as bench:
        assert bench.node.exit_code == 1
        bench.spin_until(lambda: bench.logged("configure failed"))
        assert "sync: approximate: expected two or more cameras, got 1" in bench.logged("configure failed")[0]
