"""A folder of images as a source of frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vidseg_core.classes import ClassTable
from vidseg_core.data.images import IMAGE_SUFFIXES, list_images, read_rgb
from vidseg_core.data.label_files import LabelFiles, check_size, read_labels
from vidseg_core.data.source import Source, checked_size
from vidseg_core.errors import DatasetError, SourceError
from vidseg_core.frame import Frame


class FolderSource(Source):
    """The images of a folder in natural order. The stamp of image i is i / rate_hz, also where others are skipped."""

    def __init__(self, folder: Path, *, rate_hz: float, skip_bad: bool = False, truth: FolderTruth | None = None):
        self._files = list_images(folder)
        self._truth = truth
        if not self._files:
            raise SourceError(f"{folder}: expected images ({', '.join(IMAGE_SUFFIXES)}), there are none")
        stems: dict[str, Path] = {}
        for path in self._files:
            if path.stem in stems:
                raise SourceError(f"{path}: expected one image of each name, got {stems[path.stem].name} as well")
            stems[path.stem] = path
        if truth is not None:
            truth.check_any(stems, folder)
        name = folder.resolve().name
        super().__init__(name, rate_hz, len(self._files), skip_bad, truth.classes if truth else None)

    def _read(self) -> Iterator[tuple[str, Frame | SourceError]]:
        for index, path in enumerate(self._files):
            yield path.stem, self._frame(index, path)

    def _frame(self, index: int, path: Path) -> Frame | SourceError:
        try:
            image = checked_size(read_rgb(path, SourceError), path)
        except SourceError as error:
            return error
        labels = self._truth.read(path, image.shape[:2]) if self._truth else None
        return Frame(image, round(index * 1e9 / self.rate_hz), stream=self.name, name=path.stem, labels=labels)


class FolderTruth:
    """Ground truth files of a folder, found by the stems of the images.

    Args:
        folder: of label files, see `LabelFiles`.
        classes: how they are read.

    Raises:
        DatasetError: no class table, or no such folder.
    """

    def __init__(self, folder: Path, classes: ClassTable | None):
        if classes is None:
            raise DatasetError(f"{folder}: a class table is needed to read labels")
        if not folder.is_dir():
            raise DatasetError(f"{folder}: expected a folder of label files (.png)")
        self.folder = folder
        self.classes = classes
        self._files = LabelFiles(folder, classes)

    def check_any(self, stems: dict[str, Path], image_folder: Path) -> None:
        """Check that one image at least has a label file; raises DatasetError."""
        if not any(self._files.find(stem) for stem in stems):
            raise DatasetError(
                f"{self.folder}: expected label files named like the images in {image_folder} "
                f"(for instance {next(iter(stems))}.png), none of {self._files.count} files is"
            )

    def read(self, image: Path, size: tuple[int, int]) -> np.ndarray | None:
        """Read an image's labels, H x W, uint8; None where it has no file. Raises DatasetError for another size."""
        path = self._files.find(image.stem)
        if path is None:
            return None
        labels = read_labels(path, self.classes)
        check_size(labels, path, size, image)
        return labels
