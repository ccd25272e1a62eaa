"""Open frames of video in order, for evaluation, which needs a labelled frame's predecessors, too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vidseg_core.classes import ClassTable, load_classes
from vidseg_core.data.cityscapes import IMAGE_SUFFIX
from vidseg_core.data.images import list_images, read_rgb
from vidseg_core.data.label_files import check_size
from vidseg_core.data.labelled import MAX_PREDECESSORS, LabelledSet, clips_and_numbers, existing_folder, predecessors
from vidseg_core.errors import DatasetError
from vidseg_core.frame import Frame
from vidseg_core.street import Street, StreetConfig

FRAME_NS = 33_333_333


@dataclass(frozen=True)
class Sequence:
    """Consecutive frames of one camera.

    Attributes:
        name: of the sequence.
        frames: names of its frames, unique in their data set.
        labelled: for each frame whether it has ground truth.
        read: the frame at a position; with labels where there are any. Raises DatasetError if a file is broken.
    """

    name: str
    frames: tuple[str, ...]
    labelled: tuple[bool, ...]
    read: Callable[[int], Frame]

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class VideoSet:
    """Sequences that belong together.

    Attributes:
        name: of the data set.
        classes: class table of the labels; None where there are none.
        sequences: in order.
    """

    name: str
    classes: ClassTable | None
    sequences: tuple[Sequence, ...]


def labelled_video(dataset: LabelledSet, size: tuple[int, int] | None = None) -> VideoSet:
    """Arrange the samples of `dataset` and the frames before them as sequences.

    Args:
        size: (H, W) to which frames (bilinearly) and their labels (nearest) are resized; None leaves them.
    """
    index_of = {sample.image: index for index, sample in enumerate(dataset.samples)}
    chains = _chains([*sample.predecessors, sample.image] for sample in dataset.samples)

    def sequence(files: tuple[Path, ...]) -> Sequence:
        def read(position: int) -> Frame:
            path = files[position]
            image = read_rgb(path, DatasetError)
            labels = dataset.read_labels(index_of[path]) if path in index_of else None
            if labels is not None:
                check_size(labels, dataset.samples[index_of[path]].labels, image.shape[:2], path)
            return _frame(path.stem, position, image, labels, size)

        return Sequence(files[0].stem, tuple(f.stem for f in files), tuple(f in index_of for f in files), read)

    return VideoSet(dataset.name, dataset.classes, tuple(map(sequence, chains)))


def street_video(text: str, size: tuple[int, int] | None = None) -> VideoSet:
    """Open a synthetic street, rendered when frames are asked for; every frame is labelled.

    Args:
        text: `seed=3,frames=100,size=640x360`, with or without `street:` before it.
        size: as in `labelled_video`.

    Raises:
        ConfigError: `text` is malformed.
    """
    config = StreetConfig.parse(text if text.startswith("street:") else f"street:{text}")
    street = Street(config)
    names = tuple(f"{config.seed}_{i:06d}" for i in range(config.num_frames))

    def read(position: int) -> Frame:
        frame = street.render(position)
        return _frame(names[position], position, frame.image, frame.labels, size)

    sequence = Sequence(names[0], names, (True,) * len(names), read)
    return VideoSet("street", load_classes("camvid"), (sequence,))


def folder_video(folder: Path, size: tuple[int, int] | None = None) -> VideoSet:
    """Open all images of a folder in natural order as one sequence without labels.

    Raises:
        DatasetError: no such folder, or no images in it.
    """
    files = tuple(list_images(existing_folder(folder, "images")))
    if not files:
        raise DatasetError(f"{folder}: expected images, there are none")
    return VideoSet(folder.resolve().name, None, (_unlabelled(files, size),))


def cityscapes_video(root: str | Path, split: str, size: tuple[int, int] | None = None) -> VideoSet:
    """Open the snippets in `leftImg8bit_sequence/SPLIT/CITY/`, without labels.

    Raises:
        DatasetError: the folder is missing or empty.
    """
    folder = existing_folder(Path(root) / "leftImg8bit_sequence" / split, "a folder of frames for each city")
    files = [
        path
        for city in sorted(path for path in folder.iterdir() if path.is_dir())
        for path in list_images(city, (".png",))
        if path.stem.endswith(IMAGE_SUFFIX)
    ]
    if not files:
        raise DatasetError(f"{folder}: expected CITY/*{IMAGE_SUFFIX}.png, there are none")
    before = predecessors(files, step=1, suffix=IMAGE_SUFFIX)
    chains = _chains([*before.get(path, ()), path] for path in files)
    return VideoSet(f"cityscapes-{split}", None, tuple(_unlabelled(chain, size) for chain in chains))


def check_unbroken(dataset: LabelledSet, count: int) -> None:
    """Check that none of the `count` frames before a labelled frame is missing while earlier ones are there.

    A labelled frame at the beginning of its clip may have fewer before it.
    """
    numbers: dict[tuple, set[int]] = defaultdict(set)
    listed: set[Path] = set()
    known: dict[Path, tuple[tuple, int]] = {}
    is_video = any(sample.predecessors for sample in dataset.samples)
    for sample in dataset.samples:
        if not is_video or len(sample.predecessors) >= min(count, MAX_PREDECESSORS):
            continue
        folder, first = sample.image.parent, (*sample.predecessors, sample.image)[0]
        if folder not in listed:
            listed.add(folder)
            here = clips_and_numbers(list_images(folder), dataset.suffix)
            known |= here
            for clip, number in here.values():
                numbers[clip].add(number)
        if first not in known:
            continue
        clip, number = known[first]
        earlier = max((n for n in numbers[clip] if n < number), default=None)
        if earlier is not None:
            raise DatasetError(
                f"{sample.image}: expected {count} consecutive frames before it, there are {len(sample.predecessors)}; "
                f"frames are missing between number {earlier} and number {number}"
            )


def _unlabelled(files: tuple[Path, ...], size: tuple[int, int] | None) -> Sequence:
    def read(position: int) -> Frame:
        return _frame(files[position].stem, position, read_rgb(files[position], DatasetError), None, size)

    return Sequence(files[0].stem, tuple(f.stem for f in files), (False,) * len(files), read)


def _frame(
    name: str, position: int, image: np.ndarray, labels: np.ndarray | None, size: tuple[int, int] | None
) -> Frame:
    if size is not None:
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
        if labels is not None:
            labels = cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return Frame(image, position * FRAME_NS, name=name, labels=labels)


def _chains(pieces: Iterable[list[Path]]) -> list[tuple[Path, ...]]:
    """Pieces of consecutive frames, which overlap, put together."""
    following: dict[Path, Path | None] = {}
    has_previous = set()
    for piece in pieces:
        for path, successor in zip(piece, piece[1:], strict=False):
            following[path] = successor
            has_previous.add(successor)
        following.setdefault(piece[-1], None)
    chains = []
    for path in [path for path in following if path not in has_previous]:
        chain = [path]
        while (successor := following[chain[-1]]) is not None:
            chain.append(successor)
        chains.append(tuple(chain))
    return chains
