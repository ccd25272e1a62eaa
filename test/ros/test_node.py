"""From camera topic to labels on real DDS: topics, headers, lifecycle, parameters, services."""

import json
import logging
import re
import signal
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402

from vidseg_core.classes import load_classes  # noqa: E402
from vidseg_ros import outputs, parameters  # noqa: E402
from vidseg_ros.node import RosLog, VidsegNode  # noqa: E402

ALL = ("labels", "overlay", "labels_color", "confidence")
EXIT_S = 120


def change(rig, transition):
    request = ChangeState.Request()
    request.transition.id = getattr(Transition, f"TRANSITION_{transition}")
    return rig.call(ChangeState, "vidseg/change_state", request).success


def state(rig):
    return rig.call(GetState, "vidseg/get_state").current_state.label


def test_labels_are_the_engine_s(rig, ros, weights):
    """What comes through DDS is what `Stream` computes from the same images, key frames and others."""
    from vidseg_core.engine.build import build_engine
    from vidseg_core.engine.config import EngineConfig
    from vidseg_core.frame import Frame

    images = [rig.picture(seed) for seed in range(7)]
    with rig.Rig(ros, weights=str(weights), runtime="eager", num_threads=1, interval=2) as bench:
        bench.prime()
        bench.call(Trigger, "vidseg/reset")
        labels = [rig.array_of(bench.exchange(bench.image(image))["labels"]) for image in images]
        status = bench.spin_reports()
    config = EngineConfig(weights=str(weights), runtime="eager", num_threads=1, interval=2)
    stream = build_engine(config).stream()
    for i, image in enumerate(images):
        np.testing.assert_array_equal(labels[i], stream.step(Frame(image, i * rig.STEP_NS)).labels)
    values = bench.values(status)
    assert values["Last reset"] == "requested" and values["Engine faults"] == "0"


def test_300_frames_come_once_each_in_order_with_their_header(rig, ros):
    with rig.Rig(ros, rig.StandIn(), outputs=("labels", "overlay")) as bench:
        bench.prime()
        sent = []
        for i in range(300):
            message = bench.image(rig.picture(i % 7))
            sent.append(message.header)
            bench.publisher("image_raw").publish(message)
            bench.executor.spin_once(timeout_sec=0.02)
        bench.spin_until(lambda: bench.received["labels"] and bench.received["labels"][-1].header == sent[-1])
        bench.idle()
        for output in ("labels", "overlay"):
            stamps = [rig.stamp_of(message) for message in bench.received[output]]
            assert stamps == sorted(set(stamps)) and len(stamps) > 50
            assert all(message.header in sent for message in bench.received[output])
        [camera] = bench.node.cameras
        counts = camera.statistics.counts
        assert counts.processed + counts.dropped == counts.received
        by_stamp = {rig.stamp_of(message): message for message in bench.received["overlay"]}
        assert all(by_stamp.get(rig.stamp_of(one)) is not None for one in bench.received["labels"])


def test_every_output_is_what_its_name_says(rig, ros):
    classes, image = load_classes("camvid"), rig.picture(3)
    with rig.Rig(ros, rig.StandIn(), outputs=ALL, publish_confidence=True, overlay_opacity=0.25) as bench:
        bench.prime()
        found = bench.exchange(bench.image(image))
        legend = json.loads(bench.latched("legend"))
    labels = image[..., 0] % 11
    np.testing.assert_array_equal(rig.array_of(found["labels"]), labels)
    np.testing.assert_array_equal(rig.array_of(found["labels_color"]), classes.lut[labels])
    mixed = image * 0.75 + classes.lut[labels] * 0.25
    assert np.abs(rig.array_of(found["overlay"]) - mixed).max() <= 1
    assert set(found["confidence"].data) == {128}
    assert [found[output].encoding for output in ALL] == ["mono8", "rgb8", "rgb8", "mono8"]
    assert all((found[output].height, found[output].width) == rig.SIZE for output in ALL)
    assert [entry["name"] for entry in legend["classes"]] == list(classes.names)
    assert legend["classes"][1] == {"id": 1, "name": classes.names[1], "color": classes.colors[1].tolist()}
    assert legend["void"]["id"] == 255


def test_label_info_is_the_class_table():
    class Message:
        def __init__(self, **fields):
            vars(self).update(fields)

    classes = load_classes("camvid")
    info = outputs.label_info(classes, "header", Message, Message)
    assert [(one.class_id, one.class_name) for one in info.class_map] == list(enumerate(classes.names))
    assert info.header == "header" and info.threshold == 0.0


