"""Labels at another size: by vote, not by interpolation."""

import numpy as np
import pytest

from vidseg_core.kernels.vote import vote


def test_the_class_that_covers_most_of_a_pixel_wins():
    labels = np.array([[7, 7, 3, 255], [7, 2, 3, 255], [1, 1, 9, 5], [0, 0, 8, 5]], np.uint8)
    # Of two equals the smaller id: void never wins against as much of a class.
    np.testing.assert_array_equal(vote(labels, (2, 2)), [[7, 3], [0, 5]])


def test_areas_count_not_pixels():
    # Each of two output pixels covers one and a half input pixels: the middle one counts half.
    np.testing.assert_array_equal(vote(np.array([[4, 1, 6]], np.uint8), (1, 2)), [[4, 6]])
    # Three rows of five in two: 2.5 rows each; the middle row's half decides between two pairs.
    column = np.array([[9], [5], [5], [9], [9]], np.uint8)
    np.testing.assert_array_equal(vote(column, (2, 1)), [[5], [9]])


def test_it_makes_labels_larger_too():
    np.testing.assert_array_equal(vote(np.array([[4, 200]], np.uint8), (2, 4)), [[4, 4, 200, 200]] * 2)


def test_no_id_comes_in_between():
    labels = np.repeat(np.array([[0, 10]], np.uint8), 8, 1).repeat(6, 0)
    assert set(np.unique(vote(labels, (5, 7)))) == {0, 10}


def test_the_same_size_is_the_same_array():
    labels = np.zeros((3, 4), np.uint8)
    assert vote(labels, (3, 4)) is labels


@pytest.mark.parametrize("order", ["C", "F"])
def test_labels_may_lie_in_memory_in_any_order(order):
    labels = np.random.default_rng(0).integers(0, 3, (31, 47)).astype(np.uint8)
    np.testing.assert_array_equal(vote(np.asarray(labels, order=order), (10, 13)), vote(labels, (10, 13)))
