import cv2
import numpy as np
import pytest

from vidseg_core.classes import load_classes
from vidseg_core.data.bag import image_topics
from vidseg_core.data.bag_writer import BagWriter
from vidseg_core.data.open import open_source
from vidseg_core.data.stamped import labels_in_folder, labels_in_memory
from vidseg_core.errors import DatasetError, SourceError

CLASSES = load_classes("camvid")
SIZE = (70, 90)
STAMPS = [1_700_000_000_000_000_000 + i * 50_000_000 for i in range(4)]


def ids(i, most=11):
    labels = np.random.default_rng(i).integers(0, most, SIZE, dtype=np.uint8)
    labels[0, :5] = 255
    return labels


def record(path, labels, encoding="mono8", shift_ns=0):
    """Four images; `labels` by the number of their image."""
    with BagWriter(path) as bag:
        for i, stamp_ns in enumerate(STAMPS):
            bag.write_image("/camera/image_raw", "rgb8", np.full((*SIZE, 3), i, np.uint8), stamp_ns)
            if i in labels:
                bag.write_image("/camera/truth", encoding, labels[i], stamp_ns + shift_ns)
    return path


@pytest.mark.parametrize("shift_ns", [0, 900_000, -900_000])
def test_a_topic_of_labels(tmp_path, shift_ns):
    truth = {0: ids(0), 2: ids(2)}
    bag = record(tmp_path / "bag", truth, shift_ns=shift_ns)
    source = open_source(bag, topic="/camera/image_raw", labels="/camera/truth", classes=CLASSES)
    assert source.classes is CLASSES
    frames = list(source)
    for i, frame in enumerate(frames):
        if i in truth:
            np.testing.assert_array_equal(frame.labels, truth[i])
        else:
            assert frame.labels is None
    assert image_topics(bag) == ["/camera/image_raw", "/camera/truth"]


def test_what_is_too_far_away_belongs_to_nothing(tmp_path):
    bag = record(tmp_path / "bag", {0: ids(0)}, shift_ns=1_100_000)
    source = open_source(bag, topic="/camera/image_raw", labels="/camera/truth", classes=CLASSES)
    assert [frame.labels for frame in source] == [None] * 4


def test_a_folder_of_labels_named_by_their_stamps(tmp_path):
    bag, folder = record(tmp_path / "bag", {}), tmp_path / "truth"
    folder.mkdir()
    file_ids = np.where(ids(0) == 255, 11, ids(0))  # CamVid's files write void as 11
    cv2.imwrite(str(folder / f"{STAMPS[1]}.png"), file_ids)
    cv2.imwrite(str(folder / "1700000000.15.png"), file_ids)
    frames = list(open_source(bag, labels=folder, classes=CLASSES))
    assert [frame.labels is not None for frame in frames] == [False, True, False, True]
    np.testing.assert_array_equal(frames[1].labels, ids(0))
    np.testing.assert_array_equal(frames[3].labels, ids(0))
    (folder / "first.png").touch()
    with pytest.raises(DatasetError, match="first.png: expected a name that is a stamp"):
        labels_in_folder(folder, CLASSES)


def test_labels_that_do_not_fit(tmp_path):
    bag = record(tmp_path / "size", {1: np.zeros((35, 45), np.uint8)})
    expected = (
        r"size: /camera/truth: expected labels as large as the image at 1700000000.050000000 s "
        r"\(90 x 70\), got 45 x 35"
    )
    with pytest.raises(DatasetError, match=expected):
        list(open_source(bag, topic="/camera/image_raw", labels="/camera/truth", classes=CLASSES))
    with pytest.raises(DatasetError, match=r"class ids 0..10 of table 'camvid' or 255, got 20 at 1700000000.0"):
        labels_in_memory([(STAMPS[0], np.full(SIZE, 20, np.uint8))], CLASSES, "here")
    with pytest.raises(DatasetError, match="here: expected labels, there are none"):
        labels_in_memory([], CLASSES, "here")
    bag = record(tmp_path / "colour", {1: np.zeros((*SIZE, 3), np.uint8)}, "rgb8")
    with pytest.raises(DatasetError, match="labels at 1700000000.050000000 s: expected class ids as mono8, got rgb8"):
        open_source(bag, labels="/camera/truth", classes=CLASSES)
    with pytest.raises(SourceError, match=r"no images on topic '/labels'; expected one of \['/camera/image_raw',"):
        open_source(bag, labels="/labels", classes=CLASSES)
