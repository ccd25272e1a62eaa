"""CamVid as SegNet arranged it: 11 classes, `train`, `val`, `test` beside `trainannot`, `valannot`, `testannot`.

Brostow, Fauqueur, Cipolla: Semantic object classes in video, 2009; Badrinarayanan, Kendall, Cipolla: SegNet, 2017.
"""

from __future__ import annotations

from pathlib import Path

from vidseg_core.classes import load_classes
from vidseg_core.data.labelled import LabelledSet, folder_pair
from vidseg_core.errors import DatasetError

# The labelled clip of validation frames is 15 Hz video; the others were labelled once a second.
_IS_VIDEO = {"train": False, "val": True, "test": False}


def camvid(root: str | Path, split: str) -> LabelledSet:
    """Open CamVid's `split`: "train" and "test" are stills, "val" is video whose frames have predecessors.

    Raises:
        DatasetError: no such split, a folder is missing or empty, or images and labels do not pair up.
    """
    if split not in _IS_VIDEO:
        raise DatasetError(f"CamVid: expected a split of {list(_IS_VIDEO)}, got {split!r}")
    return folder_pair(root, split, load_classes("camvid"), video=_IS_VIDEO[split])
