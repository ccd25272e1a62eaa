import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from vidseg_core.data.bag_writer import STORAGES, BagExtender, BagWriter
from vidseg_core.data.open import open_source
from vidseg_core.errors import ConfigError

STAMPS = [1_000_000_000, 1_066_666_667, 1_133_333_333]


def picture(i):
    return np.random.default_rng(i).integers(0, 256, (70, 90, 3), dtype=np.uint8)


def write(path, storage="sqlite3", topic="/camera/image_raw"):
    with BagWriter(path, storage) as bag:
        for i, stamp_ns in enumerate(STAMPS):
            bag.write_image(topic, "rgb8", picture(i), stamp_ns, frame_id="front", recorded_ns=stamp_ns + 5)
    return path


@pytest.mark.parametrize("storage", STORAGES)
def test_what_was_written_is_read(tmp_path, storage):
    path = write(tmp_path / "deep" / "bag", storage)
    frames = list(open_source(path))
    assert [frame.stamp_ns for frame in frames] == STAMPS
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, picture(i))
    with AnyReader([path]) as reader:
        messages = list(reader.messages())
        assert [recorded_ns for _, recorded_ns, _ in messages] == [stamp_ns + 5 for stamp_ns in STAMPS]
        connection, _, data = messages[0]
        assert reader.deserialize(data, connection.msgtype).header.frame_id == "front"
    assert [entry.name for entry in path.parent.iterdir()] == ["bag"]


def test_pixels_that_are_a_view(tmp_path):
    labels = np.arange(70 * 200, dtype=np.uint32).astype(np.uint8).reshape(70, 200)[:, ::2]
    with BagWriter(tmp_path / "bag") as bag:
        bag.write_image("/image", "mono8", labels, STAMPS[0])
    (frame,) = open_source(tmp_path / "bag")
    np.testing.assert_array_equal(frame.image[..., 1], labels)


@pytest.mark.parametrize("storage", STORAGES)
def test_messages_of_another_recording_are_copied_as_they_are(tmp_path, storage):
    first = write(tmp_path / "first")
    with AnyReader([first]) as reader, BagWriter(tmp_path / "second", storage) as bag:
        messages = list(reader.messages())
        for message in messages:
            bag.copy(*message)
        bag.write_image("/camera/labels", "mono8", picture(0)[..., 0], STAMPS[0])
    with AnyReader([tmp_path / "second"]) as reader:
        found = [
            (recorded_ns, bytes(data)) for c, recorded_ns, data in reader.messages() if c.topic == "/camera/image_raw"
        ]
        assert sorted(c.topic for c in reader.connections) == ["/camera/image_raw", "/camera/labels"]
    assert found == [(recorded_ns, bytes(data)) for _, recorded_ns, data in messages]


def test_nothing_is_overwritten(tmp_path):
    path = write(tmp_path / "bag")
    with pytest.raises(ConfigError, match="bag: exists already; a recording is not overwritten"):
        BagWriter(path)
    assert len(list(open_source(path))) == len(STAMPS)


@pytest.mark.parametrize("storage", STORAGES)
def test_what_is_not_completed_is_not_there(tmp_path, storage):
    with pytest.raises(KeyboardInterrupt), BagWriter(tmp_path / "bag", storage) as bag:
        bag.write_image("/image", "rgb8", picture(0), STAMPS[0])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "bag", storage)


@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", np.zeros((70, 90), np.uint8)),
        ("mono8", np.zeros((70, 90, 3), np.uint8)),
        ("mono8", np.zeros((70, 90), np.int64)),
    ],
)
def test_pixels_must_fit_their_encoding(tmp_path, encoding, pixels):
    expected = f"/image: expected uint8 pixels of {encoding}"
    with pytest.raises(ValueError, match=expected), BagWriter(tmp_path / "bag") as bag:
        bag.write_image("/image", encoding, pixels, STAMPS[0])


def extended(source, path, storage, numbers):
    with BagExtender(source, "/camera/image_raw", ["/camera/labels"], path, storage) as bag:
        for i in numbers:
            bag.add(i, {"/camera/labels": ("mono8", picture(i)[..., 0])})
    return path


@pytest.mark.parametrize("storage", STORAGES)
def test_a_recording_gets_labels_with_the_stamps_of_its_images(tmp_path, storage):
    source = write(tmp_path / "first", storage)
    path = extended(source, tmp_path / "second", storage, (0, 2))
    frames = list(open_source(path, topic="/camera/labels"))
    assert [frame.stamp_ns for frame in frames] == [STAMPS[0], STAMPS[2]]
    np.testing.assert_array_equal(frames[1].image[..., 0], picture(2)[..., 0])
    with AnyReader([source]) as before, AnyReader([path]) as after:
        messages = list(after.messages())
        assert [(c.topic, t) for c, t, _ in messages] == [
            ("/camera/image_raw", STAMPS[0] + 5), ("/camera/labels", STAMPS[0] + 5),
            ("/camera/image_raw", STAMPS[1] + 5),
            ("/camera/image_raw", STAMPS[2] + 5), ("/camera/labels", STAMPS[2] + 5),
        ]  # fmt: skip
        assert after.deserialize(messages[1][2], messages[1][0].msgtype).header.frame_id == "front"
        originals = [bytes(data) for c, _, data in messages if c.topic == "/camera/image_raw"]
        assert originals == [bytes(data) for _, _, data in before.messages()]


def test_a_topic_is_not_added_twice(tmp_path):
    path = extended(write(tmp_path / "first"), tmp_path / "second", "sqlite3", (0,))
    with pytest.raises(ConfigError, match="second: has /camera/labels already; they cannot be added to it"):
        extended(path, tmp_path / "third", "sqlite3", ())
