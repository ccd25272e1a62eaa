from pathlib import Path

import cv2
import numpy as np
import pytest

from vidseg_core.classes import load_classes
from vidseg_core.data.labelled import MAX_PREDECESSORS, folder_pair, predecessors
from vidseg_core.errors import DatasetError

SIZE = (64, 80)


@pytest.fixture
def classes():
    return load_classes("camvid")


@pytest.fixture
def pair(tmp_path):
    """Four frames with labels; frame i is i * 10 everywhere, its labels are i."""
    (tmp_path / "clip").mkdir()
    (tmp_path / "clipannot").mkdir()
    for i in range(4):
        suffix = "jpg" if i == 2 else "png"
        cv2.imwrite(str(tmp_path / "clip" / f"a_{100 + 5 * i}.{suffix}"), np.full((*SIZE, 3), 10 * i, np.uint8))
        cv2.imwrite(str(tmp_path / "clipannot" / f"a_{100 + 5 * i}.png"), np.full(SIZE, i, np.uint8))
    return tmp_path


def test_pairs_are_matched_by_stem_and_read(pair, classes):
    cv2.imwrite(str(pair / "clipannot" / "a_115.png"), np.full(SIZE, 11, np.uint8))
    found = folder_pair(pair, "clip", classes)
    assert (found.name, len(found), found.classes) == ("clip", 4, classes)
    assert [s.name for s in found.samples] == ["a_100", "a_105", "a_110", "a_115"]
    assert found.samples[2].image.name == "a_110.jpg"
    assert all(s.predecessors == () for s in found.samples)
    assert found.read_image(1).shape == (*SIZE, 3) and (found.read_image(1) == 10).all()
    assert (found.read_labels(2) == 2).all()
    assert (found.read_labels(3) == 255).all()
    found.check()


def test_frames_of_video_know_those_before_them(pair, classes):
    found = folder_pair(pair, "clip", classes, video=True)
    assert [p.name for p in found.samples[3].predecessors] == ["a_100.png", "a_105.png", "a_110.jpg"]
    assert found.samples[0].predecessors == ()
    assert [int(image[0, 0, 0]) for image in found.read_predecessors(2, 2)] == [0, 10]
    assert found.read_predecessors(2, 0) == []
    with pytest.raises(DatasetError, match=r"a_105.png: expected 2 frames before it, the set has 1"):
        found.read_predecessors(1, 2)


def test_predecessors_end_at_gaps_and_at_other_clips():
    names = ["a_1", "a_3", "a_5", "a_9", "a_11", "b_1", "b_2", "b_5"]
    before = predecessors(Path(f"{name}.png") for name in names)
    assert {path.stem: [p.stem for p in chain] for path, chain in before.items()} == {
        "a_1": [], "a_3": ["a_1"], "a_5": ["a_1", "a_3"], "a_9": [], "a_11": ["a_9"],
        "b_1": [], "b_2": ["b_1"], "b_5": [],
    }  # fmt: skip


def test_predecessors_are_limited():
    before = predecessors(Path(f"{i:06d}.png") for i in range(100))
    chain = before[Path("000099.png")]
    assert [p.stem for p in chain] == [f"{i:06d}" for i in range(99 - MAX_PREDECESSORS, 99)]


def test_check_goes_through_every_sample(pair, classes):
    seen = []
    folder_pair(pair, "clip", classes).check(progress=lambda indices: [seen.append(i) or i for i in indices])
    assert seen == [0, 1, 2, 3]


def test_missing_and_empty_folders(tmp_path, pair, classes):
    with pytest.raises(DatasetError, match=r"nothere: expected a folder .*, got nothing"):
        folder_pair(tmp_path, "nothere", classes)
    (tmp_path / "x").mkdir()
    with pytest.raises(DatasetError, match=r"xannot: expected a folder"):
        folder_pair(tmp_path, "x", classes)
    (tmp_path / "xannot").touch()
    with pytest.raises(DatasetError, match=r"xannot: expected a folder .*, got a file"):
        folder_pair(tmp_path, "x", classes)
    (tmp_path / "xannot").unlink()
    (tmp_path / "xannot").mkdir()
    with pytest.raises(DatasetError, match=r"x: expected images .*none"):
        folder_pair(tmp_path, "x", classes)


