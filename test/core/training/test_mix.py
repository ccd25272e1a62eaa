from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from vidseg_core.classes import load_classes
from vidseg_core.data.camvid import camvid
from vidseg_core.data.labelled import LabelledSet, Sample, folder_pair
from vidseg_core.errors import ClassTableError, ConfigError, DatasetError
from vidseg_core.training.mix import class_counts, make_mix, sequence_of, split_blocks


def named(*names):
    return LabelledSet("set", load_classes("camvid"), tuple(Sample(Path(n), Path(n), n) for n in names))


def numbered(prefix, count):
    return [f"{prefix}{k:03d}" for k in range(count)]


@pytest.mark.parametrize(
    ("name", "sequence"),
    [("0016E5_07959", "0016E5"), ("aachen_000001_000019", "aachen"), ("frame0012", "frame"), ("0012", "")],
)
def test_sequences_by_name(name, sequence):
    assert sequence_of(name) == sequence


def test_blocks_are_held_back_from_the_middle_of_each_sequence():
    train, held = split_blocks(named(*numbered("a_", 50), *numbered("b_", 10)), 0.1)
    assert [s.name for s in held.samples] == ["a_022", "a_023", "a_024", "a_025", "a_026", "b_004"]
    assert len(train) == 54 and not set(train.samples) & set(held.samples)


def test_many_short_sequences_still_hold_something_back():
    train, held = split_blocks(named(*(f"{k}_0" for k in range(20))), 0.1)
    assert [s.name for s in held.samples] == ["9_0", "10_0"] and len(train) == 18


def test_nothing_held_back_on_request_and_shares_out_of_range():
    assert len(split_blocks(named(*numbered("a_", 5)), 0.0)[1]) == 0
    with pytest.raises(ConfigError, match="hold_back"):
        split_blocks(named("a"), 0.6)


def test_camvid_blocks(shared_data):
    train, held = split_blocks(camvid(shared_data / "camvid", "train"), 0.08)
    assert len(train) + len(held) == 367
    assert {sequence_of(s.name) for s in held.samples} == {"0001TP", "0006R0", "0016E5"}
    assert 25 <= len(held) <= 33


def test_shares_hold_over_epochs_and_each_image_comes_once_per_round():
    mix = make_mix([named(*numbered("a_", 40)), named(*numbered("b_", 7))], [3, 1], 0.0)
    drawn = Counter()
    for epoch in range(6):
        batches = mix.draws(seed=5, epoch=epoch, batch=1)
        assert all(len(batch) == 1 for batch in batches)
        drawn.update(draw for batch in batches for draw in batch)
    first = {index: n for (part, index), n in drawn.items() if part == 0}
    second = {index: n for (part, index), n in drawn.items() if part == 1}
    assert sum(first.values()) == 239 and set(first.values()) == {5, 6}  # 6 epochs of round(40 / 0.75) images
    assert sum(second.values()) == 80 and set(second.values()) == {11, 12}


def test_draws_depend_on_seed_and_epoch_only():
    mix = make_mix([named(*numbered("a_", 40))], [1], 0.0)
    assert mix.draws(1, 3, 4) == mix.draws(1, 3, 4)
    assert mix.draws(1, 3, 4) != mix.draws(1, 4, 4) != mix.draws(2, 4, 4)
    assert [len(batch) for batch in mix.draws(1, 0, 12)] == [12, 12, 12]
    with pytest.raises(ConfigError, match="at most the 40 images"):
        mix.draws(1, 0, 41)


def test_sets_of_a_mix_share_their_classes():
    other = replace(named("b"), classes=load_classes("cityscapes"))
    with pytest.raises(ClassTableError, match="share one class table"):
        make_mix([named("a"), other], [1, 1], 0.0)
    with pytest.raises(ConfigError, match="shares greater than 0"):
        make_mix([named("a")], [0], 0.0)


def write_pair(root, name, labels):
    for folder, picture in (("train", np.zeros((*labels.shape, 3), np.uint8)), ("trainannot", labels)):
        (root / folder).mkdir(exist_ok=True)
        cv2.imwrite(str(root / folder / f"{name}.png"), picture)


def test_check_gives_class_shares_and_names_what_is_broken(tmp_path):
    labels = np.zeros((64, 64), np.uint8)
    labels[:16], labels[16:32] = 3, 11  # 11 is void
    for k in range(4):
        write_pair(tmp_path, f"a_{k}", labels)
    dataset = folder_pair(tmp_path, "train", load_classes("camvid"))
    assert class_counts(dataset)[[0, 3]].tolist() == [4 * 32 * 64, 4 * 16 * 64]
    frequency = make_mix([dataset], [1], 0.25).check()
    assert frequency[[0, 3]].tolist() == pytest.approx([2 / 3, 1 / 3]) and len(frequency) == 11
    write_pair(tmp_path, "a_2", np.full((64, 64), 77, np.uint8))
    with pytest.raises(DatasetError, match=r"a_2\.png.*77"):
        make_mix([dataset], [1], 0.25).check()


def labelled_by(root, ids):
    """A data set of one image of 64 x 64 for each value of `ids`, which its labels have everywhere."""
    for name in ("a", "aannot"):
        (root / name).mkdir()
    for k, value in enumerate(ids):
        cv2.imwrite(str(root / "a" / f"f{k}.png"), np.zeros((64, 64, 3), np.uint8))
        cv2.imwrite(str(root / "aannot" / f"f{k}.png"), np.full((64, 64), value, np.uint8))
    return folder_pair(root, "a", load_classes("camvid"))


def test_held_back_images_without_a_labelled_pixel_are_an_error(tmp_path):
    dataset = labelled_by(tmp_path, [0, 1, 255, 3, 4])
    with pytest.raises(DatasetError, match=r"a: .*every pixel of the held-back images is void: .*aannot.f2.png"):
        make_mix([dataset], [1], 0.2).check()
    np.testing.assert_allclose(make_mix([dataset], [1], 0).check()[:5], [0.25, 0.25, 0, 0.25, 0.25])


def test_training_images_without_a_labelled_pixel_are_an_error(tmp_path):
    dataset = labelled_by(tmp_path, [11, 11, 0, 255, 11])  # CamVid's files write void as 11
    with pytest.raises(DatasetError, match=r"a: expected labels, every pixel of the training images is void: .*f0.png"):
        make_mix([dataset], [1], 0.2).check()


def test_classes_that_never_occur_are_named(tmp_path):
    mix = make_mix([labelled_by(tmp_path, [0, 1, 2, 3, 4, 5, 6, 7, 8])], [1], 0)
    said = mix.absent_classes(mix.check())
    assert "not one training image has a labelled pixel of 2 of 11 classes" in said
    assert said.endswith("pedestrian, bicyclist (ids [11, 255] of label files are void)")
    assert mix.absent_classes(np.full(11, 1 / 11)) is None
