import cv2
import numpy as np
import pytest

from vidseg_core.data.cityscapes import cityscapes
from vidseg_core.errors import DatasetError


@pytest.fixture
def root(tmp_path):
    """Two snippets of one city that follow each other; frames 19 and 49 are labelled, frame 46 is missing."""
    frames = tmp_path / "leftImg8bit_sequence" / "train" / "ulm"
    labels = tmp_path / "gtFine" / "train" / "ulm"
    frames.mkdir(parents=True)
    labels.mkdir(parents=True)
    for number in [*range(16, 22), 45, 47, 48, 49]:
        cv2.imwrite(str(frames / f"ulm_000003_{number:06d}_leftImg8bit.png"), np.full((64, 128, 3), number, np.uint8))
    for number in (19, 49):
        cv2.imwrite(str(labels / f"ulm_000003_{number:06d}_gtFine_labelIds.png"), np.full((64, 128), 7, np.uint8))
        cv2.imwrite(str(labels / f"ulm_000003_{number:06d}_gtFine_color.png"), np.zeros((64, 128, 4), np.uint8))
    return tmp_path


def test_labelled_frames_with_the_frames_before_them(root):
    found = cityscapes(root, "train")
    assert [s.name for s in found.samples] == ["ulm_000003_000019", "ulm_000003_000049"]
    first, second = ([int(path.stem.split("_")[2]) for path in s.predecessors] for s in found.samples)
    assert first == [16, 17, 18]
    assert second == [47, 48]
    assert (found.read_image(0) == 19).all()
    assert (found.read_labels(0) == 0).all()  # id 7 in files is road, class 0
    assert [int(image[0, 0, 0]) for image in found.read_predecessors(0, 3)] == first
    found.check()


def test_errors_name_what_is_missing(root):
    with pytest.raises(DatasetError, match="expected a split of .*, got 'trian'"):
        cityscapes(root, "trian")
    with pytest.raises(DatasetError, match=r"leftImg8bit_sequence/val: expected a folder"):
        cityscapes(root, "val")
    image = root / "leftImg8bit_sequence" / "train" / "ulm" / "ulm_000003_000019_leftImg8bit.png"
    image.unlink()
    with pytest.raises(DatasetError, match=f"{image.name}: missing, but there are labels for it: .*labelIds.png"):
        cityscapes(root, "train")
    for labels in (root / "gtFine" / "train" / "ulm").glob("*_gtFine_*.png"):
        labels.unlink()
    with pytest.raises(DatasetError, match=r"gtFine/train: expected CITY/\*_gtFine_labelIds.png, there are none"):
        cityscapes(root, "train")


def test_the_real_snippets(shared_data):
    found = cityscapes(shared_data / "cityscapes_sequence", "val")
    assert [s.name for s in found.samples] == ["lindau_000009_000019", "munster_000036_000019"]
    for sample in found.samples:
        assert [path.stem.split("_")[2] for path in sample.predecessors] == ["000017", "000018"]
    assert found.read_image(0).shape == (1024, 2048, 3)
    labels = found.read_labels(0)
    assert labels.shape == (1024, 2048) and set(np.unique(labels)) <= {*range(19), 255}
    assert 0.2 < (labels == 0).mean() < 0.6


def test_other_forms_of_labels_where_there_are_no_label_ids(root):
    folder = root / "gtFine" / "train" / "ulm"
    (folder / "ulm_000003_000019_gtFine_labelIds.png").unlink()
    stored = np.full((64, 128), 13, np.uint8)
    cv2.imwrite(str(folder / "ulm_000003_000019_gtFine_labelTrainIds.png"), stored)
    (folder / "ulm_000003_000049_gtFine_labelIds.png").unlink()
    cv2.imwrite(str(folder / "ulm_000003_000049_gtFine_color.png"), np.full((64, 128, 4), (142, 0, 0, 255), np.uint8))
    found = cityscapes(root, "train")
    assert [sample.name for sample in found.samples] == ["ulm_000003_000019", "ulm_000003_000049"]
    assert (found.read_labels(0) == 13).all() and (found.read_labels(1) == 13).all()  # a car
