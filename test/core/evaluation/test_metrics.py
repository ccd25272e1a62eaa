import numpy as np
import pytest

from vidseg_core.evaluation.metrics import ConfusionMatrix


def labels(*rows):
    return np.array(rows, dtype=np.uint8)


def test_counts_and_figures_of_a_small_image():
    matrix = ConfusionMatrix(3)
    matrix.update(labels([0, 0, 1, 1]), labels([0, 1, 1, 255]))
    assert matrix.counts.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert matrix.num_pixels == 3
    np.testing.assert_allclose(matrix.iou(), [0.5, 0.5, np.nan])
    assert matrix.mean_iou() == 0.5
    assert matrix.pixel_accuracy() == pytest.approx(2 / 3)


def test_void_predictions_are_wrong_but_no_false_positives():
    matrix = ConfusionMatrix(2)
    matrix.update(labels([0, 255, 1, 1]), labels([0, 0, 1, 255]))
    np.testing.assert_allclose(matrix.iou(), [0.5, 1.0])
    assert matrix.pixel_accuracy() == pytest.approx(2 / 3)


def test_merging_equals_counting_together():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 5, (2, 20, 30), dtype=np.uint8) for _ in "ab"]
    together, first, second = (ConfusionMatrix(5) for _ in range(3))
    for predicted, truth in images:
        together.update(predicted, truth)
    first.update(*images[0])
    second.update(*images[1])
    first.merge(second)
    np.testing.assert_array_equal(first.counts, together.counts)
    predicted, truth = (np.concatenate(arrays) for arrays in zip(*images, strict=True))
    expected = [np.sum((predicted == c) & (truth == c)) / np.sum((predicted == c) | (truth == c)) for c in range(5)]
    np.testing.assert_allclose(together.iou(), expected)


def test_nothing_counted_gives_nan_without_a_warning(recwarn):
    matrix = ConfusionMatrix(2)
    matrix.update(labels([0, 1]), labels([255, 255]))
    assert np.isnan(matrix.mean_iou()) and np.isnan(matrix.pixel_accuracy())
    assert not recwarn.list


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        (labels([0, 1]), labels([0]), "shape"),
        (labels([0, 2]), labels([0, 1]), "predicted labels of 0..1 or 255, got 2"),
        (labels([0, 1]), labels([0, 7]), "true labels of 0..1 or 255, got 7"),
        (labels([0, 1]).astype(int), labels([0, 1]), "predicted labels of uint8, got int64"),
    ],
)
def test_bad_labels_are_refused(predicted, truth, message):
    with pytest.raises(ValueError, match=message):
        ConfusionMatrix(2).update(predicted, truth)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="got 0"):
        ConfusionMatrix(0)
    with pytest.raises(ValueError, match="2 classes, got 3"):
        ConfusionMatrix(2).merge(ConfusionMatrix(3))
