import numpy as np
import pytest
from sklearn import metrics as independent

from vidseg_core.classes import VOID
from vidseg_core.data.camvid import camvid
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix


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


def check_against_scikit_learn(pairs, num_classes):
    """Counts, IoU and accuracy of (predicted, truth) pairs; pixels of void truth left out, void predictions wrong."""
    matrix = ConfusionMatrix(num_classes)
    for pair in pairs:
        matrix.update(*pair)
    predicted, truth = (np.concatenate([each.ravel() for each in side]) for side in zip(*pairs, strict=True))
    predicted, truth = predicted[truth != VOID], truth[truth != VOID]
    ids = [*range(num_classes), VOID]
    counts = independent.confusion_matrix(truth, predicted, labels=ids)
    np.testing.assert_array_equal(matrix.counts, counts[:num_classes, :num_classes])
    assert matrix.num_pixels == counts.sum()
    assert matrix.pixel_accuracy() == pytest.approx(independent.accuracy_score(truth, predicted))
    present = np.flatnonzero(counts[:num_classes].sum(1) + counts[:, :num_classes].sum(0))
    iou = independent.jaccard_score(truth, predicted, labels=present, average=None)
    np.testing.assert_allclose(matrix.iou()[present], iou)
    assert np.isnan(np.delete(matrix.iou(), present)).all()
    assert matrix.mean_iou() == pytest.approx(iou.mean())


@pytest.mark.parametrize("num_classes", [1, 2, 11, 19])
def test_random_maps_against_scikit_learn(num_classes):
    rng = np.random.default_rng(num_classes)
    ids = np.array([*range(num_classes), VOID], np.uint8)
    check_against_scikit_learn([tuple(rng.choice(ids, (2, 24, 40))) for _ in range(3)], num_classes)


def test_absent_classes_against_scikit_learn():
    rng = np.random.default_rng(0)
    ids = np.array([0, 2, 5, VOID], np.uint8)
    check_against_scikit_learn([tuple(rng.choice(ids, (2, 24, 40)))], 7)


def test_the_clip_against_scikit_learn(shared_data):
    """Labels of one frame taken for those of the next: real shapes, void in truth and prediction."""
    dataset = camvid(shared_data / "camvid", "val")
    truth = [dataset.read_labels(i) for i in (0, 1, 50, 51)]
    check_against_scikit_learn([(truth[0], truth[1]), (truth[2], truth[3])], len(dataset.classes))
