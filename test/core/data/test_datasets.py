import cv2
import numpy as np
import pytest

from vidseg_core.classes import load_classes
from vidseg_core.data.datasets import DataName, open_frames, open_labelled, open_video, split_share
from vidseg_core.errors import ConfigError, DatasetError

CLASSES = load_classes("camvid")


@pytest.fixture
def folder(tmp_path):
    """Four frames, all labelled, as `val` and as `train`."""
    for name in ("val", "valannot", "train", "trainannot"):
        (tmp_path / name).mkdir()
        for i in range(4):
            cv2.imwrite(str(tmp_path / name / f"f{i}.png"), np.full((64, 96), i, np.uint8))
    return tmp_path


def test_shares():
    assert split_share("camvid:/data/camvid@4") == ("camvid:/data/camvid", 4.0)
    assert split_share("camvid:/data/camvid:train@0.25") == ("camvid:/data/camvid:train", 0.25)
    assert split_share("street:@1") == ("street:", 1.0)
    assert split_share("camvid:/home/me@work/camvid") == ("camvid:/home/me@work/camvid", 1.0)
    with pytest.raises(ConfigError, match="number after @"):
        split_share("camvid:/data@1.2.3")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("camvid:/data/camvid", ("camvid", "/data/camvid", None)),
        ("camvid:CamVid:val", ("camvid", "CamVid", "val")),
        ("folder:/data/a:b:val", ("folder", "/data/a:b", "val")),
        ("street:", ("street", "", None)),
        ("street:seed=3,size=640x360", ("street", "seed=3,size=640x360", None)),
    ],
)
def test_names(text, parts):
    name = DataName.parse(text)
    assert (name.kind, name.where, name.split) == parts
    assert str(name) == text


def test_a_folder_may_have_a_colon_in_its_name(folder):
    (folder / "a:val").mkdir()
    assert DataName.parse(f"folder:{folder}/a:val").where == f"{folder}/a:val"


@pytest.mark.parametrize("text", ["camvid", "camvid:", "kitti:/data", "", "/data/camvid"])
def test_malformed_names_are_refused(text):
    with pytest.raises(ConfigError, match="expected KIND:WHERE with a KIND of camvid, cityscapes, folder, street"):
        DataName.parse(text)


def test_a_split_without_a_name_is_refused():
    with pytest.raises(ConfigError, match="expected camvid:DIR or camvid:DIR:SPLIT"):
        DataName.parse("camvid:CamVid:")


def test_camvid_and_cityscapes(shared_data):
    assert len(open_labelled(DataName.parse(f"camvid:{shared_data}/camvid"))) == 367
    assert len(open_labelled(DataName.parse(f"camvid:{shared_data}/camvid:val"))) == 101
    assert len(open_labelled(DataName.parse(f"cityscapes:{shared_data}/cityscapes_sequence:val"))) == 2


def test_a_folder_is_stills_in_training_and_video_in_evaluation(folder):
    name = DataName("folder", str(folder))
    stills = open_labelled(name, CLASSES)
    assert (stills.name, len(stills)) == ("train", 4)
    assert not any(sample.predecessors for sample in stills.samples)
    video = open_video(name, CLASSES, size=(128, 192), frames_before=3)
    (sequence,) = video.sequences
    assert (video.name, sequence.frames) == ("val", ("f0", "f1", "f2", "f3")) and all(sequence.labelled)
    frame = sequence.read(2)
    assert frame.image.shape == (128, 192, 3) and (frame.labels == 2).all()


def test_a_folder_needs_a_class_table(folder):
    for opened in (open_labelled, open_video):
        with pytest.raises(ConfigError, match="--classes"):
            opened(DataName("folder", str(folder)))


def test_frames_need_no_labels(folder):
    assert len(open_frames(DataName("folder", str(folder / "val"))).sequences[0]) == 4
    assert open_frames(DataName("folder", str(folder), "val")).classes is None
    assert len(open_frames(DataName("camvid", str(folder))).sequences[0]) == 4


def test_streets(tmp_path):
    dataset = open_labelled(DataName.parse("street:frames=1,scenes=1,size=320x240"), cache=tmp_path)
    assert len(dataset) == 1 and dataset.classes.name == "camvid"
    name = DataName.parse("street:seed=5,frames=3,size=320x240")
    for opened in (open_video, open_frames):
        assert opened(name).sequences[0].frames == ("5_000000", "5_000001", "5_000002")
        with pytest.raises(ConfigError, match="the synthetic street has no split, got 'val'"):
            opened(DataName("street", "seed=5", "val"))


def test_missing_frames_before_a_labelled_one(folder):
    for name in ("val", "valannot"):
        (folder / name / "f1.png").unlink()
    with pytest.raises(DatasetError, match="f2.png: expected 1 consecutive frames before it, there are 0"):
        open_video(DataName("folder", str(folder)), CLASSES, frames_before=1)


def test_missing_data_is_a_dataset_error(tmp_path):
    with pytest.raises(DatasetError, match="nowhere"):
        open_labelled(DataName.parse(f"camvid:{tmp_path}/nowhere"))
