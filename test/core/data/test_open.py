import shutil

import cv2
import numpy as np
import pytest

from vidseg_core.classes import load_classes
from vidseg_core.data.folder import FolderSource
from vidseg_core.data.open import open_source
from vidseg_core.errors import ConfigError, DatasetError, SourceError

SIZE = (72, 96)


@pytest.fixture
def folder(tmp_path):
    """Six images, f1 ... f6; image i is i * 10 everywhere."""
    path = tmp_path / "drive"
    path.mkdir()
    for i in range(1, 7):
        cv2.imwrite(str(path / f"f{i}.png"), np.full((*SIZE, 3), 10 * i, np.uint8))
    return path


def test_folder_in_natural_order_with_stamps_from_the_rate(folder):
    (folder / "f6.png").rename(folder / "f10.png")
    source = open_source(str(folder), rate_hz=15)
    frames = list(source)
    assert [f.name for f in frames] == ["f1", "f2", "f3", "f4", "f5", "f10"]
    assert [f.stamp_ns for f in frames[:3]] == [0, 66666667, 133333333]
    assert [int(f.image[0, 0, 0]) for f in frames] == [10, 20, 30, 40, 50, 60]
    assert {f.stream for f in frames} == {"drive"} and all(f.labels is None for f in frames)
    assert (source.name, source.rate_hz, source.size, len(source)) == ("drive", 15.0, (96, 72), 6)
    assert source.classes is None and source.num_frames == 6
    assert [f.name for f in source] == [f.name for f in frames]


def test_the_default_rate_is_30_hz(folder):
    source = open_source(folder)
    assert source.rate_hz == 30.0
    assert [f.stamp_ns for f in source][3] == 100_000_000


def test_the_image_size_may_change(folder):
    cv2.imwrite(str(folder / "f4.png"), np.zeros((80, 100, 3), np.uint8))
    source = open_source(folder)
    assert [f.size for f in source][2:5] == [SIZE, (80, 100), SIZE]
    assert source.size == (96, 72)


def spoil(folder):
    whole = (folder / "f3.png").read_bytes()
    (folder / "f3.png").write_bytes(whole[: len(whole) // 2])


def test_an_unreadable_image_is_an_error_in_its_place(folder):
    spoil(folder)
    source, seen = open_source(folder), []
    with pytest.raises(SourceError, match=r"drive/f3.png: the image is cut short"):
        for frame in source:
            seen.append(frame.name)
    assert seen == ["f1", "f2"]


def test_skip_bad_leaves_it_out_and_keeps_the_others_stamps(folder):
    spoil(folder)
    cv2.imwrite(str(folder / "f5.png"), np.zeros((63, 100, 3), np.uint8))
    source = open_source(folder, skip_bad=True, rate_hz=10)
    assert [(f.name, f.stamp_ns) for f in source] == [("f1", 0), ("f2", 10**8), ("f4", 3 * 10**8), ("f6", 5 * 10**8)]
    (name, reason), (small, size) = source.skipped
    assert name == "f3" and "cut short" in reason
    assert small == "f5" and size.endswith("f5.png: expected at least 64 x 64 pixels, got 100 x 63")
    assert len(list(source)) == 4 and len(source.skipped) == 2


def test_opening_looks_at_the_first_image(folder):
    (folder / "f1.png").write_text("not an image")
    with pytest.raises(SourceError, match=r"f1.png: not an image"):
        open_source(folder)
    assert open_source(folder, skip_bad=True).size == (96, 72)
    for path in folder.iterdir():
        path.write_text("not an image")
    with pytest.raises(SourceError, match=r"drive: there is no frame that can be read: .*f1.png: not an image"):
        open_source(folder, skip_bad=True)


def test_a_small_image_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 63, 3), np.uint8))
    with pytest.raises(SourceError, match=r"a.png: expected at least 64 x 64 pixels, got 63 x 64"):
        open_source(tmp_path)


def test_nothing_there_and_nothing_in_it(tmp_path):
    with pytest.raises(SourceError, match="nowhere: expected a folder of images, a video file or a recording"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"expected images \(.png, .jpg, .jpeg, .bmp, .webp\), there are none"):
        open_source(tmp_path)


def test_two_images_that_would_share_their_results(folder):
    (folder / "f2.jpg").touch()
    with pytest.raises(SourceError, match="expected one image of each name, got f2"):
        open_source(folder)


@pytest.mark.parametrize("rate_hz", [0, -1.0, float("nan"), float("inf")])
def test_a_rate_must_be_positive(folder, rate_hz):
    with pytest.raises(SourceError, match="expected a frame rate above 0 Hz"):
        open_source(folder, rate_hz=rate_hz)


def test_options_that_do_not_apply_are_refused(folder, tmp_path):
    with pytest.raises(SourceError, match="option topic does not apply to a folder"):
        open_source(folder, topic="/camera")
    (tmp_path / "x.mp4").touch()
    with pytest.raises(SourceError, match="option labels does not apply to a video"):
        open_source(tmp_path / "x.mp4", labels=folder)
    with pytest.raises(SourceError, match="option rate_hz does not apply to the synthetic street"):
        open_source("street:seed=1", rate_hz=3)


