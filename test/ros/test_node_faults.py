"""What cameras, middleware and engines do wrong, on real DDS: the node goes on, or ends for respawn, and says why."""

import itertools
import os
import resource
import signal
import threading
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from vidseg_ros import rcl, transport  # noqa: E402

ERROR_LEVEL = 40
OVERLOAD_S = float(os.environ.get("VIDSEG_SOAK_S", "10"))
EXIT_S = 120


@pytest.fixture(scope="module")
def bench(rig, ros):
    """One node for all faults that it has to survive."""
    engine = rig.StandIn()
    with rig.Rig(ros, engine) as one:
        one.prime()
        yield one


@pytest.fixture(autouse=True)
def survives(request):
    """Whatever a test did to the shared node: it labels the next frame."""
    yield
    if "bench" in request.fixturenames:
        one, rig = request.getfixturevalue("bench"), request.getfixturevalue("rig")
        one.engine.before = lambda frame: None
        image = rig.picture(99)
        labels = rig.array_of(one.exchange(one.image(image))["labels"])
        np.testing.assert_array_equal(labels, image[..., 0] % 11)


def counts(bench):
    return bench.node.cameras[0].statistics.counts


def refuse(bench, message):
    """Send a message that cannot be labelled; what the diagnostics say about it."""
    refused = counts(bench).refused
    bench.publisher("image_raw", type(message)).publish(message)
    bench.spin_until(lambda: counts(bench).refused == refused + 1)
    status = bench.spin_reports()
    assert status.level == DiagnosticStatus.ERROR
    assert bench.node.exit_code is None
    return status.message


def encoded(rgb):
    """The picture in the encodings that cameras send, and what of its red channel survives exactly."""
    bgr, grey = rgb[..., ::-1], rgb[..., 0]
    opaque = np.full((*grey.shape, 1), 255, dtype=np.uint8)
    deep = grey.astype(np.uint16) << 8 | 17
    flat = np.full_like(grey, 90)
    return {
        "rgb8": (rgb, grey),
        "bgr8": (bgr, grey),
        "rgba8": (np.concatenate([rgb, opaque], axis=2), grey),
        "bgra8": (np.concatenate([bgr, opaque], axis=2), grey),
        "mono8": (grey, grey),
        "16UC1": (deep, grey),
        "mono16": (deep, grey),
        "bayer_rggb8": (flat, flat),
        "bayer_gbrg8": (flat, flat),
        "yuv422": (np.stack([np.full_like(flat, 128), flat], axis=2), None),
        "yuv422_yuy2": (np.stack([flat, np.full_like(flat, 128)], axis=2), None),
    }


@pytest.mark.parametrize("encoding", list(encoded(np.zeros((2, 2, 3), dtype=np.uint8))))
@pytest.mark.parametrize("padding", [0, 5])
def test_encodings_change_in_mid_stream(bench, rig, encoding, padding):
    pixels, red = encoded(rig.picture(5))[encoding]
    labels = rig.array_of(bench.exchange(bench.image(pixels, encoding, padding=padding))["labels"])
    if red is None:  # limited range: grey 90 of 16..235
        assert len(np.unique(labels)) == 1 and labels[0, 0] == round((90 - 16) * 255 / 219) % 11
    else:
        np.testing.assert_array_equal(labels, red % 11)


@pytest.mark.parametrize(("encoding", "rows"), [("nv12", 60), ("nv21", 60), ("nv24", 240)])
def test_two_planes(bench, rig, encoding, rows):
    luma = np.random.default_rng(6).choice(np.array([16, 50, 90, 143, 235], np.uint8), rig.SIZE)
    both = np.concatenate([luma, np.full((rows, rig.SIZE[1]), 128, np.uint8)])
    labels = rig.array_of(bench.exchange(bench.image(both, encoding, height=rig.SIZE[0]))["labels"])
    np.testing.assert_array_equal(labels, np.rint((luma.astype(float) - 16) * 255 / 219) % 11)


@pytest.mark.parametrize("size", [(64, 64), (121, 163), (480, 640)])
def test_size_changes_in_mid_stream(bench, rig, size):
    image = rig.picture(1, size)
    labels = bench.exchange(bench.image(image))["labels"]
    assert (labels.height, labels.width, labels.step) == (*size, size[1])
    np.testing.assert_array_equal(rig.array_of(labels), image[..., 0] % 11)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"encoding": "32FC1"}, "got '32FC1'"),
        ({"encoding": ""}, "got ''"),
        ({"width": 0, "height": 0, "step": 0, "data": b""}, "got 0 x 0"),
        ({"width": 0}, "got 0 x 120"),
        ({"height": 4_000_000_000}, "bytes of data"),
        ({"step": 10}, "expected a step of at least 480 bytes"),
        ({"data": bytes(100)}, "got 100"),
    ],
)
def test_messages_that_lie_are_refused(bench, rig, fields, reason):
    assert reason in refuse(bench, bench.image(rig.picture(), **fields))