def test_images_without_labels_are_named(pair, classes):
    (pair / "clipannot" / "a_105.png").unlink()
    with pytest.raises(DatasetError, match=r"clipannot: .*1 are missing: a_105 \(4 images in .*, 3 label files in "):
        folder_pair(pair, "clip", classes)


def test_labels_without_images_are_named_but_not_all(pair, classes):
    for i in range(7):
        (pair / "clipannot" / f"other_{i}.png").touch()
    with pytest.raises(DatasetError, match=r"clip: .*7 are missing: other_0, other_1, .*, other_4, \.\.\."):
        folder_pair(pair, "clip", classes)


def test_two_images_of_one_name(pair, classes):
    cv2.imwrite(str(pair / "clip" / "a_110.png"), np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"a_110.png: expected one file of each name, got a_110.jpg as well"):
        folder_pair(pair, "clip", classes)


def broken_image(pair):
    (pair / "clip" / "a_105.png").write_bytes(b"\x89PNG and no more")
    return r"a_105.png: the image is cut short"


def broken_labels(pair):
    (pair / "clipannot" / "a_105.png").write_bytes(b"nothing")
    return r"clipannot/a_105.png: not an image"


def other_size(pair):
    cv2.imwrite(str(pair / "clipannot" / "a_110.png"), np.zeros((64, 81), np.uint8))
    return r"clipannot/a_110.png: expected labels as large as .*clip/a_110.jpg \(80 x 64\), got 81 x 64"


def unknown_id(pair):
    cv2.imwrite(str(pair / "clipannot" / "a_115.png"), np.full(SIZE, 77, np.uint8))
    return r"clipannot/a_115.png: label ids \[77\] are not in class table 'camvid'"


def colours_as_labels(pair):
    cv2.imwrite(str(pair / "clipannot" / "a_115.png"), np.full((*SIZE, 3), 1, np.uint8))
    return r"clipannot/a_115.png: colours .* of 100 % of the pixels are not in .*: \(1, 1, 1\) 100 %; all three"


@pytest.mark.parametrize("spoil", [broken_image, broken_labels, other_size, unknown_id, colours_as_labels])
def test_check_names_the_file(pair, classes, spoil):
    expected = spoil(pair)
    found = folder_pair(pair, "clip", classes)
    with pytest.raises(DatasetError, match=expected):
        found.check()


STAMPS = [1_700_000_000_099_381_782 + 66_666_667 * i + jitter for i, jitter in enumerate([0, 9e5, -8e5, 7e5, 0, -9e5])]


@pytest.mark.parametrize(
    "names",
    [
        [f"{int(stamp)}" for stamp in STAMPS],
        [f"{int(stamp) // 10**9}.{int(stamp) % 10**9:09d}" for stamp in STAMPS],
        [f"{i:04d}_1280x720" for i in range(6)],
        [f"frame{i}_cam0" for i in range(6)],
    ],
    ids=["nanoseconds", "seconds", "size", "camera"],
)
def test_frames_named_by_stamps_or_with_other_numbers_are_consecutive(names):
    before = predecessors(Path(f"{name}.png") for name in names)
    assert {path.stem: [p.stem for p in chain] for path, chain in before.items()} == {
        name: names[:i] for i, name in enumerate(names)
    }
    gap = predecessors(Path(f"{name}.png") for i, name in enumerate(names) if i != 3)
    assert gap[Path(f"{names[4]}.png")] == () and len(gap[Path(f"{names[2]}.png")]) == 2
