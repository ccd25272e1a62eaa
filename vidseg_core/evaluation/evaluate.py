"""How much accuracy is lost between key frames (protocol of SwNet-seq's evaluation).

For each labelled frame t that has enough predecessors, and each distance k, a key frame at t - k is propagated k frames
and scored at t. So every distance is scored on the same frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from vidseg_core.classes import ClassTable
from vidseg_core.data.images import read_rgb
from vidseg_core.data.labelled import LabelledSet
from vidseg_core.engine.stream import Stream
from vidseg_core.errors import DatasetError
from vidseg_core.evaluation.metrics import ConfusionMatrix
from vidseg_core.frame import Frame

FRAME_NS = 33_333_333


@dataclass(frozen=True)
class Clip:
    """A key frame and the frames after it, as far as they are scored.

    Attributes:
        images: files of the key frame and its successors.
        scored: (distance from the key frame, index in the data set).
    """

    images: tuple[Path, ...]
    scored: tuple[tuple[int, int], ...]


def clips(dataset: LabelledSet, distance: int) -> list[Clip]:
    """One clip for each frame that is 0 to `distance` frames before a labelled frame with `distance` predecessors.

    Raises:
        DatasetError: no labelled frame has so many.
    """
    starts: dict[Path, dict[int, int]] = {}
    chains: dict[Path, tuple[Path, ...]] = {}
    for index, sample in enumerate(dataset.samples):
        if len(sample.predecessors) < distance:
            continue
        chain = (*sample.predecessors[len(sample.predecessors) - distance :], sample.image)
        for k in range(distance + 1):
            start = chain[distance - k]
            starts.setdefault(start, {})[k] = index
            if len(chains.get(start, ())) <= k:
                chains[start] = chain[distance - k :]
    if not starts:
        longest = max((len(sample.predecessors) for sample in dataset.samples), default=0)
        raise DatasetError(
            f"{dataset.name}: expected labelled frames with {distance} frames before them, "
            f"the most that one has is {longest}"
        )
    return [Clip(chains[start], tuple(sorted(scored.items()))) for start, scored in starts.items()]


def by_distance(
    dataset: LabelledSet,
    stream: Stream,
    distance: int,
    size: tuple[int, int] | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[ConfusionMatrix]:
    """One confusion matrix for each distance 0..`distance` from the key frame.

    Args:
        dataset: of video frames.
        stream: its interval must be at least `distance`; it is reset before each clip.
        size: (H, W) to which frames (bilinearly) and their labels (nearest) are resized first; None leaves them.
        progress: wraps the iteration over the clips, for instance `tqdm`.

    Raises:
        DatasetError: too few frames, or a file that cannot be read.
    """
    index_of = {sample.image: index for index, sample in enumerate(dataset.samples)}
    matrices = [ConfusionMatrix(len(dataset.classes)) for _ in range(distance + 1)]

    @lru_cache(maxsize=distance + 2)  # neighbouring clips share all frames but one
    def read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
        image = read_rgb(path, DatasetError)
        labels = dataset.read_labels(index_of[path]) if path in index_of else None
        if size is not None:
            image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
            if labels is not None:
                labels = cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        return image, labels

    for clip in progress(clips(dataset, distance)):
        stream.reset("new clip")
        scored = dict(clip.scored)
        for k, path in enumerate(clip.images):
            image, labels = read(path)
            result = stream.step(Frame(image, k * FRAME_NS, name=path.stem, labels=labels))
            if k in scored:
                matrices[k].update(result.labels, labels)
    return matrices


def accumulated(matrices: list[ConfusionMatrix]) -> ConfusionMatrix:
    """All distances in one matrix: its mean IoU is the protocol's avg mIoU."""
    total = ConfusionMatrix(matrices[0].num_classes)
    for matrix in matrices:
        total.merge(matrix)
    return total


def check_same_classes(classes: ClassTable, dataset: LabelledSet) -> None:
    """Raises DatasetError unless a network with `classes` can be scored on `dataset`."""
    if classes.names != dataset.classes.names:
        raise DatasetError(
            f"{dataset.name}: expected the network's classes ({', '.join(classes.names)}), "
            f"the data set has {', '.join(dataset.classes.names)}"
        )