def test_images_that_are_too_small_are_refused(bench, rig):
    assert "at least 64 x 64" in refuse(bench, bench.image(rig.picture(size=(63, 640))))


def test_one_error_is_logged_in_ten_seconds(bench, rig):
    """The diagnostics have all of them."""
    for encoding in ("strange", "stranger", "strangest"):
        assert encoding in refuse(bench, bench.image(rig.picture(), encoding=encoding))
    bench.idle()
    logged = bench.logged("frame refused", ERROR_LEVEL)
    times = [log.stamp.sec for log in bench.logs if "frame refused" in log.msg]
    assert logged and all(later - earlier >= 9 for earlier, later in itertools.pairwise(times))
    assert logged[0].startswith(f"{bench.namespace}/image_raw: frame refused: ")


def test_a_repeated_stamp_is_dropped_and_counted(bench, rig):
    message, done = bench.image(rig.picture()), counts(bench).processed + 1
    bench.exchange(message)
    bench.spin_until(lambda: counts(bench).processed == done)  # it counts when it has published
    repeated = counts(bench).repeated
    for _ in range(2):
        bench.publisher("image_raw").publish(message)
    bench.spin_until(lambda: counts(bench).repeated == repeated + 2)
    bench.idle()
    assert counts(bench).processed == done
    assert int(bench.values(bench.spin_reports())["Frames repeated"]) == repeated + 2


def test_stamps_that_jump_back_are_processed(bench, rig):
    start = bench.stamp_ns
    message = bench.image(rig.picture(2), stamp_ns=start - 3_600_000_000_000)
    assert bench.exchange(message)["labels"].header == message.header


def test_stamps_of_zero_are_processed_and_named_once(bench, rig):
    received = len(bench.received["labels"])
    bench.spin_reports()
    for i in range(3):
        bench.publisher("image_raw").publish(bench.image(rig.picture(i), stamp_ns=0))
        bench.spin_until(lambda i=i: len(bench.received["labels"]) == received + i + 1)
    assert all(rig.stamp_of(message) == 0 for message in bench.received["labels"][-3:])
    assert bench.values(bench.spin_reports())["Age p50 (ms)"] in ("no stamps", "unknown")
    bench.spin_until(lambda: bench.logged("its stamps are zero"))
    assert len(bench.logged("its stamps are zero")) == 1


def test_the_camera_stops_and_returns(bench, rig):
    bench.exchange(bench.image(rig.picture()))
    bench.spin_until(lambda: bench.statuses and bench.statuses[-1].level == DiagnosticStatus.ERROR)
    assert "though" in bench.statuses[-1].message
    bench.spin_until(lambda: bench.logged("a publisher is there, but no frame has come for 2 s"))
    bench.tester.destroy_publisher(bench._publishers.pop("image_raw"))
    bench.spin_until(lambda: "nobody publishes" in bench.statuses[-1].message)
    bench.prime()
    bench.spin_until(lambda: bench.exchange(bench.image(rig.picture())) and b"\0" == bench.spin_reports().level)
    warnings = bench.logged("a publisher is there, but no frame has come for 2 s")
    assert len(warnings) == 1 and "FASTDDS_DEFAULT_PROFILES_FILE" in warnings[0]


def test_a_camera_that_comes_late_is_not_taken_for_one_that_does_not_get_through(rig, ros):
    with rig.Rig(ros, rig.StandIn()) as late:
        late.spin_until(lambda: late.statuses and "nobody publishes" in late.statuses[-1].message)
        late.connect()
        late.spin_reports()
        assert "though" in late.spin_reports().message
        late.prime()
        assert late.logged("a publisher is there") == []


