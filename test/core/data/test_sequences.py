import cv2
import numpy as np
import pytest

from vidseg_core.classes import load_classes
from vidseg_core.data.cityscapes import cityscapes
from vidseg_core.data.labelled import folder_pair
from vidseg_core.data.sequences import check_unbroken, cityscapes_video, folder_video, labelled_video, street_video
from vidseg_core.errors import ConfigError, DatasetError

CLASSES = load_classes("camvid")


def make(root, names, annotated=True):
    for name in ("val", "valannot"):
        (root / name).mkdir(exist_ok=True)
    for i, name in enumerate(names):
        cv2.imwrite(str(root / "val" / f"{name}.png"), np.full((64, 96, 3), 10 * i, np.uint8))
        if annotated:
            cv2.imwrite(str(root / "valannot" / f"{name}.png"), np.full((64, 96), i, np.uint8))
    return root


def test_clips_of_a_folder_become_sequences(tmp_path):
    names = ["a_2", "a_4", "a_6", "b_10", "b_11"]
    video = labelled_video(folder_pair(make(tmp_path, names), "val", CLASSES, video=True))
    assert [sequence.frames for sequence in video.sequences] == [("a_2", "a_4", "a_6"), ("b_10", "b_11")]
    frame = video.sequences[1].read(1)
    assert (frame.name, frame.image.max(), frame.labels.max()) == ("b_11", 40, 4)
    assert frame.stamp_ns > video.sequences[1].read(0).stamp_ns


def test_sequences_are_as_long_as_they_are(tmp_path):
    """Samples know a limited number of predecessors, sequences do not end there."""
    video = labelled_video(folder_pair(make(tmp_path, [f"f{i}" for i in range(5)]), "val", CLASSES, video=True))
    assert len(video.sequences) == 1 and len(video.sequences[0]) == 5


def test_a_hole_is_named(tmp_path):
    dataset = folder_pair(make(tmp_path, ["f1", "f2", "f3", "f5", "f6", "g1"]), "val", CLASSES, video=True)
    with pytest.raises(DatasetError, match=r"f5\.png: expected 2 consecutive.*missing between number 3 and number 5"):
        check_unbroken(dataset, 2)
    check_unbroken(dataset, 0)
    stills = folder_pair(tmp_path, "val", CLASSES)
    check_unbroken(stills, 2)


def test_a_hole_in_a_cityscapes_snippet(tmp_path):
    for number, wanted in (("000036", (15, 16, 18, 19)), ("000037", (18, 19))):
        for folder, name, frames in (
            ("leftImg8bit_sequence", "leftImg8bit", wanted), ("gtFine", "gtFine_labelIds", (19,)),
        ):  # fmt: skip
            city = tmp_path / folder / "val" / "ulm"
            city.mkdir(parents=True, exist_ok=True)
            for frame in frames:
                cv2.imwrite(str(city / f"ulm_{number}_{frame:06d}_{name}.png"), np.zeros((64, 96), np.uint8))
    dataset = cityscapes(tmp_path, "val")
    check_unbroken(dataset, 1)
    with pytest.raises(DatasetError, match=r"ulm_000036_000019_.*between number 16 and number 18"):
        check_unbroken(dataset, 2)
    video = cityscapes_video(tmp_path, "val")
    assert [len(sequence) for sequence in video.sequences] == [2, 2, 2]
    assert video.classes is None and video.sequences[0].read(0).labels is None


def test_images_without_labels(tmp_path):
    make(tmp_path, ["f10", "f9", "odd"], annotated=False)
    (sequence,) = folder_video(tmp_path / "val", size=(128, 192)).sequences
    assert sequence.frames == ("f9", "f10", "odd") and not any(sequence.labelled)
    assert sequence.read(2).image.shape == (128, 192, 3)
    with pytest.raises(DatasetError, match="expected images, there are none"):
        folder_video(tmp_path / "valannot")
    with pytest.raises(DatasetError, match="expected a folder with images, got nothing"):
        folder_video(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="expected a folder with a folder of frames for each city"):
        cityscapes_video(tmp_path, "val")


def test_a_street():
    video = street_video("seed=4,size=320x240,frames=2", size=(120, 160))
    frame = video.sequences[0].read(1)
    assert frame.image.shape == (120, 160, 3) and frame.labels.shape == (120, 160)
    assert video.sequences[0].labelled == (True, True) and video.classes.names == CLASSES.names
    with pytest.raises(ConfigError, match="unknown key"):
        street_video("wet=1")
