import numpy as np
import pytest

from vidseg_core.data.camvid import camvid
from vidseg_core.errors import DatasetError


def test_val_is_a_clip_of_every_second_frame(shared_data):
    clip = camvid(shared_data / "camvid", "val")
    assert len(clip) == 101
    assert [len(s.predecessors) for s in clip.samples[:4]] == [0, 1, 2, 3]
    assert clip.samples[50].name == "0016E5_08059"
    assert [p.stem for p in clip.samples[50].predecessors[-2:]] == ["0016E5_08055", "0016E5_08057"]
    assert clip.read_image(50).shape == (360, 480, 3)
    labels = clip.read_labels(50)
    assert labels.shape == (360, 480) and set(np.unique(labels)) <= {*range(11), 255}
    assert clip.classes.names[np.bincount(labels[300:].ravel(), minlength=256)[:11].argmax()] == "road"


def test_train_is_stills(shared_data):
    stills = camvid(shared_data / "camvid", "train")
    assert len(stills) == 367
    assert not any(s.predecessors for s in stills.samples)
    assert stills.read_image(0).shape[:2] == stills.read_labels(0).shape


def test_unknown_split_and_wrong_path(tmp_path):
    with pytest.raises(DatasetError, match=r"expected a split of \['train', 'val', 'test'\], got 'vla'"):
        camvid(tmp_path, "vla")
    with pytest.raises(DatasetError, match="expected a folder"):
        camvid(tmp_path / "nowhere", "val")
