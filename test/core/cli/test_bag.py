import shutil

import cv2
import numpy as np
import pytest

from vidseg_core.cli import main as cli
from vidseg_core.data.bag_writer import BagWriter
from vidseg_core.data.open import open_source


@pytest.fixture
def drive(tmp_path):
    """Four images, three of them with labels whose void is 11, as CamVid's files have it."""
    images, labels = tmp_path / "drive", tmp_path / "annot"
    images.mkdir()
    labels.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        cv2.imwrite(str(images / f"f{i}.png"), rng.integers(0, 256, (70, 90, 3), dtype=np.uint8))
        if i != 2:
            cv2.imwrite(str(labels / f"f{i}.png"), rng.integers(0, 12, (70, 90), dtype=np.uint8))
    return images, labels


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_images_and_labels_with_the_same_stamps(drive, tmp_path, storage, capsys):
    images, labels = drive
    out = tmp_path / "bag"
    options = ["--labels", str(labels), "--rate", "12.5", "--storage", storage, "--out", str(out)]
    assert cli.main(["bag", "make", str(images), *options]) == 0
    expected = f"{out}: 4 images on /camera/image_raw, 3 of them with labels on /camera/labels_truth\n"
    assert capsys.readouterr().out == expected
    source = open_source(out)
    assert source.topic == "/camera/image_raw" and source.rate_hz == pytest.approx(12.5)
    frames = list(source)
    assert [frame.stamp_ns for frame in frames] == [10**9 + i * 80_000_000 for i in range(4)]
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, cv2.imread(str(images / f"f{i}.png"))[..., ::-1])
    truth = list(open_source(out, topic="/camera/labels_truth"))
    assert [frame.stamp_ns for frame in truth] == [frames[i].stamp_ns for i in (0, 1, 3)]
    for i, frame in zip((0, 1, 3), truth, strict=True):
        ids = cv2.imread(str(labels / f"f{i}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(frame.image[..., 0], np.where(ids == 11, 255, ids))


def test_a_recording_is_copied_with_its_own_stamps(drive, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert cli.main(["bag", "make", str(drive[0]), "--namespace", "", "--out", str(first)]) == 0
    assert cli.main(["bag", "make", str(first), "--frames", "2", "--namespace", "left/", "--out", str(second)]) == 0
    (a, b, *_), (c, d) = open_source(first), open_source(second)
    assert (a.stream, c.stream) == ("/image_raw", "/left/image_raw")
    assert (a.stamp_ns, b.stamp_ns) == (c.stamp_ns, d.stamp_ns)


def test_a_copy_keeps_when_images_were_received(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    received = [10**18, 10**18 + 70_000_000, 10**18 + 140_000_000]
    for stamps in ([0, 0, 0], [5, 10**8, 10**15]):
        with BagWriter(first, "mcap") as bag:
            for ns, stamp_ns in zip(received, stamps, strict=True):
                image = np.zeros((70, 90, 3), np.uint8)
                bag.write_image("/camera/image_raw", "rgb8", image, stamp_ns, recorded_ns=ns)
        assert cli.main(["bag", "make", str(first), "--out", str(second)]) == 0
        frames = list(open_source(second))
        assert [frame.received_ns for frame in frames] == received
        shifted = [ns + 10**9 for ns in stamps]
        assert [frame.stamp_ns for frame in frames] == (shifted if any(stamps) else received)
        for path in (first, second):
            shutil.rmtree(path)


def test_a_recording_takes_its_labels_along(drive, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    assert cli.main(["bag", "make", str(drive[0]), "--labels", str(drive[1]), "--out", str(first)]) == 0
    assert cli.main(["bag", "make", str(first), "--labels", "/camera/labels_truth", "--out", str(second)]) == 0
    assert "4 images on /camera/image_raw, 3 of them with labels" in capsys.readouterr().out.splitlines()[-1]
    topics = [list(open_source(bag, topic="/camera/labels_truth")) for bag in (first, second)]
    for a, b in zip(*topics, strict=True):
        assert a.stamp_ns == b.stamp_ns
        np.testing.assert_array_equal(a.image, b.image)


def test_a_street_brings_its_labels(tmp_path):
    assert cli.main(["bag", "make", "street:frames=2,size=320x240", "--out", str(tmp_path / "bag")]) == 0
    assert len(open_source(tmp_path / "bag", topic="/camera/labels_truth")) == 2


def fail(capsys, *arguments):
    assert cli.main(["bag", "make", *map(str, arguments)]) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_errors_are_one_line_and_leave_nothing(drive, tmp_path, capsys):
    images, labels = drive
    out = tmp_path / "bag"
    (images / "f3.png").write_bytes(b"no image")
    assert "f3.png: not an image" in fail(capsys, images, "--out", out)
    assert not out.exists()
    assert cli.main(["bag", "make", str(images), "--skip-bad", "--out", str(out)]) == 0
    assert "3 images" in (line := capsys.readouterr().out) and line.endswith("; 1 skipped\n")
    assert fail(capsys, images, "--out", out).endswith("bag: exists already; a recording is not overwritten")
    assert fail(capsys, images, "--frames", 0, "--out", out / "b").endswith("--frames: expected 1 or more, got 0")
    assert "option labels does not apply" in fail(capsys, "street:", "--labels", labels, "--out", out / "b")
