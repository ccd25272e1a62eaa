"""Mix data sets by shares, hold images back, and decide the order in which a training sees the others."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vidseg_core.classes import VOID, ClassTable
from vidseg_core.data.labelled import LabelledSet
from vidseg_core.errors import ClassTableError, ConfigError, DatasetError

_SHOWN = 3


@dataclass(frozen=True)
class Part:
    """One data set of a mix.

    Attributes:
        train, held_back: its images, split; no image is in both.
        share: of the images drawn from this set, 0..1.
    """

    train: LabelledSet
    held_back: LabelledSet
    share: float


@dataclass(frozen=True)
class Mix:
    """Data sets with one class table, drawn from in fixed shares."""

    parts: tuple[Part, ...]

    @property
    def classes(self) -> ClassTable:
        return self.parts[0].train.classes

    def picture_size(self) -> tuple[int, int]:
        """Return (H, W) of a picture of the set with the largest share.

        Raises:
            DatasetError: the picture cannot be read.
        """
        height, width = max(self.parts, key=lambda part: part.share).train.read_image(0).shape[:2]
        return height, width

    def epoch_size(self) -> int:
        """Return the number of images in an epoch: as many as it takes to see the first set's training images once."""
        return max(1, round(len(self.parts[0].train) / self.parts[0].share))

    def draws(self, seed: int, epoch: int, batch: int) -> list[list[tuple[int, int]]]:
        """Draw the batches of an epoch, each a list of (number of the part, index in its training images).

        They depend on the arguments only, so that a training resumes with the same data. Every image of a set is
        drawn once before any is drawn again, across epochs.

        Raises:
            ConfigError: an epoch is smaller than a batch.
        """
        size = self.epoch_size()
        if size < batch:
            raise ConfigError(f"batch: expected at most the {size} images of an epoch, got {batch}")
        # Where a share is no whole number of images an epoch, the remainder carries over to the next.
        drawn = []
        for number, part in enumerate(self.parts):
            first, last = (math.floor(size * part.share * k + 0.5) for k in (epoch, epoch + 1))
            drawn += [(number, _shuffled(len(part.train), seed, number, position)) for position in range(first, last)]
        order = np.random.default_rng([seed, epoch]).permutation(len(drawn))
        batches = max(1, len(drawn) // batch)
        return [[drawn[k] for k in order[start * batch : (start + 1) * batch]] for start in range(batches)]

    def check(self, progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> np.ndarray:
        """Read everything once; see `LabelledSet.check`.

        Returns:
            n, float64: share of each class among the labelled pixels of a training image, sets weighted by their share.

        Raises:
            DatasetError: something is missing, broken, or does not fit together; or every pixel of a set's training
                images, or of its held-back images, is void.
        """
        frequency = np.zeros(len(self.classes))
        for part in self.parts:
            part.held_back.check(progress)
            part.train.check(progress)
            counts = class_counts(part.train)
            if not counts.any():
                raise DatasetError(
                    f"{part.train.name}: expected labels, every pixel of the training images is void: "
                    f"{_some(part.train)}"
                )
            if len(part.held_back) and not class_counts(part.held_back).any():
                raise DatasetError(
                    f"{part.held_back.name}: expected labels to choose the best epoch by, every pixel of the held-back "
                    f"images is void: {_some(part.held_back)}; hold back another share of the images, or none"
                )
            frequency += part.share * counts / counts.sum()
        return frequency

    def absent_classes(self, frequency: np.ndarray) -> str | None:
        """Say which classes have no share in `frequency` (see `check`); None if every class occurs."""
        absent = [name for name, share in zip(self.classes.names, frequency, strict=True) if not share]
        if not absent:
            return None
        return (
            f"not one training image has a labelled pixel of {len(absent)} of {len(self.classes)} classes, which "
            f"cannot be learned: {', '.join(absent)} (ids {list(self.classes.void_ids)} of label files are void)"
        )


def make_mix(sets: Sequence[LabelledSet], shares: Sequence[float], hold_back: float) -> Mix:
    """Split each set by `hold_back` and mix them.

    Args:
        shares: one positive number per set; only their ratios count.
        hold_back: share of each set that is kept from training, 0..0.5.

    Raises:
        ClassTableError: the sets' class tables differ.
        ConfigError: a number is out of range.
    """
    if not all(math.isfinite(share) and share > 0 for share in shares):
        raise ConfigError(f"data: expected shares greater than 0, got {list(shares)}")
    for other in sets[1:]:
        if other.classes.names != sets[0].classes.names:
            raise ClassTableError(
                f"data sets {sets[0].name!r} and {other.name!r} must share one class table, got "
                f"{list(sets[0].classes.names)} and {list(other.classes.names)}"
            )
    total = sum(shares)
    return Mix(
        tuple(Part(*split_blocks(one, hold_back), share / total) for one, share in zip(sets, shares, strict=True))
    )


def split_blocks(dataset: LabelledSet, fraction: float) -> tuple[LabelledSet, LabelledSet]:
    """Split into (train, held back): from the middle of every sequence a contiguous block of `fraction` of its images.

    Neighbours in a video look alike, so images drawn singly would tell nothing about unseen places. A sequence is
    what names have before the first underscore, or before their last number.

    Raises:
        ConfigError: `fraction` is not in 0..0.5.
    """
    if not 0 <= fraction <= 0.5:
        raise ConfigError(f"hold_back: expected a share of 0..0.5, got {fraction}")
    sequences: dict[str, list[int]] = {}
    for index, sample in enumerate(dataset.samples):
        sequences.setdefault(sequence_of(sample.name), []).append(index)
    held = {index for members in sequences.values() for index in _middle(members, round(fraction * len(members)))}
    if not held and fraction > 0 and len(dataset) > 1:
        held = set(_middle(range(len(dataset)), max(1, round(fraction * len(dataset)))))
    kept = [sample for index, sample in enumerate(dataset.samples) if index not in held]
    return (
        replace(dataset, samples=tuple(kept)),
        replace(dataset, samples=tuple(dataset.samples[index] for index in sorted(held))),
    )


def sequence_of(name: str) -> str:
    """Find what the names of a sequence's frames have in common."""
    return name.split("_")[0] if "_" in name else re.sub(r"\d+\D*$", "", name)


def class_counts(dataset: LabelledSet) -> np.ndarray:
    """Count the labelled pixels of each class, n, int64."""
    counts = np.zeros(256, dtype=np.int64)
    for index in range(len(dataset)):
        counts += np.bincount(dataset.read_labels(index).ravel(), minlength=256)
    return counts[:VOID][: len(dataset.classes)]


def _some(dataset: LabelledSet) -> str:
    names = [str(sample.labels) for sample in dataset.samples[:_SHOWN]]
    return ", ".join(names) + (", ..." if len(dataset) > _SHOWN else "")


def _middle(members: Sequence[int], count: int) -> Sequence[int]:
    start = (len(members) - count) // 2
    return members[start : start + count]


def _shuffled(size: int, seed: int, number: int, position: int) -> int:
    """Return the image at `position` of an endless series that shuffles all `size` images anew each time round."""
    round_number, offset = divmod(position, size)
    return int(np.random.default_rng([seed, number, round_number]).permutation(size)[offset])