def test_an_engine_fault_is_logged_once_and_the_stream_starts_afresh(bench, rig):
    stream, faults = bench.engine.streams[0], counts(bench).faults

    def fail(frame):
        raise RuntimeError("out of sorts")

    for count in (1, 2):  # twice in a row, a frame that is well, and twice again
        for _ in range(2):
            bench.engine.before = fail
            before = counts(bench).faults
            bench.publisher("image_raw").publish(bench.image(rig.picture()))
            bench.spin_until(lambda before=before: counts(bench).faults == before + 1)
        bench.engine.before = lambda frame: None
        bench.exchange(bench.image(rig.picture()))
        assert stream.resets.count("engine fault: RuntimeError") == 2 * count
    assert counts(bench).faults == faults + 4 and bench.node.exit_code is None
    bench.spin_until(lambda: bench.logged("out of sorts"))
    bench.idle()
    logged = bench.logged("out of sorts", ERROR_LEVEL)
    assert len(logged) == 1 and "Traceback" in logged[0]


def test_an_engine_fault_is_an_error_in_the_diagnostics(bench, rig):
    bench.spin_reports()

    def fail(frame):
        raise MemoryError("no more")

    bench.engine.before = fail
    bench.publisher("image_raw").publish(bench.image(rig.picture()))
    bench.spin_until(lambda: "MemoryError: no more" in bench.statuses[-1].message)
    assert bench.statuses[-1].level == DiagnosticStatus.ERROR


def test_a_message_that_cannot_be_published_is_no_engine_fault(rig, ros, monkeypatch):
    with rig.Rig(ros, rig.StandIn()) as one:
        one.prime()
        camera = one.node.cameras[0]

        def refuse(publisher, message):
            assert publisher is camera._publishers["labels"]
            raise RuntimeError("Failed to publish: cannot publish data")

        before = counts(one).processed
        monkeypatch.setattr(rcl, "publish", refuse)
        for i in range(4):
            one.publisher("image_raw").publish(one.image(rig.picture()))
            one.spin_until(lambda i=i: counts(one).processed == before + i + 1)
        monkeypatch.undo()
        assert counts(one).unpublished == 4 and counts(one).faults == 0 and one.node.exit_code is None
        one.spin_until(lambda: one.logged("could not be published"))
        assert len(one.logged("could not be published")) == 1
        one.exchange(one.image(rig.picture()))


def test_three_faults_in_a_row_end_the_process(rig, ros):
    engine = rig.StandIn()
    with rig.Rig(ros, engine) as one:
        one.prime()

        def fail(frame):
            raise ValueError(f"bad frame at {frame.stamp_ns}")  # each is another text

        engine.before = fail
        for i in range(3):
            assert one.node.exit_code is None
            one.publisher("image_raw").publish(one.image(rig.picture()))
            one.spin_until(lambda i=i: counts(one).faults == i + 1)
        one.spin_until(lambda: one.node.exit_code == 1)
        one.spin_until(lambda: one.logged("the process ends"))
        assert "3 times in a row" in one.logged("the process ends")[0]
        assert len(one.logged("Traceback")) == 1


def test_two_nodes_share_one_camera(rig, ros):
    with rig.Rig(ros, rig.StandIn()) as one:
        remap = [f"image_raw:={one.namespace}/image_raw", f"labels:={one.namespace}/others"]
        with rig.Rig(ros, rig.StandIn(), remap=remap) as two:
            one.executor.add_node(two.node)
            one.outputs = ("labels", "others")
            one.listen("others")
            one.prime()
            found = one.exchange(one.image(rig.picture(8)))
            one.executor.remove_node(two.node)
    np.testing.assert_array_equal(rig.array_of(found["labels"]), rig.picture(8)[..., 0] % 11)
    assert found["others"] == found["labels"]


@pytest.fixture(scope="module")
def compressed_bench(rig, ros):
    with rig.Rig(ros, rig.StandIn(), image_transport="compressed") as one:
        one.prime(name="image_raw/compressed", message=one.compressed(TestCompressed.jpeg(rig.picture())))
        yield one


