import cv2
import numpy as np
import pytest

from vidseg_core.classes import load_classes
from vidseg_core.data.bag import image_topics
from vidseg_core.data.bag_writer import BagWriter
from vidseg_core.data.clock import Times
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


def test_jpegs_are_named_as_what_they_are(tmp_path):
    cv2.imwrite(str(tmp_path / "1700000000.05.jpg"), np.zeros(SIZE, np.uint8))
    with pytest.raises(DatasetError, match="1700000000.05.jpg: expected label ids as PNG, got a JPEG image"):
        labels_in_folder(tmp_path, CLASSES).at(1_700_000_000_050_000_000, SIZE)


def test_labels_that_do_not_fit(tmp_path):
    bag = record(tmp_path / "size", {1: np.zeros((35, 45), np.uint8)})
    expected = (
        r"size: /camera/truth: expected labels as large as the image at 1700000000.050000000 s "
        r"\(90 x 70\), got 45 x 35"
    )
    with pytest.raises(DatasetError, match=expected):
        list(open_source(bag, topic="/camera/image_raw", labels="/camera/truth", classes=CLASSES))
    with pytest.raises(DatasetError, match=r"class ids 0..10 of table 'camvid' or 255, got 20 at 1700000000.0"):
        labels_in_memory([(Times(STAMPS[0], 0), np.full(SIZE, 20, np.uint8))], CLASSES, "here")
    with pytest.raises(DatasetError, match="here: expected labels, there are none"):
        labels_in_memory([], CLASSES, "here")
    bag = record(tmp_path / "colour", {1: np.zeros((*SIZE, 3), np.uint8)}, "rgb8")
    with pytest.raises(DatasetError, match="labels at 1700000000.050000000 s: expected class ids as mono8, got rgb8"):
        open_source(bag, labels="/camera/truth", classes=CLASSES)
    with pytest.raises(SourceError, match=r"no images on topic '/labels'; expected one of \['/camera/image_raw',"):
        open_source(bag, labels="/labels", classes=CLASSES)


def drive(path, stamps, labels_at=None, late_ns=2_000_000, storage="mcap", count=8, of_labels=None):
    """Images of value i and labels of class i, received at 20 Hz.

    `stamps`: of the images; `of_labels`: of the labels, by the number of their image; by default those of all images.
    """
    of_labels = dict(enumerate(stamps)) if of_labels is None else of_labels
    messages = []
    for i in range(count):
        messages.append(
            (STAMPS[0] + i * 50_000_000, "/camera/image_raw", "rgb8", np.full((*SIZE, 3), i, np.uint8), stamps[i])
        )
    for i, stamp_ns in of_labels.items():
        received_ns = STAMPS[0] + i * 50_000_000 + late_ns
        messages.append((received_ns, "/camera/labels_truth", "mono8", np.full(SIZE, i % 11, np.uint8), stamp_ns))
    with BagWriter(path, storage) as bag:
        for received_ns, topic, encoding, pixels, stamp_ns in sorted(messages, key=lambda message: message[0]):
            bag.write_image(topic, encoding, pixels, stamp_ns, recorded_ns=received_ns)
    return path


def truths(path):
    """Class of the labels of each image; None where it has none."""
    source = open_source(path, topic="/camera/image_raw", labels="/camera/labels_truth", classes=CLASSES)
    frames = list(source)
    assert [frame.image[0, 0, 0] for frame in frames] == list(range(len(frames)))
    assert [frame.received_ns for frame in frames] == [STAMPS[0] + i * 50_000_000 for i in range(len(frames))]
    return [None if frame.labels is None else int(frame.labels[0, 0]) for frame in frames], frames, source


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
@pytest.mark.parametrize("late_ms", [-3, 0, 3, 30, 80])
@pytest.mark.parametrize(
    "stamps", [[0] * 8, [7 * 10**9] * 8, [10**9 * (20 - i) for i in range(8)]], ids=["zero", "constant", "backward"]
)
def test_images_without_usable_stamps_have_their_own_labels(tmp_path, caplog, stamps, late_ms, storage):
    path = drive(tmp_path / "bag", stamps, late_ns=late_ms * 10**6, storage=storage)
    found, frames, source = truths(path)
    list(source)
    assert found == list(range(8))
    assert [frame.stamp_ns for frame in frames] == [STAMPS[0] + i * 50_000_000 for i in range(8)]
    assert source.rate_hz == pytest.approx(20)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith(f"{path}: /camera/image_raw: its stamps ")
    assert told.endswith("; receive times take their place")