def test_nothing_is_rendered_that_nobody_wants(rig, ros, monkeypatch):
    rendered = []
    for name, render in outputs.RENDER.items():
        monkeypatch.setitem(
            outputs.RENDER, name, lambda picture, name=name, render=render: rendered.append(name) or render(picture)
        )
    with rig.Rig(ros, rig.StandIn(), outputs=("labels", "labels_color")) as bench:
        bench.prime()
        rendered.clear()
        bench.exchange(bench.image(rig.picture()))
        assert rendered == ["labels", "labels_color"]
        assert bench.set("publish_labels_color", False).successful
        rendered.clear()
        bench.publisher("image_raw").publish(bench.image(rig.picture()))
        bench.idle()
        assert rendered == ["labels"]


def test_the_newest_frame_is_next_and_dropped_ones_are_counted(rig, ros):
    engine, gate = rig.StandIn(), rig.Gate()
    with rig.Rig(ros, engine) as bench:
        bench.prime()
        [camera] = bench.node.cameras
        before, received = camera.statistics.counts.dropped, camera.statistics.counts.received
        engine.steps.clear()
        engine.before = gate
        sent = [bench.image(rig.picture(i)) for i in range(6)]
        bench.publisher("image_raw").publish(sent[0])
        bench.spin_until(gate.reached.is_set)
        for i, message in enumerate(sent[1:], 2):
            bench.publisher("image_raw").publish(message)
            bench.spin_until(lambda i=i: camera.statistics.counts.received == received + i)
        gate.open()
        bench.spin_until(lambda: len(bench.received["labels"]) == 2)
        bench.idle()
        assert [message.header for message in bench.received["labels"]] == [sent[0].header, sent[-1].header]
        assert len(engine.steps) == 2 and camera.statistics.counts.dropped == before + 4


def test_cameras_have_their_own_topics_parameters_and_streams(rig, ros):
    engine = rig.StandIn()
    given = {"cameras": ["front", "left"], "interval": 6, "left.interval": 1, "left.labels_encoding": "8UC1"}
    with rig.Rig(ros, engine, **given, **{"left.publish_overlay": False}) as bench:
        for camera in ("front", "left"):
            bench.prime(camera)
        front, left = engine.streams
        one = bench.exchange(bench.image(rig.picture(1)), "front")["labels"]
        other = bench.exchange(bench.image(rig.picture(2)), "left")["labels"]
        assert (one.encoding, other.encoding) == ("mono8", "8UC1")
        np.testing.assert_array_equal(rig.array_of(other), rig.picture(2)[..., 0] % 11)
        assert (front.interval, left.interval) == (6, 1)
        assert (front.phase, left.phase) == (0.0, 0.5)  # their key frames are not the same frames
        assert bench.set("left.interval", 3).successful and bench.set("interval", 0).successful
        bench.exchange(bench.image(rig.picture()), "front")
        bench.exchange(bench.image(rig.picture()), "left")
        assert (front.interval, left.interval) == (0, 3)
        bench.spin_reports(2)
        names = {status.name for status in bench.statuses}
        assert names == {f"vidseg: {bench.namespace}/{camera}/image_raw" for camera in ("front", "left")}


def test_no_camera_starves_beside_a_fast_one(rig, ros):
    engine = rig.StandIn()
    with rig.Rig(ros, engine, cameras=["fast", "slow"]) as bench:
        bench.prime("fast")
        bench.prime("slow")
        gate, engine.before = rig.Gate(), None
        engine.before = gate
        fast, slow = (bench.publisher(f"{name}/image_raw") for name in ("fast", "slow"))
        fast.publish(bench.image(rig.picture()))
        bench.spin_until(gate.reached.is_set)
        engine.steps.clear()
        slow.publish(bench.image(rig.picture()))
        bench.idle()
        for _ in range(5):
            fast.publish(bench.image(rig.picture()))
        bench.idle()
        gate.open()
        bench.spin_until(lambda: len(engine.steps) == 2)
        assert [frame.stream for frame in engine.steps] == ["slow", "fast"]