class TestCompressed:
    @pytest.fixture
    def bench(self, compressed_bench):
        return compressed_bench

    @staticmethod
    def jpeg(rgb):
        return cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes()

    def refuse(self, bench, message):
        refused = counts(bench).refused
        bench.publisher("image_raw/compressed", CompressedImage).publish(message)
        bench.spin_until(lambda: counts(bench).refused == refused + 1)
        return bench.spin_reports().message

    @pytest.fixture(autouse=True)
    def survives(self, bench, rig):
        yield
        rgb = np.repeat(np.full((*rig.SIZE, 1), 77, dtype=np.uint8), 3, axis=2)
        png = cv2.imencode(".png", rgb)[1].tobytes()
        found = bench.exchange(bench.compressed(png, "rgb8; png compressed"), name="image_raw/compressed")
        assert set(found["labels"].data) == {0}

    def test_jpeg(self, bench, rig):
        data = self.jpeg(rig.picture(4))
        found = bench.exchange(bench.compressed(data), name="image_raw/compressed")
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(rig.array_of(found["labels"]), decoded[..., 2] % 11)
        assert found["labels"].encoding == "mono8"

    def test_truncated_jpeg(self, bench, rig):
        data = self.jpeg(rig.picture(4))
        assert "jpeg" in self.refuse(bench, bench.compressed(data[: len(data) // 2]))
        assert self.refuse(bench, bench.compressed(b""))

    def test_compressed_depth(self, bench):
        assert "compressedDepth" in self.refuse(bench, bench.compressed(bytes(64), "16UC1; compressedDepth"))


def test_compressed_takes_the_remapped_base_name(rig, ros):
    given = {"image_transport": "compressed", "remap": ["image_raw:=/camera/color/image"]}
    with rig.Rig(ros, rig.StandIn(), **given) as one:
        assert [camera.topic for camera in one.node.cameras] == ["/camera/color/image/compressed"]
        one.spin_until(lambda: one.tester.count_subscribers("/camera/color/image/compressed") == 1)


def test_a_representation_that_is_not_plain_cdr_goes_through_rclpy(rig, ros, monkeypatch):
    from rclpy.serialization import serialize_message

    from vidseg_core.data.wire import WireError
    from vidseg_ros import camera as module

    def unsupported(buffer):
        raise WireError("expected plain CDR", unsupported=True)

    with rig.Rig(ros, rig.StandIn()) as one:
        one.prime()
        [camera] = one.node.cameras
        monkeypatch.setattr(camera, "_kind", replace(camera._kind, parse=unsupported))
        for seed in range(3):
            image = rig.picture(seed)
            labels = one.exchange(one.image(image))["labels"]
            np.testing.assert_array_equal(rig.array_of(labels), image[..., 0] % 11)
        one.spin_until(lambda: one.logged("read by rclpy"))
        assert len(one.logged("read by rclpy")) == 1
        monkeypatch.setattr(module, "deserialize_message", lambda *a: (_ for _ in ()).throw(RuntimeError("garbage")))
        refused = counts(one).refused
        one.publisher("image_raw").publish(serialize_message(one.image(image)))
        one.spin_until(lambda: counts(one).refused == refused + 1)
        assert "garbage" in one.spin_reports().message


def test_overload_keeps_latency_and_memory_bounded(rig, ros):
    """A camera at 60 Hz, an engine at 5 Hz. With a queue between them labels would soon be many seconds late."""
    engine, never = rig.StandIn(), threading.Event()
    with rig.Rig(ros, engine, report_s=1.0) as one:  # as users have it, so that each report is about several frames
        one.prime()
        took_s = []

        def work(frame):
            begin = time.monotonic()
            never.wait(1 / 5)
            took_s.append(time.monotonic() - begin)
            engine.steps.clear()  # what a test keeps is no leak
            one.received["labels"].clear()

        def send():
            message.header = one.header(one.next_stamp())
            one.publisher("image_raw").publish(message)

        engine.before = work
        message = one.image(rig.picture(0, (480, 640)))
        camera = one.tester.create_timer(1 / 60, send)
        one.statuses.clear()
        one.spin_reports(5)  # rates span several reports
        memory, loaded, end = resident_mb(), len(one.statuses), time.monotonic() + OVERLOAD_S
        one.spin_until(lambda: time.monotonic() > end, 2 * OVERLOAD_S)
        camera.cancel()
        grown_mb, engine.before = resident_mb() - memory, lambda frame: None
        statuses = one.statuses[loaded:]
    assert grown_mb < 30
    assert all(status.level == DiagnosticStatus.WARN for status in statuses)
    assert all("the engine takes" in status.message or "are dropped" in status.message for status in statuses)
    latencies_ms = [float(one.values(status)["Processing latency max (ms)"]) for status in statuses]
    assert max(latencies_ms) < 1e3 * (2 * max(took_s) + 1)
    values = one.values(statuses[-1])
    assert int(values["Frames dropped"]) > 2 * int(values["Frames processed"]) > 2 * OVERLOAD_S


def resident_mb():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


SCRIPT = """
import sys, threading
from vidseg_core.classes import load_classes
from vidseg_core.frame import Segmentation
from vidseg_ros.node import main

class Engine:
    classes = load_classes("camvid")
    def stream(self, ego_mask=None, phase=0.0): return self
    def describe(self): return {{"device": "cpu"}}
    def close(self): return True
    def segmenting_s(self): return 0.0
    def reset(self, reason): pass
    def request_key_frame(self): pass
    def set_interval(self, interval): pass
    def set_confidence(self, wanted): pass
    def set_probabilities(self, wanted): pass
    def set_overlay(self, colours): pass
    def step(self, frame):
        if frame.name:
            {fault}
        return Segmentation(frame.image[..., 0].copy(), frame.stamp_ns, True, 0, "")

sys.exit(main(build=lambda values: Engine()))
"""
FAULTS = {
    "engine raises": ("raise RuntimeError('broken')", "3 times in a row"),
    "engine hangs": ("threading.Event().wait()", "no progress for"),
    "engine ends its thread": ("sys.exit()", "the worker is gone"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_node_that_does_nothing_ends_for_respawn(rig, ros, process, fault):
    body, message = FAULTS[fault]
    node = ros.create_node("camera", namespace="/outside")
    publisher = node.create_publisher(Image, "image_raw", 5)
    try:
        one = process("watchdog_s:=1.0", script=SCRIPT.format(fault=body))
        rig.read_until(one, "subscribed to")
        executor = ros.executors.SingleThreadedExecutor()
        executor.add_node(node)
        stamps = itertools.count(1)

        def send():
            image = Image(height=64, width=64, step=192, encoding="rgb8", data=bytes(64 * 192))
            image.header.stamp.sec = next(stamps)
            publisher.publish(image)

        node.create_timer(0.1, send)
        deadline = time.monotonic() + EXIT_S
        while one.poll() is None and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.2)
        assert one.poll() == 1
        errors = one.stderr.read()
        assert message in errors and "the process ends" in errors
    finally:
        node.destroy_node()


def test_a_signal_ends_a_process_whose_engine_is_busy(rig, ros, process):
    """With status 0: it was asked to end, and what the engine is at is lost."""
    node = ros.create_node("camera", namespace="/busy")
    publisher = node.create_publisher(Image, "image_raw", 5)
    image = Image(height=64, width=64, step=192, encoding="rgb8", data=bytes(64 * 192))
    try:
        fault = "print('busy', file=sys.stderr, flush=True), threading.Event().wait()"
        one = process(script=SCRIPT.format(fault=fault), namespace="/busy")
        rig.read_until(one, "subscribed to")
        deadline = time.monotonic() + EXIT_S
        while publisher.get_subscription_count() == 0 and time.monotonic() < deadline:
            ros.spin_once(node, timeout_sec=0.1)
        publisher.publish(image)
        rig.read_until(one, "busy")
        one.send_signal(signal.SIGTERM)
        assert one.wait(EXIT_S) == 0
        assert "Traceback" not in one.stderr.read()
    finally:
        node.destroy_node()


def test_losses_and_strange_qos_are_told_once_with_the_remedy(rig, ros, monkeypatch):
    # What earlier tests of this process have mapped is no camera's.
    monkeypatch.setattr(transport, "mapped_segments", lambda: transport.Segments((64 << 20,), ()))
    with rig.Rig(ros, rig.StandIn()) as one:
        [camera] = one.node.cameras
        for count in (3, 4):
            camera._on_lost(count)
            camera._on_incompatible("reliability")
            camera._on_incompatible("invalid")
        assert camera.statistics.counts.lost == 7
        one.spin_until(lambda: one.logged("reliability"))
        topic = f"{one.namespace}/image_raw"
        assert one.logged("were lost") == [transport.warning(transport.MESSAGE_LOST, topic=topic, count=3)]
        assert len(one.logged("offers a QoS")) == 1
        one.spin_until(lambda: one.logged("XCDR2"))
        assert len(one.logged("XCDR2")) == 1


def test_a_slow_camera_is_told_once_with_the_remedy(rig, ros):
    with rig.Rig(ros, rig.StandIn(), wanted_rate_hz=500.0) as one:
        one.prime()
        timer = one.tester.create_timer(0.1, lambda: one.publisher("image_raw").publish(one.image(rig.picture())))
        one.spin_until(lambda: one.logged("500.0 Hz are wanted"))
        status = one.spin_reports(2)
        timer.cancel()
        assert status.level == DiagnosticStatus.WARN and "the camera delivers" in status.message
        assert len(one.logged("500.0 Hz are wanted")) == 1
