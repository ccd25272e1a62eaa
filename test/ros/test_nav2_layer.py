"""A stand-in of Nav2's semantic_segmentation_layer, and whether it gets what it wants.

Written from what the plugin's README and its subscriptions say: sensor data QoS, depth 50, for mask, confidence and
cloud; reliable and transient local for the class names; sets by exact stamps, or by near ones; then a walk over the
mask's pixels, row by row, with one point of the cloud for each.
"""

from collections import defaultdict

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, PointCloud2  # noqa: E402

from vidseg_core.classes import load_classes  # noqa: E402
from vidseg_core.kernels.vote import vote  # noqa: E402
from vidseg_core.street import Street, StreetConfig  # noqa: E402

SENSOR_DATA = QoSProfile(
    depth=50,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.BEST_EFFORT,
    durability=DurabilityPolicy.VOLATILE,
)
CLOSE_NS = 5_000_000
FRAMES = 20


class Layer:
    """Subscribe as the layer does, and put messages together.

    Args:
        exact: whether stamps have to be equal; else they may be `CLOSE_NS` apart.
    """

    def __init__(self, bench, exact):
        self._exact = exact
        self._waiting = defaultdict(dict)
        self.sets = []
        for topic, kind in ("labels", Image), ("confidence", Image), ("labels_points", PointCloud2):
            take = self._take(topic)
            bench.tester.create_subscription(kind, topic, take, SENSOR_DATA)

    def _take(self, topic):
        def take(message):
            stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
            near = [ns for ns in self._waiting if ns == stamp_ns or (not self._exact and abs(ns - stamp_ns) < CLOSE_NS)]
            found = self._waiting[near[0] if near else stamp_ns]
            found[topic] = message
            if len(found) == 3:
                self.sets.append((found["labels"], found["confidence"], found["labels_points"]))

        return take


def tiles(mask, confidence, cloud, resolution=0.25, nearest=0.3, farthest=20.0):
    """Class and confidence of each cell of the costmap that a set of messages sees, as the layer finds them."""
    steps = {field.name: field.offset for field in cloud.fields}
    assert mask.encoding == confidence.encoding == "mono8"
    found = {}
    for pixel in range(mask.height * mask.width):  # of unpadded images: index of both, and of the point
        at = pixel * cloud.point_step
        x, y, z = (np.frombuffer(cloud.data, "<f4", 1, at + steps[name])[0] for name in "xyz")
        if not np.isfinite(z) or not nearest < np.sqrt(x * x + y * y + z * z) < farthest:
            continue
        cell = int(np.floor(x / resolution)), int(np.floor(z / resolution))
        if cell not in found or confidence.data[pixel] > found[cell][1]:
            found[cell] = mask.data[pixel], confidence.data[pixel]
    return found


@pytest.fixture(scope="module")
def world():
    """A street's depth and calibration; the stand-in engine labels by the red channel."""
    street = Street(StreetConfig(seed=3, width=320, height=240, num_frames=2))
    frame, k = street.render(1), street.intrinsics()
    image = np.repeat(frame.labels[..., None], 3, 2)
    info = CameraInfo(height=240, width=320, k=k.ravel(), p=np.hstack([k, np.zeros((3, 1))]).ravel())
    return image, street.depth(1), info


@pytest.mark.parametrize("exact", [True, False], ids=["exact stamps", "near stamps"])
def test_every_labelled_frame_makes_a_set_at_another_size_than_the_camera_s(rig, ros, world, exact):
    image, depth, info = world
    size = (60, 80)
    with rig.Rig(ros, rig.StandIn(), outputs=("labels",), labels_size="80x60") as bench:
        layer = Layer(bench, exact)
        bench.prime()
        depths, calibration = bench.publisher("depth", Image), bench.publisher("camera_info", CameraInfo)
        bench.spin_until(lambda: depths.get_subscription_count() and calibration.get_subscription_count())
        calibration.publish(info)
        bench.idle()
        layer.sets.clear()
        for _ in range(FRAMES):
            stamp_ns = bench.next_stamp()
            # A depth camera that is not triggered with the other.
            depths.publish(bench.image(depth, "32FC1", stamp_ns - 3_000_000))
            bench.exchange(bench.image(image, stamp_ns=stamp_ns))
        bench.idle()
        masks = bench.received["labels"]
        assert len(masks) == len(layer.sets) == FRAMES, "100 % of labelled frames make a set"
    for mask, confidence, cloud in layer.sets:
        assert mask.header == confidence.header == cloud.header
        assert (mask.height, mask.width, mask.step) == (*size, 80) and len(mask.data) == 60 * 80
        assert (confidence.height, confidence.width, confidence.step) == (*size, 80)
        assert cloud.height * cloud.width == mask.height * mask.width and (cloud.height, cloud.width) == size
    labels = vote(image[..., 0], size)
    np.testing.assert_array_equal(rig.array_of(mask), labels)
    words = np.frombuffer(cloud.data, np.uint32).reshape(*size, 6)
    np.testing.assert_array_equal(words[..., 4], labels)
    # Every point lies where the camera of the mask sees its pixel.
    numbers = words.view(np.float32)
    scale = info.width / size[1]
    valid = np.isfinite(numbers[..., 2])
    rows, columns = np.nonzero(valid)
    x, y, z = numbers[valid][:, :3].T
    u, v = info.k[0] * x / z + info.k[2], info.k[4] * y / z + info.k[5]
    np.testing.assert_array_equal(np.floor((u + 0.5) / scale), columns)
    np.testing.assert_array_equal(np.floor((v + 0.5) / scale), rows)
    np.testing.assert_array_equal(image[np.rint(v).astype(int), np.rint(u).astype(int), 0], labels[valid])
    names = load_classes("camvid").names
    seen = {names[one] for one, _ in tiles(mask, confidence, cloud).values()}
    assert {"road", "building", "car"} <= seen and "sky" not in seen


def test_the_configuration_names_our_topics_and_every_class(checkout):
    text = (checkout / "config/nav2_semantic_layer.yaml").read_text(encoding="utf-8")
    given = yaml.safe_load(text)["local_costmap"]["local_costmap"]["ros__parameters"]
    assert set(given["plugins"]) <= set(given)
    layer = given["semantic_segmentation_layer"]
    assert layer["plugin"] == "semantic_segmentation_layer::SemanticSegmentationLayer"
    source = layer[layer["observation_sources"]]
    wanted = {
        "segmentation": "labels",
        "confidence": "confidence",
        "labels": "label_info",
        "pointcloud": "labels_points",
    }
    assert {name: source[f"{name}_topic"] for name in wanted} == {k: f"/front/{v}" for k, v in wanted.items()}
    names = [name for kind in source["class_types"] for name in source[kind]["classes"]]
    assert sorted(names) == sorted(load_classes("camvid").names)
    for kind in source["class_types"]:
        costs = source[kind]
        assert set(costs) == {
            "classes", "base_cost", "max_cost", "mark_confidence", "samples_to_max_cost", "dominant_priority"
        }  # fmt: skip
        assert 0 <= costs["base_cost"] <= costs["max_cost"] <= 254
    page = (checkout / "docs/nav2.md").read_text(encoding="utf-8")
    assert all(f"`{topic}`" in page for topic in wanted.values())
