"""Labelled points through the node: from depth images and from clouds, matched by stamp, and what is said once."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from sensor_msgs.msg import CameraInfo, Image, PointCloud2  # noqa: E402

from vidseg_core.data.wire import PointField, serialise_point_cloud  # noqa: E402
from vidseg_ros import points  # noqa: E402

FOCAL, CX, CY = 100.0, 79.5, 59.5
XYZ = tuple(PointField(name, 4 * i, 7) for i, name in enumerate("xyz"))


def camera(size=(120, 160), d=()):
    p = [FOCAL, 0.0, CX, 0.0, 0.0, FOCAL, CY, 0.0, 0.0, 0.0, 1.0, 0.0]
    return CameraInfo(height=size[0], width=size[1], d=list(d), k=[p[i] for i in (0, 1, 2, 4, 5, 6, 8, 9, 10)], p=p)


def read(message):
    """Positions, colours, labels and confidence of a cloud."""
    words = np.frombuffer(message.data, np.uint32).reshape(message.height, message.width, 6)
    numbers = words.view(np.float32)
    return numbers[..., :3], words[..., 3], words[..., 4], numbers[..., 5]


def depth_image(bench, depth, stamp_ns, **fields):
    encoding = {"uint16": "16UC1", "float32": "32FC1", "uint8": "mono8"}[depth.dtype.name]
    return bench.image(depth, encoding, stamp_ns, **fields)


def cloud_of(bench, positions, stamp_ns, frame_id="optical"):
    header = bench.header(stamp_ns)
    header.frame_id = frame_id
    return serialise_point_cloud(header, XYZ, np.ascontiguousarray(positions, dtype="<f4").view(np.uint8))


class Bench:
    """A rig whose node is calibrated, and whose source of points is connected."""

    def __init__(self, rig, ros, engine=None, **parameters):
        self.rig = rig.Rig(ros, engine or rig.StandIn(), outputs=("labels",), **parameters)
        self.pictures = rig
        self.is_depth = parameters.get("points_from", "depth") == "depth"

    def __enter__(self):
        bench = self.rig.__enter__()
        bench.listen("labels_points", PointCloud2)
        bench.prime()
        self.source = bench.publisher(*(("depth", Image) if self.is_depth else ("points", PointCloud2)))
        self.calibration = bench.publisher("camera_info", CameraInfo)
        bench.spin_until(lambda: self.source.get_subscription_count() and self.calibration.get_subscription_count())
        bench.spin_until(lambda: bench.tester.count_publishers(f"{bench.namespace}/labels_points"))
        self.calibrate(camera())
        return self

    def __exit__(self, *error):
        self.rig.__exit__(*error)

    def calibrate(self, info):
        self.calibration.publish(info)
        self.rig.idle()

    @property
    def clouds(self):
        return self.rig.received["labels_points"]

    def show(self, image=None, stamp_ns=None):
        """Have an image labelled; returns it and its message."""
        image = self.pictures.picture(5) if image is None else image
        message = self.rig.image(image, stamp_ns=stamp_ns)
        self.rig.exchange(message)
        return image, message

    def depth(self, depth, stamp_ns, **fields):
        self.source.publish(depth_image(self.rig, depth, stamp_ns, **fields))

    def cloud(self, positions, stamp_ns, frame_id="optical"):
        self.source.publish(cloud_of(self.rig, positions, stamp_ns, frame_id))

    def next(self):
        self.rig.spin_until(lambda: self.clouds)
        return self.clouds.pop()

    def said(self, text):
        self.rig.spin_until(lambda: self.rig.logged(text))
        [line] = self.rig.logged(text)
        return line


@pytest.fixture(scope="module")
def depths(rig, ros):
    with Bench(rig, ros) as bench:
        yield bench


@pytest.fixture(scope="module")
def clouds(rig, ros):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tf2_ros", None)
        with Bench(rig, ros, points_from="cloud") as bench:
            yield bench


@pytest.mark.parametrize("depth_first", [True, False])
def test_depth_in_millimetres_and_metres_before_and_after_the_image(depths, depth_first):
    depth = np.random.default_rng(0).integers(0, 30000, (120, 160)).astype(np.uint16)
    depth[:10] = 0
    given = depth if depth_first else (depth / 1000).astype(np.float32)
    v, u = np.mgrid[:120, :160]
    stamp_ns = depths.rig.next_stamp()
    if depth_first:
        depths.depth(given, stamp_ns)
        depths.rig.idle()
    image, message = depths.show(stamp_ns=stamp_ns)
    if not depth_first:
        assert not depths.clouds
        depths.depth(given, stamp_ns)
    got = depths.next()
    assert got.header == message.header and (got.height, got.width, got.point_step) == (120, 160, 24)
    assert [field.name for field in got.fields] == ["x", "y", "z", "rgb", "label", "confidence"]
    positions, colours, labels, confidence = read(got)
    valid = depth > 0
    assert (np.isfinite(positions).all(2) == valid).all()
    z = depth[valid] / 1000
    expected = np.stack([(u[valid] - CX) * z / FOCAL, (v[valid] - CY) * z / FOCAL, z], -1)
    np.testing.assert_allclose(positions[valid], expected, rtol=1e-5)
    np.testing.assert_array_equal(labels, image[..., 0] % 11)
    np.testing.assert_array_equal(colours, image.astype(np.uint32) @ [1 << 16, 1 << 8, 1])
    np.testing.assert_allclose(confidence, 128 / 255)


def test_matching_by_stamp(depths):
    """The nearest within the slop is taken, and nothing else; none is used for two images."""
    ms, bench = 1_000_000, depths.rig
    assert bench.set("points_slop_s", 0.01).successful and bench.set("labels_size", "16x12").successful
    stamp_ns = bench.next_stamp()
    for off_ms, metres in (-9, 1), (3, 2), (11, 3):
        depths.depth(np.full((12, 16), metres, np.float32), stamp_ns + off_ms * ms)
    bench.idle()
    depths.show(stamp_ns=stamp_ns)
    assert (read(depths.next())[0][..., 2] == 2).all()
    depths.show(stamp_ns=stamp_ns + 33 * ms)
    bench.idle()
    assert not depths.clouds
    depths.depth(np.full((12, 16), 4, np.float32), stamp_ns + 40 * ms)
    assert (read(depths.next())[0][..., 2] == 4).all()
    # A recording that begins again.
    depths.show(stamp_ns=stamp_ns)
    depths.depth(np.full((12, 16), 5, np.float32), stamp_ns)
    assert (read(depths.next())[0][..., 2] == 5).all()
    assert bench.set("points_slop_s", 0.02).successful and bench.set("labels_size", "").successful


def test_a_late_depth_image_does_not_cost_its_pair(rig, ros):
    """It comes while the worker is at the next image, whose own depth image is there already."""
    engine, gate = rig.StandIn(), rig.Gate()
    with Bench(rig, ros, engine) as bench:
        depth = np.ones((120, 160), np.float32)
        _, first = bench.show()
        stamp_ns = bench.rig.next_stamp()
        engine.before = gate
        bench.rig.publisher("image_raw").publish(bench.rig.image(rig.picture(), stamp_ns=stamp_ns))
        bench.rig.spin_until(gate.reached.is_set)
        bench.depth(depth, rig.stamp_of(first))
        bench.depth(depth, stamp_ns)
        bench.rig.idle()
        gate.open()
        bench.rig.spin_until(lambda: len(bench.clouds) == 2)
        assert [rig.stamp_of(cloud) for cloud in bench.clouds] == [rig.stamp_of(first), stamp_ns]


def test_depth_images_that_cannot_be_used_are_said_once(depths):
    small, grey, whole = np.ones((60, 81), np.uint16), np.ones((120, 160), np.uint8), np.ones((120, 160), np.uint16)
    for depth, fields, said in (
        (small, {}, "of its 160 x 120 pixels or the labels' 160 x 120, got 81 x 60"),
        (grey, {}, "expected a depth image of 16UC1, mono16, 32FC1, got 'mono8'"),
        (whole, {"step": 319}, "expected a step of at least 320 bytes"),
    ):
        for _ in range(2):
            _, message = depths.show()
            depths.depth(depth, depths.pictures.stamp_of(message), **fields)
            depths.rig.idle()
        assert f"{depths.rig.namespace}/depth: " in depths.said(said)
    assert not depths.clouds and depths.rig.node.exit_code is None
    _, message = depths.show()
    depths.depth(whole, depths.pictures.stamp_of(message))
    assert depths.next().width == 160


def test_big_endian_depth_with_padded_rows_and_every_third_pixel(depths):
    assert depths.rig.set("points_stride", 3).successful
    depth = np.arange(120 * 160, dtype=np.uint16).reshape(120, 160) + 1
    image, message = depths.show()
    stamp_ns = depths.pictures.stamp_of(message)
    depths.source.publish(depths.rig.image(depth.astype(">u2"), "16UC1", stamp_ns, 6, is_bigendian=1))
    positions, _, labels, _ = read(depths.next())
    np.testing.assert_allclose(positions[..., 2], depth[::3, ::3] / 1000, rtol=1e-6)
    np.testing.assert_array_equal(labels, (image[..., 0] % 11)[::3, ::3])
    assert depths.rig.set("points_stride", 1).successful


def test_a_lens_that_distorts_and_a_calibration_that_does_not_fit_are_said(depths):
    for info, said in (
        (camera(d=(0.1, 0, 0, 0, 0)), "labels_points takes images as rectified"),
        (camera((60, 80)), "describes 80 x 60"),
    ):
        depths.calibrate(info)
        for _ in range(2):
            _, message = depths.show()
            depths.depth(np.ones((120, 160), np.uint16), depths.pictures.stamp_of(message))
            depths.rig.idle()
        assert f"{depths.rig.namespace}/camera_info" in depths.said(said)
    assert len(depths.clouds) == 2
    depths.clouds.clear()
    depths.calibrate(camera())


def test_images_without_depth_are_said_once(rig, ros):
    with Bench(rig, ros) as bench:
        for _ in range(points.MOST_PICTURES + 2):
            bench.show()
        said = bench.said("no message on")
        assert f"{bench.rig.namespace}/depth has a stamp within points_slop_s (0.02 s)" in said
        assert "none has come" in said


def seen_by(positions):
    """Rows and columns of the pixels that a camera at the origin sees positions at."""
    x, y, z = np.moveaxis(positions, -1, 0)
    return np.floor(FOCAL * y / z + CY + 0.5).astype(int), np.floor(FOCAL * x / z + CX + 0.5).astype(int)


@pytest.mark.parametrize("shape", [(6, 8), (1, 48)])
def test_a_cloud_in_the_camera_s_own_frame(clouds, shape):
    rng = np.random.default_rng(0)
    positions = np.stack([rng.uniform(-3, 3, shape), rng.uniform(-2, 2, shape), rng.uniform(2, 6, shape)], -1)
    positions[0, 1], positions[0, 2] = np.nan, (0, 0, -1)
    image, message = clouds.show()
    clouds.cloud(positions, clouds.pictures.stamp_of(message) - 5_000_000)
    got = clouds.next()
    assert got.header == message.header and (got.height, got.width) == shape
    at, colours, labels, confidence = read(got)
    np.testing.assert_array_equal(at, positions.astype(np.float32))
    with np.errstate(invalid="ignore"):
        rows, columns = seen_by(positions)
    seen = (positions[..., 2] > 0) & (rows >= 0) & (rows < 120) & (columns >= 0) & (columns < 160)
    assert 0 < seen.sum() < seen.size
    np.testing.assert_array_equal(labels[seen], image[rows[seen], columns[seen], 0] % 11)
    assert (labels[~seen] == 255).all() and (confidence[~seen] == 0).all() and (colours[~seen] == 0).all()
    assert clouds.rig.set("points_stride", 2).successful
    _, message = clouds.show()
    clouds.cloud(positions, clouds.pictures.stamp_of(message))
    thin = positions[:, ::2] if shape[0] == 1 else positions[::2, ::2]
    np.testing.assert_array_equal(read(clouds.next())[0], thin.astype(np.float32))
    _, message = clouds.show()
    clouds.cloud(np.empty((1, 0, 3)), clouds.pictures.stamp_of(message))
    assert (clouds.next().width, clouds.rig.logged("labels_points")) == (0, [])
    assert clouds.rig.set("points_stride", 1).successful


# A lidar whose x points forward (the camera's z), y to the left (-x), z up (-y), 0.5 m above the camera.
EXTRINSIC = (0.0, -0.5, 0.0, 0.5, -0.5, 0.5, 0.5)
SEEN = np.array([[[4, 0, 0], [4, 1, 0], [4, 0, -1], [5, -2, 0.5]]], dtype=float)


def in_camera(positions):
    return np.stack([-positions[..., 1], -positions[..., 2] - 0.5, positions[..., 0]], -1)


def test_a_pose_is_read_as_tf_has_it():
    positions = np.random.default_rng(0).normal(size=(5, 3))
    turned = positions @ points.matrix(EXTRINSIC)[:3, :3].T + points.matrix(EXTRINSIC)[:3, 3]
    np.testing.assert_allclose(turned, in_camera(positions), atol=1e-12)
    twice = points.matrix((*EXTRINSIC[:3], *(2 * x for x in EXTRINSIC[3:])))
    np.testing.assert_allclose(twice, points.matrix(EXTRINSIC))


def labelled_in_the_frame_of_a_lidar(bench):
    image, message = bench.show()
    bench.cloud(SEEN, bench.pictures.stamp_of(message), "lidar")
    got = bench.next()
    assert got.header.frame_id == "lidar" and got.header.stamp == message.header.stamp
    at, _, labels, _ = read(got)
    rows, columns = seen_by(in_camera(SEEN))
    np.testing.assert_array_equal(at, SEEN)
    np.testing.assert_array_equal(labels, image[rows, columns, 0] % 11)


def test_a_cloud_in_another_frame_needs_a_pose(clouds):
    for _ in range(2):
        _, message = clouds.show()
        clouds.cloud(SEEN, clouds.pictures.stamp_of(message), "lidar")
        clouds.rig.idle()
    said = clouds.said("the cloud is in frame 'lidar', images in 'optical'")
    assert "tf2_ros is not installed" in said and "set points_extrinsic" in said
    assert clouds.rig.set("points_extrinsic", " ".join(map(str, EXTRINSIC))).successful
    labelled_in_the_frame_of_a_lidar(clouds)


class TransformError(Exception):
    pass


class Buffer:
    """A tf2 buffer that knows one frame."""

    def lookup_transform(self, target, source, time):
        if (target, source) != ("optical", "lidar"):
            raise TransformError(f"{source} does not exist")
        x, y, z, qx, qy, qz, qw = EXTRINSIC
        rotation = SimpleNamespace(x=qx, y=qy, z=qz, w=qw)
        return SimpleNamespace(transform=SimpleNamespace(translation=SimpleNamespace(x=x, y=y, z=z), rotation=rotation))


def test_tf2_tells_the_pose_where_it_is_installed(rig, ros, monkeypatch):
    listeners = []
    tf2 = SimpleNamespace(
        Buffer=Buffer,
        TransformException=TransformError,
        TransformListener=lambda buffer, node: listeners.append(node) or SimpleNamespace(unregister=listeners.clear),
    )
    monkeypatch.setitem(sys.modules, "tf2_ros", tf2)
    with Bench(rig, ros, points_from="cloud") as bench:
        labelled_in_the_frame_of_a_lidar(bench)
        assert listeners == [bench.rig.node]
        _, message = bench.show()
        bench.cloud(SEEN, bench.pictures.stamp_of(message), "radar")
        assert "tf2 has no transform from 'radar' to 'optical': radar does not exist" in bench.said("radar")
    assert listeners == []


def test_nothing_is_subscribed_to_while_nobody_wants_points(rig, ros):
    with rig.Rig(ros, rig.StandIn()) as bench:
        bench.prime()
        depth = f"{bench.namespace}/depth"
        bench.spin_reports(2)
        assert bench.tester.count_subscribers(depth) == 0
        subscription = bench.listen("labels_points", PointCloud2)
        bench.spin_until(lambda: bench.tester.count_subscribers(depth) == 1)
        bench.tester.destroy_subscription(subscription)
        bench.spin_until(lambda: bench.tester.count_subscribers(depth) == 0)
        assert bench.tester.count_subscribers(f"{bench.namespace}/camera_info") == 0