def test_parameters_change_while_active_or_say_why_not(rig, ros):
    with rig.Rig(ros, rig.StandIn()) as bench:
        bench.prime()
        assert bench.set("overlay_opacity", 0.9).successful and bench.set("watchdog_s", 60.0).successful
        refused = bench.set("flow", "none")
        assert not refused.successful and "unconfigured" in refused.reason
        assert not bench.set("overlay_opacity", 1.5).successful
        assert not bench.set("interval", -1).successful
        assert change(bench, "DEACTIVATE") and not bench.set("flow", "none").successful
        assert change(bench, "CLEANUP") and bench.set("flow", "none").successful
        wrong = bench.set("dis_preset", "fastest")
        assert wrong.reason == "dis_preset: expected one of fine, ultrafast, fast, medium, rounds, got 'fastest'"
        assert change(bench, "CONFIGURE") and change(bench, "ACTIVATE")
        bench.received["labels"].clear()
        bench.prime()


def test_misspelt_parameters_are_named(rig, ros):
    with rig.Rig(ros, rig.StandIn(), cameras=["front"], intervall=3, **{"left.interval": 2}) as bench:
        bench.spin_until(lambda: bench.logged("no parameters of this node"))
        assert bench.logged("no parameters of this node") == [
            "given, but no parameters of this node: intervall, left.interval"
        ]


def test_lifecycle_by_a_manager(rig, ros):
    with rig.Rig(ros, rig.StandIn(), autostart=False) as bench:
        assert state(bench) == "unconfigured"
        assert bench.tester.count_publishers(f"{bench.namespace}/labels") == 0
        assert change(bench, "CONFIGURE") and state(bench) == "inactive"
        publisher = bench.connect()
        publisher.publish(bench.image(rig.picture()))
        bench.idle()
        assert not bench.received["labels"] and bench.engine.steps == []
        assert bench.spin_reports().message == "inactive"
        assert not bench.call(Trigger, "vidseg/reset").success
        for _ in range(3):
            assert change(bench, "ACTIVATE") and state(bench) == "active"
            bench.prime()
            assert change(bench, "DEACTIVATE")
        assert change(bench, "CLEANUP") and state(bench) == "unconfigured"
        bench.spin_until(lambda: bench.tester.count_publishers(f"{bench.namespace}/labels") == 0)
        assert bench.node.exit_code is None
        assert change(bench, "UNCONFIGURED_SHUTDOWN") and bench.node.exit_code == 0


def test_a_failed_transition_says_why_and_leaves_nothing_behind(rig, ros, tmp_path):
    absent = str(tmp_path / "absent.safetensors")
    with rig.Rig(ros, autostart=False, weights=absent, num_threads=1) as bench:
        assert not change(bench, "CONFIGURE")
        assert state(bench) == "unconfigured" and bench.node.exit_code is None
        bench.spin_until(lambda: bench.logged("configure failed"))
        assert absent in bench.logged("configure failed")[0]
        network = tmp_path / "network"
        network.mkdir()
        (network / "config.json").write_text('{"architectures": ["SegformerForSemanticSegmentation"]}')
        (network / "pytorch_model.bin").write_bytes(b"a pickle")
        assert bench.set("weights", str(network)).successful
        assert not change(bench, "CONFIGURE")
        bench.spin_until(lambda: len(bench.logged("configure failed")) == 2)
        assert (
            "found pytorch_model.bin, which holds pickled code and is not read" in bench.logged("configure failed")[1]
        )
        assert bench.set("engine", "pass_through").successful
        assert change(bench, "CONFIGURE") and change(bench, "ACTIVATE")
        bench.prime()


def test_a_camera_that_cannot_be_made_takes_the_others_with_it(rig, ros, tmp_path):
    class Engine(rig.StandIn):
        def stream(self, ego_mask=None, phase=0.0):
            if ego_mask:
                raise parameters.ConfigError("ego_mask: no such file")
            return super().stream()

    given = {"cameras": ["front", "left"], "left.ego_mask": "absent.png", "autostart": False}
    with rig.Rig(ros, Engine(), **given) as bench:
        assert not change(bench, "CONFIGURE")
        bench.spin_until(lambda: bench.tester.count_publishers(f"{bench.namespace}/front/labels") == 0)
        assert bench.set("left.ego_mask", "").successful and change(bench, "CONFIGURE")


def test_a_self_activating_node_ends_when_it_cannot(rig, ros, tmp_path):
    with rig.Rig(ros, weights=str(tmp_path / "absent"), num_threads=1) as bench:
        assert bench.node.exit_code == 1


