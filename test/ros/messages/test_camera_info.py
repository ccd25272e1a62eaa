"""Calibration of images at another size: rays stay where they are."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from sensor_msgs.msg import CameraInfo, RegionOfInterest  # noqa: E402

from vidseg_ros.messages import camera_info  # noqa: E402


def camera(**fields):
    return CameraInfo(
        height=720, width=1280, distortion_model="plumb_bob", d=[0.1, 0.0, 0.0, 0.0, 0.0],
        k=[700.0, 0.0, 630.0, 0.0, 710.0, 350.0, 0.0, 0.0, 1.0], r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[690.0, 0.0, 640.0, -69.0, 0.0, 695.0, 360.0, 6.95, 0.0, 0.0, 1.0, 0.0], **fields,
    )  # fmt: skip


def pixel(info, point):
    u, v, w = camera_info.projection(info) @ [*point, 1.0]
    return np.array([u / w, v / w])


def test_pixels_that_cover_equal_parts():
    small = camera_info.resized(camera(), (360, 320))
    assert (small.height, small.width, small.distortion_model) == (360, 320, "plumb_bob")
    point = 0.4, -0.2, 3.0
    u, v = pixel(camera(), point)
    np.testing.assert_allclose(pixel(small, point), [(u + 0.5) / 4 - 0.5, (v + 0.5) / 2 - 0.5])
    np.testing.assert_allclose(small.k, [175, 0, 157.125, 0, 355, 174.75, 0, 0, 1])
    np.testing.assert_allclose([small.p[3], small.p[7]], [-69 / 4, 6.95 / 2])
    assert list(small.d) == list(camera().d) and list(small.r) == list(camera().r)


def test_a_grid_whose_outermost_pixels_lie_on_the_image_s():
    grid = camera_info.on_grid(camera(), (181, 321))
    point = 0.4, -0.2, 3.0
    u, v = pixel(camera(), point)
    np.testing.assert_allclose(pixel(grid, point), [u * 320 / 1279, v * 180 / 719])


def test_region_of_interest_and_binning_are_counted_in():
    info = camera(binning_x=2, binning_y=4, roi=RegionOfInterest(x_offset=100, y_offset=40, width=800, height=400))
    assert camera_info.image_size(info) == (100, 400)
    image = camera_info.of_image(info)
    assert (image.height, image.width, image.binning_x, image.roi.x_offset) == (100, 400, 0, 0)
    # image_geometry: the centre less the region's corner, all divided by the binning.
    np.testing.assert_allclose(image.k, [350, 0, 265, 0, 177.5, 77.5, 0, 0, 1])
    np.testing.assert_allclose(image.p, [345, 0, 270, -34.5, 0, 173.75, 80, 1.7375, 0, 0, 1, 0])


def test_without_region_or_binning_nothing_changes():
    image = camera_info.of_image(camera(binning_x=1))
    assert (list(image.k), list(image.p), image.width) == (list(camera().k), list(camera().p), 1280)


def test_an_empty_p_gives_way_to_k():
    info = camera()
    info.p = [0.0] * 12
    np.testing.assert_array_equal(camera_info.projection(info)[:, :3].ravel(), camera().k)
