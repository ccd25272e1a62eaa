"""Labelled images, with the video frames before them where there are any."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidseg_core.classes import ClassTable
from vidseg_core.data.images import list_images, read_rgb
from vidseg_core.data.label_files import LabelFiles, check_size, read_labels
from vidseg_core.errors import DatasetError

MAX_PREDECESSORS = 30
_SHOWN = 5
_STAMPS_FROM = 10**12  # larger than any count of frames


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    Attributes:
        image: its file.
        labels: the file of its labels, as large as the image.
        name: unique in its set.
        predecessors: the video frames before it, consecutive, the nearest last (..., t-2, t-1); at most
            `MAX_PREDECESSORS`, none where the set has stills.
    """

    image: Path
    labels: Path
    name: str
    predecessors: tuple[Path, ...] = ()


@dataclass(frozen=True)
class LabelledSet:
    """A data set: its class table and its samples in order. Files are read when asked for, and nothing is kept.

    Attributes:
        suffix: what the stems of all image files end in, behind the number of the frame.
    """

    name: str
    classes: ClassTable
    samples: tuple[Sample, ...]
    suffix: str = ""

    def __len__(self) -> int:
        return len(self.samples)

    def read_image(self, index: int) -> np.ndarray:
        """Read an image, H x W x 3, uint8, RGB.

        Raises:
            DatasetError: the file is missing, cut short or not an image.
        """
        return read_rgb(self.samples[index].image, DatasetError)

    def read_predecessors(self, index: int, count: int) -> list[np.ndarray]:
        """Read the `count` images before sample `index`, each H x W x 3 uint8 RGB, the nearest last.

        Raises:
            DatasetError: there are fewer, or a file is missing, cut short or not an image.
        """
        sample = self.samples[index]
        if not 0 <= count <= len(sample.predecessors):
            raise DatasetError(
                f"{sample.image}: expected {count} frames before it, the set has {len(sample.predecessors)}"
            )
        return [read_rgb(path, DatasetError) for path in sample.predecessors[len(sample.predecessors) - count :]]

    def read_labels(self, index: int) -> np.ndarray:
        """Read labels, H x W, uint8: class ids, 255 = void.

        Raises:
            DatasetError: see `vidseg_core.data.label_files.read_labels`.
        """
        return read_labels(self.samples[index].labels, self.classes)

    def check(self, progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> None:
        """Read every image and its labels once, so that nothing can fail an hour into a training.

        Args:
            progress: wraps the iteration over the samples' indices, for instance `tqdm`.

        Raises:
            DatasetError: a file is missing or broken, sizes differ, or an id is not in the class table.
        """
        for index in progress(range(len(self))):
            image, labels = self.read_image(index), self.read_labels(index)
            check_size(labels, self.samples[index].labels, image.shape[:2], self.samples[index].image)


def folder_pair(root: str | Path, name: str, classes: ClassTable, video: bool = False) -> LabelledSet:
    """Pair images in `root/name/`, PNG or JPEG, with labels in `root/nameannot/`, PNG, by their names.

    See `vidseg_core.data.label_files.LabelFiles` for these.

    Args:
        root: the folder that holds both.
        name: of the folder with the images.
        classes: which ids the label files use.
        video: whether the images are frames of video, so that they are each other's predecessors. Stills that were
            taken seconds apart look the same to a reader of file names, so this must be said.

    Raises:
        DatasetError: a folder is missing or empty, or images and labels do not pair up.
    """
    image_folder, label_folder = Path(root) / name, Path(root) / f"{name}annot"
    images = _by_stem(image_folder, (".png", ".jpg", ".jpeg"))
    files = LabelFiles(existing_folder(label_folder, ".png files"), classes)
    labels = {stem: path for stem in images if (path := files.find(stem)) is not None}
    _check_pairs(image_folder, images, label_folder, labels, files)
    before = predecessors(list(images.values())) if video else {}
    samples = tuple(Sample(path, labels[stem], stem, before.get(path, ())) for stem, path in images.items())
    return LabelledSet(name, classes, samples)


def predecessors(frames: Iterable[Path], step: int | None = None, suffix: str = "") -> dict[Path, tuple[Path, ...]]:
    """List for each frame of video the consecutive frames before it, the nearest last.

    Frames of a clip (see `clips_and_numbers`) are consecutive if their numbers differ by `step`, or if that is None, by
    the smallest difference in the clip; stamps, which jitter, by at most one and a half times the median difference.
    `suffix`, at the end of every stem, counts as neither.
    """
    clips: dict[tuple, dict[int, Path]] = defaultdict(dict)
    for path, (clip, number) in clips_and_numbers(frames, suffix).items():
        clips[clip][number] = path
    found: dict[Path, tuple[Path, ...]] = {}
    for clip in clips.values():
        numbers = sorted(clip)
        differences = [b - a for a, b in zip(numbers, numbers[1:], strict=False)]
        largest = step or min(differences, default=1)
        if step is None and differences and numbers[0] >= _STAMPS_FROM:
            largest = 1.5 * sorted(differences)[len(differences) // 2]
        for number, difference in zip(numbers, [None, *differences], strict=True):
            chain: tuple[Path, ...] = ()
            if difference is not None and difference <= largest:
                previous = clip[number - difference]
                chain = (*found[previous], previous)
            found[clip[number]] = chain[-MAX_PREDECESSORS:]
    return found


def clips_and_numbers(frames: Iterable[Path], suffix: str = "") -> dict[Path, tuple[tuple, int]]:
    """Find each frame's clip and its number in it; files without a number are left out.

    The frame's number is the last number of a stem, `suffix` left out; what stands around it names the clip. Without a
    `suffix`, a number that all names of one pattern share (`0001_1280x720`) is none. Seconds with a point are a stamp.
    """
    alike: dict[tuple, list[tuple[Path, list[str]]]] = defaultdict(list)
    found: dict[Path, tuple[tuple, int]] = {}
    for path in frames:
        stem = path.stem.removesuffix(suffix)
        if stamp := re.fullmatch(r"(.*?)(\d{9,10})\.(\d{1,9})", stem):
            found[path] = ((path.parent, stamp[1], ""), int(stamp[2]) * 10**9 + int(stamp[3].ljust(9, "0")))
            continue
        parts = re.split(r"(\d+)", stem)
        if len(parts) > 1:
            alike[path.parent, tuple(parts[::2])].append((path, parts))
    for (folder, texts), files in alike.items():
        place = 2 * len(texts) - 3
        while not suffix and len(files) > 1 and place > 1 and len({parts[place] for _, parts in files}) == 1:
            place -= 2
        for path, parts in files:
            found[path] = ((folder, "".join(parts[:place]), "".join(parts[place + 1 :])), int(parts[place]))
    return found


def existing_folder(path: Path, what: str) -> Path:
    """Return `path`, which must be a folder.

    Raises:
        DatasetError: it is not; the message says what was looked for in it.
    """
    if not path.is_dir():
        raise DatasetError(f"{path}: expected a folder with {what}, got {'a file' if path.exists() else 'nothing'}")
    return path


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in list_images(existing_folder(folder, f"{', '.join(suffixes)} files"), suffixes):
        if path.stem in files:
            raise DatasetError(f"{path}: expected one file of each name, got {files[path.stem].name} as well")
        files[path.stem] = path
    return files


def _check_pairs(
    image_folder: Path, images: dict[str, Path], label_folder: Path, labels: dict[str, Path], files: LabelFiles
) -> None:
    if not images:
        raise DatasetError(f"{image_folder}: expected images (.png, .jpg), there are none")
    alone = files.without_image(images)
    pairs = (
        (label_folder, len(images), [stem for stem in images if stem not in labels]),
        (image_folder, files.count, alone),
    )
    for folder, wanted, missing in pairs:
        if missing:
            shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
            raise DatasetError(
                f"{folder}: expected a file for each of {wanted}, {len(missing)} are missing: {shown} "
                f"({len(images)} images in {image_folder}, {files.count} label files in {label_folder})"
            )
