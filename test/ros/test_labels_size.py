"""Labels at another size than the camera's, and what goes with them: confidence, camera_info, probabilities."""

import json

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from vidseg_core.kernels.vote import vote  # noqa: E402
from vidseg_ros.subscription import LATCHED  # noqa: E402

INFOS = ("labels/camera_info", "probabilities/camera_info")


def camera(size, **fields):
    k = [100.0, 0.0, 79.5, 0.0, 100.0, 59.5, 0.0, 0.0, 1.0]
    p = [100.0, 0.0, 79.5, 0.0, 0.0, 100.0, 59.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    return CameraInfo(height=size[0], width=size[1], k=k, p=p, **fields)


@pytest.fixture
def bench(rig, ros):
    outputs = ("labels", "labels_color", "confidence", "overlay", "probabilities")
    with rig.Rig(ros, rig.StandIn(), outputs=outputs, labels_size="48x40") as one:
        for topic in INFOS:
            one.listen(topic, CameraInfo)
        one.prime()
        yield one


def test_labels_are_voted_for_and_everything_fits_them(rig, bench):
    publisher = bench.publisher("camera_info", CameraInfo)
    bench.spin_until(lambda: publisher.get_subscription_count() > 0)
    image = rig.picture(3)
    message = bench.image(image)
    publisher.publish(camera(rig.SIZE))
    bench.idle()
    found = bench.exchange(message)
    labels = image[..., 0] % 11
    np.testing.assert_array_equal(rig.array_of(found["labels"]), vote(labels, (40, 48)))
    assert (found["labels"].width, found["labels"].step) == (48, 48)
    assert (found["confidence"].height, found["confidence"].width, found["confidence"].step) == (40, 48, 48)
    assert found["labels_color"].width == 48 and (found["overlay"].height, found["overlay"].width) == rig.SIZE
    bench.spin_until(lambda: all(bench.received[topic] for topic in INFOS))
    labels_info, grid_info = (bench.received[topic][-1] for topic in INFOS)
    assert labels_info.header == grid_info.header == message.header
    assert (labels_info.height, labels_info.width) == (40, 48)
    np.testing.assert_allclose(labels_info.k[:6], [30, 0, 23.5, 0, 100 / 3, 19.5])
    # The stand-in's grid: 3 x 4, its outermost pixels on the image's.
    assert (grid_info.height, grid_info.width) == (3, 4)
    np.testing.assert_allclose(grid_info.k[:6], [100 * 3 / 159, 0, 1.5, 0, 100 * 2 / 119, 1.0])
    shares = found["probabilities"]
    assert (shares.encoding, shares.height, shares.width, shares.step) == ("32FC11", 3, 4, 4 * 11 * 4)
    np.testing.assert_array_equal(np.frombuffer(shares.data, "<f4"), np.arange(3 * 4 * 11))


def test_the_size_changes_while_active_and_a_wrong_one_is_refused(rig, bench):
    assert bench.set("labels_size", "").successful and bench.set("labels_scale", 0.5).successful
    found = bench.exchange(bench.image(rig.picture(4)))
    assert [(found[one].height, found[one].width) for one in ("labels", "confidence")] == [(60, 80)] * 2
    refused = bench.set("labels_size", "half")
    assert not refused.successful and refused.reason.startswith("labels_size: expected WIDTHxHEIGHT")


def test_what_keeps_a_camera_info_back_is_said_once(rig, bench):
    publisher = bench.publisher("camera_info", CameraInfo)
    bench.spin_until(lambda: publisher.get_subscription_count() > 0)
    topic = f"{bench.namespace}/camera_info"
    empty = CameraInfo(height=rig.SIZE[0], width=rig.SIZE[1])
    for info, said in ((camera((60, 80)), f"{topic} describes 80 x 60"), (empty, f"K and P of {topic} are empty")):
        publisher.publish(info)
        bench.idle()
        for _ in range(2):
            bench.exchange(bench.image(rig.picture()))
        bench.spin_until(lambda said=said: bench.logged(said))
        assert len(bench.logged(said)) == 1
    assert not bench.received["labels/camera_info"]


def test_a_camera_info_that_does_not_come_is_said_once(rig, bench, monkeypatch):
    monkeypatch.setattr("vidseg_ros.calibration.GRACE_S", 0.0)
    for _ in range(2):
        bench.exchange(bench.image(rig.picture()))
    said = f"no camera_info comes on {bench.namespace}/camera_info, so nothing can be published on labels/camera_info"
    bench.spin_until(lambda: bench.logged(said))
    bench.exchange(bench.image(rig.picture()))
    assert len(bench.logged(said)) == 1


def test_a_missing_vision_msgs_is_said_once_somebody_wants_label_info(rig, bench):
    if any("label_info" in one.topic_name for one in bench.node.publishers):
        pytest.skip("vision_msgs is installed")
    bench.spin_reports(2)
    assert not bench.logged("vision_msgs")
    bench.listen("label_info", String)  # whoever asks for it
    bench.spin_until(lambda: bench.logged("vision_msgs"))
    bench.spin_reports(2)
    [said] = bench.logged("vision_msgs")
    assert f"{bench.namespace}/label_info" in said and "ros-$ROS_DISTRO-vision-msgs" in said


def test_label_info_is_there_for_whoever_comes_later(rig, bench):
    messages = pytest.importorskip("vision_msgs.msg", reason="needs vision_msgs, which comes with a ROS distribution")
    bench.listen("label_info", messages.LabelInfo, LATCHED)
    bench.spin_until(lambda: bench.received["label_info"])
    [info] = bench.received["label_info"]
    legend = json.loads(bench.latched("legend"))["classes"]
    assert [(one.class_id, one.class_name) for one in info.class_map] == [(one["id"], one["name"]) for one in legend]


def test_confidence_and_probabilities_are_computed_only_while_somebody_listens(rig, ros):
    engine = rig.StandIn()
    with rig.Rig(ros, engine) as bench:
        bench.prime()
        stream = engine.streams[-1]
        assert not stream.confidence and not stream.probabilities
        bench.listen("confidence", Image)
        bench.spin_until(lambda: bench.node.count_subscribers(f"{bench.namespace}/confidence") == 1)
        bench.idle()
        bench.exchange(bench.image(rig.picture()))
        bench.spin_until(lambda: bench.received["confidence"])
        assert stream.confidence and not stream.probabilities
        assert bench.received["confidence"][0].encoding == "mono8"


def test_a_camera_info_stands_beside_the_images_unless_it_is_remapped(rig, ros):
    topic = "/cam/image_raw"
    for rules, expected in ([], "/cam/camera_info"), (["camera_info:=/elsewhere/info"], "/elsewhere/info"):
        with rig.Rig(ros, rig.StandIn(), outputs=(), remap=[f"image_raw:={topic}", *rules]) as bench:
            bench.listen("labels/camera_info", CameraInfo)
            bench.spin_until(lambda expected=expected: bench.tester.count_subscribers(expected) == 1)
            assert bench.node.cameras[0].topic == topic