def test_truth_is_attached_by_stem(folder, tmp_path):
    truth = tmp_path / "truth"
    truth.mkdir()
    for i, value in ((2, 3), (5, 11)):
        cv2.imwrite(str(truth / f"f{i}.png"), np.full(SIZE, value, np.uint8))
    classes = load_classes("camvid")
    source = open_source(folder, labels=truth, classes=classes)
    assert source.classes is classes
    assert [None if f.labels is None else int(f.labels[0, 0]) for f in source] == [None, 3, None, None, 255, None]


@pytest.mark.parametrize("name", ["camvid:{}", "folder:{}", "folder:{}:val"])
def test_a_data_set_comes_with_its_labels(name, folder, tmp_path):
    folder.rename(tmp_path / "val")
    (tmp_path / "valannot").mkdir()
    cv2.imwrite(str(tmp_path / "valannot" / "f2.png"), np.full(SIZE, 3, np.uint8))
    spec = name.format(tmp_path)
    source = open_source(spec, classes=load_classes("camvid"), rate_hz=10)
    assert [None if f.labels is None else int(f.labels[0, 0]) for f in source] == [None, 3, None, None, None, None]
    assert (source.rate_hz, source.classes.name) == (10, "camvid")
    with pytest.raises(SourceError, match="option labels does not apply to a data set"):
        open_source(spec, labels=tmp_path)
    if name.startswith("folder"):
        assert open_source(spec).classes is None
        shutil.rmtree(tmp_path / "valannot")
        assert open_source(spec, classes=load_classes("camvid")).classes is None


def test_a_data_set_that_is_no_folder_of_images(tmp_path):
    with pytest.raises(SourceError, match="val: expected a folder of images"):
        open_source(f"camvid:{tmp_path}")
    with pytest.raises(ConfigError, match="expected camvid:DIR or folder:DIR, whose images lie in one folder"):
        open_source(f"cityscapes:{tmp_path}")


def test_truth_of_cityscapes_has_names_of_its_own(tmp_path):
    frames, truth = tmp_path / "frames", tmp_path / "truth"
    frames.mkdir()
    truth.mkdir()
    cv2.imwrite(str(frames / "ulm_000000_000019_leftImg8bit.png"), np.zeros((*SIZE, 3), np.uint8))
    cv2.imwrite(str(truth / "ulm_000000_000019_gtFine_labelIds.png"), np.full(SIZE, 26, np.uint8))
    (frame,) = open_source(frames, labels=truth, classes=load_classes("cityscapes"))
    assert (frame.labels == 13).all()


def test_truth_that_does_not_fit(folder, tmp_path):
    classes = load_classes("camvid")
    truth = tmp_path / "truth"
    with pytest.raises(DatasetError, match="truth: expected a folder of label files"):
        open_source(folder, labels=truth, classes=classes)
    truth.mkdir()
    with pytest.raises(DatasetError, match="truth: a class table is needed"):
        open_source(folder, labels=truth)
    cv2.imwrite(str(truth / "other.png"), np.zeros(SIZE, np.uint8))
    with pytest.raises(DatasetError, match=r"expected label files named like the images in .* \(for instance f1.png\)"):
        open_source(folder, labels=truth, classes=classes)
    cv2.imwrite(str(truth / "f1.png"), np.zeros((10, 20), np.uint8))
    with pytest.raises(DatasetError, match=r"truth/f1.png: expected labels as large as .*\(96 x 72\), got 20 x 10"):
        open_source(folder, labels=truth, classes=classes)
    cv2.imwrite(str(truth / "f1.png"), np.full(SIZE, 99, np.uint8))
    with pytest.raises(DatasetError, match=r"truth/f1.png: label ids \[99\]"):
        open_source(folder, labels=truth, classes=classes, skip_bad=True)


def test_a_source_is_true_even_where_its_length_is_not_known(folder):
    source = FolderSource(folder, rate_hz=30)
    source.num_frames = None
    assert source
    with pytest.raises(TypeError, match="not known"):
        len(source)


def test_street_frames_come_with_truth_and_flow():
    source = open_source("street:seed=2,size=320x240,rate=20,frames=3")
    frames = list(source)
    assert [f.stamp_ns for f in frames] == [0, 50_000_000, 100_000_000]
    assert (source.size, source.rate_hz, len(source)) == ((320, 240), 20.0, 3)
    assert source.classes.name == "camvid"
    assert frames[0].flow is None and frames[1].flow.shape == (240, 320, 2)
    assert frames[2].labels.shape == (240, 320) and frames[2].labels.dtype == np.uint8
    with pytest.raises(ConfigError, match="unknown key 'sed'"):
        open_source("street:sed=2")


def test_the_real_clip_with_its_truth(shared_data):
    clip = shared_data / "camvid"
    source = open_source(clip / "val", rate_hz=15, labels=clip / "valannot", classes=load_classes("camvid"))
    assert (len(source), source.size) == (101, (480, 360))
    first = next(iter(source))
    assert first.name == "0016E5_07959" and first.labels.shape == (360, 480)
    assert first.image[:20].mean() > first.image[-20:].mean()  # sky above road
