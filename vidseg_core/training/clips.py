"""Clips to train propagation on: a key frame, the frames after it, and the labels of the last.

Where a data set is video, a clip is cut from it. From a still it is made: the still is the last frame, and what came
before is the same picture seen by a camera that moved, with things cut out of another still moving in front of it, so
that the last frame uncovers what no earlier one shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vidseg_core.classes import VOID
from vidseg_core.data.labelled import LabelledSet
from vidseg_core.errors import ConfigError
from vidseg_core.training.augment import Augmentation

# Things that are cut out cover so much of a picture.
THING_AREA = (0.002, 0.06)
MOST_THINGS = 3


@dataclass(frozen=True)
class Clip:
    """Consecutive frames, and the labels of the last one.

    Attributes:
        images: the key frame first, each H x W x 3, uint8, RGB.
        labels: H x W, uint8, of the last frame; 255 = void.
    """

    images: tuple[np.ndarray, ...]
    labels: np.ndarray


@dataclass(frozen=True)
class ClipMaker:
    """Random clips from labelled images.

    Attributes:
        view: crop, scale, flip and colours, the same for all frames of a clip.
        motion: strength of the camera's motion in clips from stills: 1 is up to 3 % of forward motion, and about 2
            pixels sideways, from frame to frame.
    """

    view: Augmentation
    motion: float = 1.0

    def __post_init__(self):
        if not 0 <= self.motion <= 4:
            raise ConfigError(f"motion: expected 0..4, got {self.motion}")

    def __call__(self, dataset: LabelledSet, index: int, steps: int, rng: np.random.Generator) -> Clip:
        """Make a clip of `steps` + 1 frames that ends at sample `index`."""
        image, labels = dataset.read_image(index), dataset.read_labels(index)
        if len(dataset.samples[index].predecessors) >= steps:
            matrix = self.view.view(labels, rng)
            frames = [*dataset.read_predecessors(index, steps), image]
            images = [self.view.cut_image(frame, matrix) for frame in frames]
            labels = self.view.cut_labels(labels, matrix)
        else:
            images, labels = self._from_still(dataset, image, labels, steps, rng)
        look = rng.integers(2**32)
        return Clip(tuple(self.view.change_look(one, np.random.default_rng(look)) for one in images), labels)

    def _from_still(self, dataset, image, labels, steps, rng):
        matrix = self.view.view(labels, rng)
        camera = self._camera(rng)
        images = [self.view.cut_image(image, _then(matrix, camera, steps - k)) for k in range(steps + 1)]
        labels = self.view.cut_labels(labels, matrix)
        donor = int(rng.integers(len(dataset)))
        things = cut_things(
            dataset.read_image(donor), dataset.read_labels(donor), int(rng.integers(MOST_THINGS + 1)), rng
        )
        for patch, mask, label in things:
            place, velocity = self._course(patch, rng)
            for k, frame in enumerate(images):
                _paste(frame, patch, mask, place - velocity * (steps - k))
            covered = np.zeros(labels.shape, np.uint8)
            _paste(covered, np.ones_like(mask), mask, place)
            labels[covered != 0] = label
        return images, labels

    def _camera(self, rng) -> np.ndarray:
        """Choose the camera's motion, 2 x 3: from pixels of the view one frame ago to those that show the same now."""
        height, width = self.view.crop
        focus = np.array([width, height]) * rng.uniform(0.3, 0.7, 2)
        scale = 1 + self.motion * rng.uniform(-0.005, 0.03)
        angle = self.motion * rng.normal(0, 0.003)
        shift = self.motion * rng.normal(0, (2.0, 0.7))
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return np.column_stack((turn, focus - turn @ focus + shift))

    def _course(self, patch, rng) -> tuple[np.ndarray, np.ndarray]:
        """Choose a thing's top left corner in the last frame, and its motion from frame to frame: (x, y) each."""
        height, width = self.view.crop
        place = (
            np.array([rng.uniform(0, width), rng.uniform(0.2 * height, 0.9 * height)])
            - np.array(patch.shape[1::-1]) / 2
        )
        return place, rng.normal(0, (5.0, 1.0))


def cut_things(
    image: np.ndarray, labels: np.ndarray, count: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Cut out up to `count` connected regions of one class, neither specks nor backgrounds: (picture, mask, class id).

    Args:
        image: H x W x 3, uint8.
        labels: H x W, uint8.
    """
    things = []
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)[:VOID])
    for label in rng.permutation(present):
        if len(things) == count:
            break
        number, regions, boxes, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8))
        areas = boxes[:, cv2.CC_STAT_AREA] / labels.size
        fitting = [k for k in range(1, number) if THING_AREA[0] <= areas[k] <= THING_AREA[1]]
        if fitting:
            k = int(rng.choice(fitting))
            x, y, w, h = boxes[k][:4]
            window = np.s_[y : y + h, x : x + w]
            things.append((image[window], (regions[window] == k).astype(np.uint8), int(label)))
    return things


def _then(first: np.ndarray, second: np.ndarray, times: int) -> np.ndarray:
    """Chain affine maps, 2 x 3: `second` applied `times`, then `first`."""
    square = np.vstack((second, (0, 0, 1)))
    return first @ np.linalg.matrix_power(square, times)


def _paste(target: np.ndarray, patch: np.ndarray, mask: np.ndarray, place: np.ndarray) -> None:
    """Put `patch` over `target` where `mask` is 1, its top left corner at `place` (x, y), to fractions of a pixel."""
    size = target.shape[1::-1]
    matrix = np.array([[1, 0, place[0]], [0, 1, place[1]]], dtype=float)
    moved = cv2.warpAffine(patch, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    where = cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_NEAREST) != 0
    target[where] = moved[where]
