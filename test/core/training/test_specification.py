import cv2
import numpy as np
import pytest

from vidseg_core.classes import load_classes
from vidseg_core.errors import ConfigError, DatasetError
from vidseg_core.training.specification import open_dataset, split_share


def test_shares():
    assert split_share("camvid:/data/camvid@4") == ("camvid:/data/camvid", 4.0)
    assert split_share("camvid:/data/camvid:train@0.25") == ("camvid:/data/camvid:train", 0.25)
    assert split_share("street:@1") == ("street:", 1.0)
    assert split_share("camvid:/home/me@work/camvid") == ("camvid:/home/me@work/camvid", 1.0)
    with pytest.raises(ConfigError, match="number after @"):
        split_share("camvid:/data@1.2.3")


def test_camvid_and_cityscapes(shared_data, tmp_path):
    assert len(open_dataset(f"camvid:{shared_data}/camvid", None, tmp_path)) == 367
    assert len(open_dataset(f"camvid:{shared_data}/camvid:val", None, tmp_path)) == 101
    assert len(open_dataset(f"cityscapes:{shared_data}/cityscapes_sequence:val", None, tmp_path)) == 2


def test_folder_with_its_own_classes(tmp_path):
    for folder in ("mine", "mineannot"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "a.png"), np.zeros((64, 64), np.uint8))
    assert len(open_dataset(f"folder:{tmp_path}:mine", load_classes("camvid"), tmp_path)) == 1
    with pytest.raises(ConfigError, match="--classes"):
        open_dataset(f"folder:{tmp_path}:mine", None, tmp_path)
    with pytest.raises(ConfigError, match="folder:DIR:NAME"):
        open_dataset("folder:mine", load_classes("camvid"), tmp_path)


def test_street(tmp_path):
    dataset = open_dataset("street:frames=1,scenes=1,size=320x240", None, tmp_path)
    assert len(dataset) == 1 and dataset.classes.name == "camvid"


@pytest.mark.parametrize("text", ["camvid", "camvid:", "kitti:/data", ""])
def test_malformed_specifications_are_refused(text, tmp_path):
    with pytest.raises(ConfigError, match="expected KIND:WHERE"):
        open_dataset(text, None, tmp_path)


def test_missing_data_is_a_dataset_error(tmp_path):
    with pytest.raises(DatasetError, match="nowhere"):
        open_dataset(f"camvid:{tmp_path}/nowhere", None, tmp_path)