def test_some_labels_without_stamps_belong_to_the_images_that_they_came_with(tmp_path):
    path = drive(tmp_path / "bag", [0] * 8, of_labels={1: 0, 4: 0, 5: 0})
    assert truths(path)[0] == [None, 1, None, None, 4, 5, None, None]
    path = drive(tmp_path / "late", [0] * 8, of_labels={1: 0, 4: 0}, late_ns=20_000_000)
    assert truths(path)[0] == [None] * 8  # they could be another image's


def test_images_without_stamps_labels_with_stamps_and_the_other_way_round(tmp_path, caplog):
    good = [STAMPS[0] + i * 50_000_000 + 700_000 for i in range(8)]
    path = drive(tmp_path / "images", [0] * 8, of_labels={i: good[i] for i in (0, 3, 7)})
    assert truths(path)[0] == [0, None, None, 3, None, None, None, 7]
    caplog.clear()
    path = drive(tmp_path / "labels", good, of_labels={i: 0 for i in (0, 3, 7)})
    found, frames, _ = truths(path)
    assert found == [0, None, None, 3, None, None, None, 7]
    assert [frame.stamp_ns for frame in frames] == good
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: /camera/labels_truth: its stamps are zero; receive times take their place"
    ]


def test_single_stamps_of_zero_do_not_cost_an_image_its_labels(tmp_path, caplog):
    stamps = [5 * 10**9 + i * 50_000_000 for i in range(8)]
    stamps[0] = stamps[3] = stamps[4] = 0
    path = drive(tmp_path / "bag", stamps)
    found, frames, source = truths(path)
    assert found == list(range(8))
    assert [frame.stamp_ns for frame in frames] == [5 * 10**9 + i * 50_000_000 for i in range(8)]
    assert source.rate_hz == pytest.approx(20)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: /camera/image_raw: some of its stamps are zero; receive times take their place"
    ]


def test_a_clock_that_is_set_while_recording_keeps_stamps_labels_and_rate(tmp_path, caplog):
    stamps = [10**9 + i * 50_000_000 + (300 * 86400 * 10**9 if i >= 3 else 0) for i in range(8)]
    path = drive(tmp_path / "bag", stamps)
    found, frames, source = truths(path)
    assert found == list(range(8)) and [frame.stamp_ns for frame in frames] == stamps
    assert source.rate_hz == pytest.approx(20)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == f"{path}: /camera/image_raw: its stamps jump by 25920000.050 s, the receive times do not"


def test_a_drive_that_was_played_twice_has_the_labels_of_each_time(tmp_path):
    stamps = [STAMPS[0] + i % 4 * 50_000_000 for i in range(8)]
    assert truths(drive(tmp_path / "bag", stamps))[0] == list(range(8))


def test_a_clock_that_stops_does_not_give_images_the_labels_of_another(tmp_path):
    stamps = [STAMPS[0] + min(i, 25) * 50_000_000 for i in range(40)]
    labels = {i: stamps[i] for i in (3, 25, 29)}
    found = truths(drive(tmp_path / "bag", stamps, count=40, of_labels=labels))[0]
    assert {i: labels for i, labels in enumerate(found) if labels is not None} == {3: 3, 25: 25 % 11, 29: 29 % 11}


def test_a_folder_of_labels_may_be_named_by_receive_times(tmp_path):
    path, folder = drive(tmp_path / "bag", [0] * 8, of_labels={}), tmp_path / "truth"
    folder.mkdir()
    cv2.imwrite(str(folder / f"{STAMPS[0] + 100_000_000}.png"), ids(0, 9) % 11)
    frames = list(open_source(path, labels=folder, classes=CLASSES))
    assert [frame.labels is not None for frame in frames] == [i == 2 for i in range(8)]
    cv2.imwrite(str(folder / "1700000000.1.png"), ids(1, 9) % 11)
    with pytest.raises(
        DatasetError, match=r"1700000000100000000.png: expected one file for each stamp, 1700000000.1.png has"
    ):
        labels_in_folder(folder, CLASSES)
