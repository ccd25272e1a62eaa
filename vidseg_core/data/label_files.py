"""Find the label file of an image, and read it in whatever form it is written.

Forms: ids in one channel (of 8 bits, of fewer, of 16 where they are below 256, or with a palette, whose indices they
are), and colours, which the class table translates. The names are those of CamVid, Cityscapes, ACDC and BDD100K, or
the image's own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vidseg_core.classes import ClassTable
from vidseg_core.data.images import list_images, read_label_image, stored_size
from vidseg_core.errors import DatasetError

LABEL_SUFFIX = ".png"
# Looked for so that they can be refused by name.
LOSSY_SUFFIXES = (".jpg", ".jpeg")
_IDS, _TRAIN_IDS, _COLORS = ("labelIds",), ("labelTrainIds", "train_id"), ("color", "labelColor", "train_color", "L")
_FORM = re.compile(rf"(.+?)(?:_gtFine|_gtCoarse|_gt)?_({'|'.join(_IDS + _TRAIN_IDS + _COLORS)})")
_NO_LABELS = ("instanceIds", "instanceTrainIds")
_IMAGE = re.compile(r"(.+?)(?:_leftImg8bit|_rgb_anon)?")


class LabelFiles:
    """Find the label files of a folder by the stems of their images.

    A file has the image's own name, or the image's name with what tells its form: `X_gtFine_labelIds` for
    `X_leftImg8bit`, `X_L` for `X`. Where an image has several, ids are preferred to colours, and of the two numberings
    the one that the class table has.

    Args:
        folder: where they lie; it exists.
        classes: how they will be read.

    Attributes:
        count: how many files there are.
    """

    def __init__(self, folder: Path, classes: ClassTable):
        self._named: dict[str, Path] = {}
        self._forms: dict[str, dict[str, Path]] = defaultdict(dict)
        ids = (*_TRAIN_IDS, *_IDS) if classes.has_class_ids else (*_IDS, *_TRAIN_IDS)
        self._order = (*ids, *_COLORS)
        # PNG last: it takes the place of a preview of the same name.
        for path in [*list_images(folder, LOSSY_SUFFIXES), *list_images(folder, (LABEL_SUFFIX,))]:
            if path.stem.endswith(_NO_LABELS):
                continue
            self._named[path.stem] = path
            key, form = _form(path.stem)
            if form is not None:
                self._forms[key][form] = path
        self.count = len(self._named)

    def find(self, image: str) -> Path | None:
        """Find the label file of the image with this stem; None if it has none."""
        if image in self._named:
            return self._named[image]
        return self._preferred(_image_key(image))

    def by_image(self) -> dict[str, Path]:
        """Find the files whose names tell a form, by their images' stems without what tells theirs."""
        return {key: path for key in self._forms if (path := self._preferred(key)) is not None}

    def _preferred(self, key: str) -> Path | None:
        forms = self._forms.get(key, {})
        return next((forms[form] for form in self._order if form in forms), None)

    def without_image(self, images: Iterable[str]) -> list[str]:
        """List the stems of label files that belong to none of the images, given by their stems."""
        stems = set(images)
        keys = stems | {_image_key(stem) for stem in stems}
        return [stem for stem in self._named if stem not in stems and _form(stem)[0] not in keys]


def read_labels(path: Path, classes: ClassTable) -> np.ndarray:
    """Read a label file, H x W, uint8: class ids, 255 = void.

    Raises:
        DatasetError: the file is missing, broken or a JPEG, or holds an id or a colour that the table does not know.
    """
    stored = read_label_image(path, DatasetError)
    if stored.ndim == 3:
        return classes.read_colors(stored, path)
    if _form(path.stem)[1] in _TRAIN_IDS:
        classes = classes.with_class_ids()
    return classes.read_ids(stored, path)


def check_size(labels: np.ndarray, where: str | Path, size: tuple[int, int], image: str | Path) -> None:
    """Check that labels are as large as their image.

    Args:
        labels: H x W.
        where: their file, for the message.
        size: (H, W) of the image as it is shown.
        image: its file, which is looked into for its orientation; or words.

    Raises:
        DatasetError: they are not.
    """
    if labels.shape == size:
        return
    turned = ""
    if isinstance(image, Path) and size[::-1] == labels.shape == stored_size(image):
        turned = (
            "; the image is stored so, and turned by its EXIF orientation: turn the labels, too, or store the image "
            "upright"
        )
    raise DatasetError(
        f"{where}: expected labels as large as {image} ({size[1]} x {size[0]}), "
        f"got {labels.shape[1]} x {labels.shape[0]}{turned}"
    )


def _form(stem: str) -> tuple[str, str | None]:
    """Split a label file's stem into its image's key and its form."""
    match = _FORM.fullmatch(stem)
    return (match[1], match[2]) if match else (stem, None)


def _image_key(stem: str) -> str:
    match = _IMAGE.fullmatch(stem)
    return match[1] if match else stem