def test_an_empty_list_of_cameras_is_one_camera(rig, process, tmp_path):
    """A parameter file cannot give an empty list a type, and rclpy leaves such a parameter without a value."""
    file = tmp_path / "parameters.yaml"
    file.write_text("/**:\n  ros__parameters:\n    engine: pass_through\n    cameras: []\n")
    one = process("watchdog_s:=60.0", files=[file])
    rig.read_until(one, "subscribed to /outside/image_raw")


@pytest.mark.parametrize(
    ("remapped", "topic"),
    [
        (("image_raw/compressed", "/cam/jpeg"), "/cam/jpeg"),
        (("image_raw", "/cam/image"), "/cam/image/compressed"),
        (("image_raw", "image_raw"), "/inside/image_raw/compressed"),
    ],
)
def test_a_compressed_topic_is_named_as_it_is_subscribed_to(ros, remapped, topic):
    arguments = ["--ros-args", "-r", "__ns:=/inside", "-r", ":=".join(remapped)]
    arguments += ["-p", "engine:=pass_through", "-p", "autostart:=false", "-p", "image_transport:=compressed"]
    node = VidsegNode(cli_args=arguments)
    try:
        node.trigger_configure()
        [camera] = node.cameras
        assert camera.topic == topic and [one.topic_name for one in node.subscriptions] == [topic]
    finally:
        node.release()
        node.destroy_node()


def test_services(rig, ros):
    engine = rig.StandIn()
    with rig.Rig(ros, engine) as bench:
        bench.prime()
        stream = engine.streams[0]
        assert stream.resets == ["activated"]
        assert bench.call(Trigger, "vidseg/reset").success and bench.call(Trigger, "vidseg/key_frame").success
        bench.exchange(bench.image(rig.picture()))
        assert stream.resets == ["activated", "requested"] and stream.key_requests == 1
        assert bench.call(SetBool, "vidseg/enable", SetBool.Request(data=False)).message == "disabled"
        done = len(engine.steps)
        bench.publisher("image_raw").publish(bench.image(rig.picture()))
        assert bench.spin_reports(2).message == "disabled"
        assert len(engine.steps) == done
        assert bench.call(SetBool, "vidseg/enable", SetBool.Request(data=True)).message == "enabled"
        bench.exchange(bench.image(rig.picture()))
        assert stream.resets[-1] == "enabled"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_cleanly(rig, process, number):
    others = {str(path) for path in Path("/dev/shm").glob("fast*_*")}
    one = process("engine:=pass_through")
    rig.read_until(one, "subscribed to /outside/image_raw")
    mapped = Path(f"/proc/{one.pid}/maps").read_text(encoding="ascii")
    segments = set(re.findall(r"/dev/shm/fast(?:dds|rtps)_[0-9a-f]{16}", mapped)) - others  # peers' are mapped, too
    one.send_signal(number)
    assert one.wait(EXIT_S) == 0
    assert one.stderr.read() == ""
    assert segments and not any(Path(segment).exists() for segment in segments)


def test_a_signal_ends_a_node_that_waits_for_its_manager(rig, ros, process):
    one = process("autostart:=false", namespace="/managed")
    tester = ros.create_node("tester")
    client = tester.create_client(GetState, "/managed/vidseg/get_state")
    assert client.wait_for_service(rig.DEADLINE_S)
    tester.destroy_node()
    one.send_signal(signal.SIGTERM)
    assert one.wait(EXIT_S) == 0


def test_missing_weights_end_the_process_with_a_message(process, tmp_path):
    one = process(f"weights:={tmp_path / 'absent.safetensors'}", "num_threads:=1")
    _, errors = one.communicate(timeout=EXIT_S)
    assert one.returncode == 1
    assert "configure failed" in errors and "absent.safetensors" in errors and "Traceback" not in errors


def test_a_wrong_parameter_ends_the_process_with_a_message(process):
    one = process("interval:=-1")
    _, errors = one.communicate(timeout=EXIT_S)
    assert one.returncode == 1
    assert "interval" in errors and "Traceback" not in errors


def test_what_the_core_logs_keeps_its_severity(rig, ros):
    with rig.Rig(ros, rig.StandIn()) as bench:
        handler = RosLog(bench.node.get_logger())
        levels = (logging.INFO, logging.WARNING, logging.ERROR, logging.INFO)
        for level in levels:
            handler.emit(logging.LogRecord("core", level, __file__, 1, "of level %d", (level,), None))
        bench.spin_until(lambda: len(bench.logged("of level")) == len(levels))
        assert [log.level for log in bench.logs if "of level" in log.msg] == list(levels)  # ROS has the same numbers
