"""Labelled points: where they are, and what they are called."""

import numpy as np
import pytest

from vidseg_core.kernels.points import Labelled, cloud_points, depth_points

PROJECTION = np.array([[100.0, 0, 2, 0], [0, 50.0, 1, 0], [0, 0, 1, 0]])


@pytest.fixture
def picture():
    image = np.zeros((3, 5, 3), np.uint8)
    image[1, 4] = 1, 2, 3
    labels = np.arange(15, dtype=np.uint8).reshape(3, 5)
    return Labelled(image, labels, np.full((3, 5), 51, np.uint8))


def read(points):
    """Positions, colours, labels, confidence."""
    numbers = points.view(np.float32)
    return numbers[..., :3], points.view(np.uint32)[..., 3], points.view(np.uint32)[..., 4], numbers[..., 5]


def test_a_point_of_each_pixel_at_its_depth(picture):
    depth = np.zeros((3, 5), np.uint16)
    depth[1, 4] = 2500
    positions, colours, labels, confidence = read(depth_points(picture, depth, PROJECTION))
    np.testing.assert_allclose(positions[1, 4], [(4 - 2) * 2.5 / 100, 0.0, 2.5])
    assert np.isnan(positions).all(2).sum() == 14 and colours[1, 4] == 0x010203
    np.testing.assert_array_equal(labels, picture.labels)
    np.testing.assert_allclose(confidence, 0.2)


def test_labels_of_half_the_size_take_the_depth_at_their_centre():
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 50, (8, 12)).astype(np.float32)
    picture = Labelled(
        rng.integers(0, 256, (8, 12, 3), dtype=np.uint8), np.arange(24, dtype=np.uint8).reshape(4, 6), None
    )
    positions, _, labels, confidence = read(depth_points(picture, depth, PROJECTION))
    np.testing.assert_array_equal(positions[..., 2], depth[1::2, 1::2])
    assert labels.shape == (4, 6) and np.isnan(confidence).all()
    # Seen by the camera of the smaller image, every point lies in the pixel whose label it has.
    u, v = (
        (positions[..., 0] * 100 / positions[..., 2] + 2.5) / 2,
        (positions[..., 1] * 50 / positions[..., 2] + 1.5) / 2,
    )
    np.testing.assert_array_equal(np.floor(v) * 6 + np.floor(u), labels)


def test_the_depth_is_that_of_a_pixel_with_the_label():
    """A pole in front of the sky: its pixel's point must not be called sky."""
    fine = np.array([[0, 2, 0, 0], [0, 0, 0, 2]], np.uint8)
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    depth = np.array([[9, 5, 9, 8], [9, 7, 6, 5]], np.float32)
    voted = Labelled(image, np.array([[0, 0]], np.uint8), None, fine)
    positions, colours, labels, _ = read(depth_points(voted, depth, PROJECTION))
    # At the centres, row 1 and columns 1 and 3, there are sky and a pole; sky is above that.
    np.testing.assert_allclose(positions[0], [[-1 * 7 / 100, 0, 7], [1 * 8 / 100, -1 * 8 / 50, 8]], rtol=1e-6)
    assert (labels == 0).all() and list(colours[0]) == [0x0F1011, 0x090A0B]
    with_pole = Labelled(image, np.array([[2, 3]], np.uint8), None, fine)
    np.testing.assert_allclose(read(depth_points(with_pole, depth, PROJECTION))[0][0, :, 2], [5, np.nan])


def test_every_nth_row_and_column(picture):
    depth = np.full((3, 5), 1.0, np.float32)
    whole, thin = (read(depth_points(picture, depth, PROJECTION, stride)) for stride in (1, 2))
    for every, nth in zip(whole, thin, strict=True):
        np.testing.assert_array_equal(every[::2, ::2], nth)


def test_a_cloud_keeps_its_points_and_gets_labels_where_the_image_shows_them(picture):
    positions = np.array([[[0, 0, 1], [0.02, 0, 1], [0.03, 0, 1], [0, 0, -1], [np.nan, 0, 1], [-0.02, -0.02, 1]]])
    positions = positions.astype(np.float32)
    got, colours, labels, confidence = read(cloud_points(picture, positions, PROJECTION))
    np.testing.assert_array_equal(got, positions)
    np.testing.assert_array_equal(labels[0], [7, 9, 255, 255, 255, 0])
    np.testing.assert_array_equal(colours[0], [0, 0x010203, 0, 0, 0, 0])
    np.testing.assert_allclose(confidence[0], [0.2, 0.2, 0, 0, 0, 0.2])


def test_an_empty_cloud_stays_empty(picture):
    assert cloud_points(picture, np.empty((1, 0, 3), np.float32), PROJECTION).shape == (1, 0, 24)


def test_what_is_refused(picture):
    with pytest.raises(ValueError, match="expected a depth image, uint16 or float32"):
        depth_points(picture, np.zeros((3, 5), np.uint8), PROJECTION)
    with pytest.raises(ValueError, match=r"a stride of 1 or more, got uint16 \(3, 5\) and 0"):
        depth_points(picture, np.zeros((3, 5), np.uint16), PROJECTION, 0)
    with pytest.raises(ValueError, match=r"expected labels of \(3, 5\), got \(2, 5\)"):
        cloud_points(Labelled(picture.image, picture.labels[:2], None), np.zeros((1, 1, 3), np.float32), PROJECTION)
