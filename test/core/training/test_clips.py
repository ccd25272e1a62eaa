import cv2
import numpy as np
import pytest

from vidseg_core.classes import load_classes
from vidseg_core.data.labelled import folder_pair
from vidseg_core.errors import ConfigError
from vidseg_core.training.augment import Augmentation
from vidseg_core.training.clips import ClipMaker, cut_things

PLAIN = Augmentation(crop=(96, 128), scale=(1.0, 1.0), rare_crops=0.0, color=0.0, blur=0.0)


@pytest.fixture
def pictures(tmp_path):
    """Two stills; labels can be read off the red channel."""
    for name in ("a", "aannot"):
        (tmp_path / name).mkdir()
    for number in range(2):
        labels = np.full((160, 200), 1 + number, np.uint8)
        labels[60:90, 80:120] = 8
        image = np.dstack((labels * 20, np.full_like(labels, 50), np.full_like(labels, 90)))
        cv2.imwrite(str(tmp_path / "a" / f"x_{number:03d}.png"), image[..., ::-1])
        cv2.imwrite(str(tmp_path / "aannot" / f"x_{number:03d}.png"), labels)
    return tmp_path


def opened(folder, video):
    return folder_pair(folder, "a", load_classes("camvid"), video=video)


@pytest.mark.parametrize("seed", range(5))
def test_a_still_becomes_a_clip_whose_last_frame_has_its_labels(pictures, seed):
    clip = ClipMaker(PLAIN)(opened(pictures, False), 0, 3, np.random.default_rng(seed))
    assert len(clip.images) == 4 and clip.labels.shape == (96, 128)
    known = clip.labels != 255
    agrees = np.abs(clip.images[-1][..., 0].astype(int) - 20 * clip.labels) <= 6
    assert agrees[known].mean() > 0.97
    moved = [np.abs(image.astype(int) - clip.images[-1]).mean() for image in clip.images]
    assert moved[0] > 0 and moved[-1] == 0


def test_without_motion_only_the_things_move(pictures):
    clip = ClipMaker(PLAIN, motion=0.0)(opened(pictures, False), 0, 2, np.random.default_rng(3))
    same = (clip.images[0] == clip.images[-1]).all(2)
    assert same.mean() > 0.7


def test_video_is_cut_from_video(pictures):
    clip = ClipMaker(PLAIN)(opened(pictures, True), 1, 1, np.random.default_rng(0))
    reds = [int(np.median(image[..., 0])) for image in clip.images]
    assert reds == [20, 40], "the frame before is the other picture, seen through the same window"
    assert set(np.unique(clip.labels)) <= {2, 8}


def test_clips_depend_on_the_generator_only(pictures):
    maker = ClipMaker(Augmentation(crop=(96, 128), scale=(0.8, 1.5)))
    a, b = (maker(opened(pictures, False), 0, 2, np.random.default_rng(7)) for _ in range(2))
    for one, other in zip(a.images, b.images, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(a.labels, b.labels)


def test_things_are_neither_specks_nor_backgrounds(pictures):
    dataset = opened(pictures, False)
    things = cut_things(dataset.read_image(0), dataset.read_labels(0), 3, np.random.default_rng(0))
    assert [(patch.shape, mask.sum(), label) for patch, mask, label in things] == [((30, 40, 3), 1200, 8)]
    assert cut_things(dataset.read_image(0), np.full((160, 200), 255, np.uint8), 3, np.random.default_rng(0)) == []


def test_bad_motion():
    with pytest.raises(ConfigError, match="motion: expected 0..4, got 9"):
        ClipMaker(PLAIN, motion=9)
