import numpy as np
import pytest

from vidseg_core.errors import ConfigError
from vidseg_core.training.augment import Augmentation

STILL = {"rare_crops": 0.0, "color": 0.0, "blur": 0.0}


def checkered(height=96, width=128):
    """An image that its labels can be read off: red = 10 * label."""
    labels = (np.arange(height)[:, None] // 8 + np.arange(width)[None] // 8).astype(np.uint8) % 11
    image = np.repeat((labels * 10)[..., None], 3, axis=2)
    return image, labels


@pytest.mark.parametrize("seed", range(6))
def test_image_and_labels_stay_together(seed):
    image, labels = checkered()
    view, truth = Augmentation(crop=(64, 80), scale=(0.5, 2.0), **STILL)(image, labels, np.random.default_rng(seed))
    assert view.shape == (64, 80, 3) and truth.shape == (64, 80)
    assert view.dtype == truth.dtype == np.uint8
    inside = truth != 255
    same = np.abs(view[..., 0].astype(int) - 10 * truth) <= 5
    assert same[inside].mean() > 0.6  # the rest lies on edges, where the image is interpolated


def test_scale_one_and_full_size_is_the_image_or_its_mirror():
    image, labels = checkered()
    augmentation = Augmentation(crop=(96, 128), scale=(1.0, 1.0), **STILL)
    seen = set()
    for seed in range(8):
        view, truth = augmentation(image, labels, np.random.default_rng(seed))
        mirrored = not np.array_equal(truth, labels)
        seen.add(mirrored)
        step = -1 if mirrored else 1
        np.testing.assert_array_equal(truth, labels[:, ::step])
        np.testing.assert_array_equal(view, image[:, ::step])
    assert seen == {False, True}


def test_beside_a_small_picture_there_is_void():
    image, labels = checkered(32, 32)
    _, truth = Augmentation(crop=(64, 64), scale=(1.0, 1.0), **STILL)(image, labels, np.random.default_rng(0))
    assert (truth != 255).sum() in range(31 * 31, 33 * 33)


def test_rare_crops_find_the_rare_class():
    labels = np.zeros((200, 400), np.uint8)
    labels[100:104, 300:304] = 5
    image = np.zeros((200, 400, 3), np.uint8)
    found = {}
    for share in (0.0, 1.0):
        augmentation = Augmentation(crop=(48, 48), scale=(1.0, 1.0), rare_crops=share, color=0, blur=0)
        found[share] = sum((augmentation(image, labels, np.random.default_rng(k))[1] == 5).any() for k in range(200))
    assert found[0.0] < 20 and 80 < found[1.0] < 130  # half of the draws are for class 0


def test_a_view_depends_on_the_generator_only():
    image, labels = checkered()
    augmentation = Augmentation(crop=(64, 64), color=1.0, blur=1.0)
    first, again, other = (augmentation(image, labels, np.random.default_rng([3, k]))[0] for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_colors_change_and_labels_do_not():
    image, labels = checkered()
    plain = Augmentation(crop=(96, 128), scale=(1.0, 1.0), **STILL)
    colored = Augmentation(crop=(96, 128), scale=(1.0, 1.0), rare_crops=0.0, color=1.0, blur=0.0)
    for seed in range(4):
        (view, truth), (recolored, same) = (a(image, labels, np.random.default_rng(seed)) for a in (plain, colored))
        np.testing.assert_array_equal(truth, same)
        assert (view != recolored).mean() > 0.5


@pytest.mark.parametrize(
    "options", [{"crop": (16, 64)}, {"scale": (2.0, 1.0)}, {"scale": (0.0, 1.0)}, {"color": 1.5}, {"rare_crops": -0.1}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError, match=f"{next(iter(options))}: expected .* got"):
        Augmentation(**options)
