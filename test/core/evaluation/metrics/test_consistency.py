import cv2
import numpy as np
import pytest

from vidseg_core.classes import VOID
from vidseg_core.data.camvid import camvid
from vidseg_core.evaluation.metrics.consistency import Consistency, Correspondence, Matcher


def texture(shift, size=(96, 160)):
    """A smooth random picture, moved to the right by `shift` pixels."""
    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.integers(0, 256, (size[0], size[1] + 40, 3), dtype=np.uint8), (0, 0), 2)
    wide = cv2.normalize(wide, None, 0, 255, cv2.NORM_MINMAX)
    return np.ascontiguousarray(wide[:, 20 - shift : 20 - shift + size[1]])


def moved(labels, shift):
    return np.roll(labels, shift, axis=1)


def test_labels_that_move_with_the_image_agree_and_others_do_not():
    labels = np.zeros((96, 160), np.uint8)
    labels[:, 40:80] = 1
    correspondence = Matcher()(texture(6), texture(0))
    with_it, standing = Consistency(), Consistency()
    with_it.update(labels, moved(labels, 6), correspondence)
    standing.update(labels, labels, correspondence)
    assert with_it.share() > 0.995
    assert standing.share() == pytest.approx(1 - 2 * 6 / 154, abs=0.01)
    assert with_it.valid == pytest.approx(96 * 154, rel=0.01), "what came from outside does not count"


def test_void_in_either_frame_does_not_count():
    y, x = np.mgrid[:4, :6].astype(np.float32)
    previous, labels = np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8)
    previous[0], labels[:, 0] = VOID, VOID
    labels[3, 5] = 2
    consistency = Consistency()
    consistency.update(previous, labels, Correspondence(x, y))
    assert (consistency.valid, consistency.agreeing) == (15, 14)
    consistency.merge(Consistency(1, 5))
    assert consistency.share() == 15 / 20
    assert np.isnan(Consistency().share())


def test_carrying_takes_the_nearest_pixel_and_void_from_outside():
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    y, x = np.mgrid[:3, :4].astype(np.float32)
    assert Correspondence(x, y).carry(labels).tolist() == labels.tolist()
    right = Correspondence(x + 1, y).carry(labels)
    assert right[:, :3].tolist() == labels[:, 1:].tolist() and (right[:, 3] == VOID).all()


def test_large_images_are_matched_at_a_smaller_size():
    small, large = (cv2.resize(texture(s), (1600, 960), interpolation=cv2.INTER_CUBIC) for s in (3, 0))
    correspondence = Matcher()(small, large)
    found = np.median(np.arange(1600) - correspondence.x)
    assert found == pytest.approx(30, abs=1) and correspondence.x.shape == (960, 1600)


def test_truth_of_the_real_clip_is_nearly_consistent(shared_data):
    dataset = camvid(shared_data / "camvid", "val")
    match, moving, standing = Matcher(), Consistency(), Consistency()
    for i in (20, 60):
        images, labels = zip(*((dataset.read_image(k), dataset.read_labels(k)) for k in (i, i + 1)), strict=True)
        moving.update(*labels, match(images[1], images[0]))
        y, x = np.mgrid[: labels[0].shape[0], : labels[0].shape[1]].astype(np.float32)
        standing.update(*labels, Correspondence(x, y))
    assert standing.share() < 0.97 < moving.share() < 1
