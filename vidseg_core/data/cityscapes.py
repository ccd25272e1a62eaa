"""Cityscapes: snippets of video in `leftImg8bit_sequence`, one frame of each labelled in `gtFine`.

Cordts et al.: The Cityscapes dataset for semantic urban scene understanding, 2016.
"""

from __future__ import annotations

from pathlib import Path

from vidseg_core.classes import load_classes
from vidseg_core.data.images import list_images
from vidseg_core.data.label_files import LabelFiles
from vidseg_core.data.labelled import LabelledSet, Sample, existing_folder, predecessors
from vidseg_core.errors import DatasetError

SPLITS = ("train", "val", "test")
IMAGE_SUFFIX = "_leftImg8bit"
_LABELS = "_gtFine_labelIds"


def cityscapes(root: str | Path, split: str) -> LabelledSet:
    """Open the labelled frames of `split`, each with the frames of its snippet before it; 19 classes.

    Files: `leftImg8bit_sequence/SPLIT/CITY/CITY_SNIPPET_FRAME_leftImg8bit.png` and
    `gtFine/SPLIT/CITY/CITY_SNIPPET_FRAME_gtFine_labelIds.png`; or, where there are no such files, `labelTrainIds`,
    `color`.

    Raises:
        DatasetError: no such split, a folder is missing or empty, or a labelled frame has no image.
    """
    if split not in SPLITS:
        raise DatasetError(f"Cityscapes: expected a split of {list(SPLITS)}, got {split!r}")
    image_root = existing_folder(Path(root) / "leftImg8bit_sequence" / split, "a folder of frames for each city")
    label_root = existing_folder(Path(root) / "gtFine" / split, "a folder of labels for each city")
    samples = []
    for city in sorted(path for path in label_root.iterdir() if path.is_dir()):
        samples += _city_samples(city, image_root / city.name)
    if not samples:
        raise DatasetError(f"{label_root}: expected CITY/*{_LABELS}.png, there are none")
    return LabelledSet(f"cityscapes-{split}", load_classes("cityscapes"), tuple(samples), IMAGE_SUFFIX)


def _city_samples(label_folder: Path, image_folder: Path) -> list[Sample]:
    label_files = LabelFiles(label_folder, load_classes("cityscapes")).by_image()
    if not label_files:
        return []
    existing_folder(image_folder, f"the frames of {label_folder}")
    frames = [path for path in list_images(image_folder, (".png",)) if path.stem.endswith(IMAGE_SUFFIX)]
    before = predecessors(frames, step=1, suffix=IMAGE_SUFFIX)
    samples = []
    for name, labels in label_files.items():
        image = image_folder / f"{name}{IMAGE_SUFFIX}.png"
        if image not in before:
            raise DatasetError(f"{image}: missing, but there are labels for it: {labels}")
        samples.append(Sample(image, labels, name, before[image]))
    return samples
