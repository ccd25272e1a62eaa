"""Training of a student without labels: by the probabilities that a teacher gives to unlabelled footage.

Cross-entropy against the teacher's probabilities (Hinton, Vinyals, Dean 2015), each pixel weighted by how sure the
teacher is of it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg_core import distributed
from vidseg_core.classes import VOID
from vidseg_core.errors import ConfigError
from vidseg_core.models.files import read_metadata
from vidseg_core.networks.normalisation import normalise
from vidseg_core.training.augment import Augmentation
from vidseg_core.training.loader import ahead_of_use
from vidseg_core.training.losses import labels_at, lovasz_softmax
from vidseg_core.training.mix import Mix, make_mix
from vidseg_core.training.pseudo_labels import TaughtSet
from vidseg_core.training.run import STATE_FILE
from vidseg_core.training.segmenter import SegmenterRun, SegmenterTraining, train_segmenter

CHANNELS = 4  # which OpenCV's warp takes at once
SURE = 0.5  # a class of less probability is no label for the Lovasz-softmax loss


@dataclass(frozen=True)
class SoftLoss:
    """Cross-entropy against probabilities, weighted by the teacher's confidence; plus Lovasz-softmax where it is sure.

    Attributes:
        weights: n, one per class, of the pixels whose likeliest class it is.
        lovasz: factor of the Lovasz-softmax term; 0 leaves it out.
    """

    weights: Tensor
    lovasz: float = 0.0

    def __call__(self, logits: Tensor, soft: Tensor) -> Tensor:
        """Compute the mean loss of a batch.

        Args:
            logits: B x C x h x w, float32.
            soft: B x C x h' x w', the teacher's probabilities on a grid with the same corners; 0 beside the picture.
        """
        confidence, best = soft.max(1)  # B x h' x w'
        found = F.interpolate(logits, size=soft.shape[2:], mode="bilinear", align_corners=True)
        # Weights of pixels, by their likeliest class: weights of the probabilities would move what is learned.
        counting = confidence * self.weights[best]
        loss = -(counting * (soft * found.log_softmax(1)).sum(1)).sum() / counting.sum().clamp(min=1)
        if self.lovasz:
            sure = torch.where(confidence > SURE, best, VOID)
            loss = loss + self.lovasz * lovasz_softmax(logits, labels_at(sure, (logits.shape[2], logits.shape[3])))
        return loss


class TaughtRun(SegmenterRun):
    """A training of SwiftNet by a teacher; see `SegmenterRun`.

    Args:
        teacher: the teacher's record, see `pseudo_labels.Teacher`.

    Raises:
        ConfigError: the configuration asks for hard pixels, which need labels.
    """

    def __init__(
        self, mix: Mix, config: SegmenterTraining, output: Path, device: torch.device, weights: Tensor, compiled: bool,
        *, teacher: dict[str, Any],
    ):  # fmt: skip
        if config.hard_pixels:
            raise ConfigError("hard_pixels: a teacher's labels are soft; leave out --ohem")
        super().__init__(mix, config, output, device, weights, compiled)
        self.soft_loss = SoftLoss(weights.to(self.device), config.lovasz)
        self.kept["teacher"] = teacher

    @property
    def teacher(self) -> dict[str, Any]:
        """Return the teacher's record."""
        return self.kept["teacher"]

    def restore(self) -> None:
        """Go back to the last finished epoch; see `Run.restore`.

        Raises:
            ConfigError: it had another teacher, or none.
        """
        teacher = self.teacher
        before = (
            read_metadata(self.output / STATE_FILE).get("teacher") if (self.output / STATE_FILE).exists() else teacher
        )
        if before != teacher:
            raise ConfigError(
                f"{self.output}: expected a training by {teacher['file']} ({teacher['sha256'][:8]}), it is one "
                + (f"by {before['file']} ({before['sha256'][:8]})" if before else "without a teacher")
            )
        super().restore()

    def batches(self, draws: list[list[tuple[int, int]]], workers: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Load images, B x 3 x h x w, and the teacher's probabilities, B x C x h' x w', uint8."""
        config = self.config
        where = ((config.seed, self.epoch, number) for number in range(len(draws)))
        arguments = (
            (self.mix, batch, config.augmentation, config.loss_stride, one)
            for batch, one in zip(draws, where, strict=True)
        )
        return ahead_of_use(_load, arguments, workers)

    def loss_of(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Compute the loss of images and probabilities."""
        images, soft = (x.to(self.device, non_blocking=True) for x in batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            seen = self.architecture.input
            logits = self.forward(normalise(images.float(), seen.mean, seen.std))
        return self.soft_loss(logits.float(), soft.float() / 255)

    def evaluate(self, entry: dict, workers: int) -> None:
        """Add the agreement with the teacher on what was held back: of pixels, and `miou` against its labels."""
        super().evaluate(entry, workers)
        if held := entry.get("held_back"):
            parts = [part.held_back for part in self.mix.parts]
            counts = {f"{number}:{part.name}": len(part) for number, part in enumerate(parts)}
            agreeing = sum(counts[name] * one["pixel_accuracy"] for name, one in held.items())
            entry["agreement"] = agreeing / sum(counts[name] for name in held)

    def weights(self, entry: dict) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Make the weights; their record tells the teacher and the agreement with it."""
        tensors, metadata = super().weights(entry)
        agreement = {"agreement": entry.get("agreement"), "agreement_miou": entry.get("miou")}
        metadata["training"]["teacher"] = self.teacher | agreement
        return tensors, metadata

    def line(self, entry: dict) -> str:
        said = super().line(entry)
        if "agreement" not in entry:
            return said
        return f"{said}  agreement with the teacher: {100 * entry['agreement']:.2f} % of pixels"


def train_student(
    teacher: dict[str, Any], sets: Sequence[TaughtSet], config: SegmenterTraining, output: Path, **options: Any
) -> Path:
    """Train SwiftNet in a teacher's classes, by its labels.

    Args:
        teacher: its record, see `pseudo_labels.Teacher`.
        sets: what it has labelled, see `pseudo_labels.label_footage`.
        config: of the training; a share of each set is held back to measure the agreement with the teacher on.
        output, options: see `train_segmenter`.

    Returns:
        Path of the weights, whose metadata has `training.teacher`: the record, `agreement` (share of the held-back
        pixels with the teacher's label) and `agreement_miou` (against its labels).

    Raises:
        VidsegError: see `train_segmenter`; or a resumed training had another teacher.
    """
    mix = make_mix(sets, [len(one) for one in sets], config.hold_back)
    return train_segmenter(mix, config, output, make=partial(TaughtRun, teacher=teacher), **options)


def _load(mix: Mix, batch: list[tuple[int, int]], augmentation: Augmentation, stride: int, where: tuple[int, int, int]):
    images, probabilities = [], []
    for position in range(distributed.rank(), len(batch), distributed.world_size()):
        number, index = batch[position]
        dataset = mix.parts[number].train
        assert isinstance(dataset, TaughtSet)  # `train_student` makes such mixes only
        rng = np.random.default_rng([*where, position])
        image, soft = dataset.read_image(index), dataset.read_soft(index)
        view = augmentation.view(dataset.read_labels(index), rng)
        images.append(augmentation.change_look(augmentation.cut_image(image, view), rng))
        probabilities.append(cut_soft(soft, view, image.shape[:2], augmentation.crop, stride))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.from_numpy(np.stack(probabilities))


def cut_soft(
    soft: np.ndarray, view: np.ndarray, picture: tuple[int, int], crop: tuple[int, int], stride: int
) -> np.ndarray:
    """Cut a view out of a teacher's probabilities.

    Args:
        soft: C x h x w, uint8, on a grid whose outermost pixels lie on the picture's.
        view: 2 x 3, from pixels of the view to pixels of the picture.
        picture: its (H, W).
        crop: (H, W) of the view.
        stride: pixels of the view per pixel of the result, whose outermost pixels lie on the view's, too.

    Returns:
        C x ceil(H / stride) x ceil(W / stride), uint8; 0 beside the picture.
    """
    target = tuple(-(-side // stride) for side in crop)
    from_grid = np.diag([*(_spacing(crop[axis], target[axis]) for axis in (1, 0)), 1.0])
    to_grid = np.diag([1 / _spacing(picture[axis], soft.shape[1 + axis]) for axis in (1, 0)])
    matrix = to_grid @ view @ from_grid
    height, width = target
    channels_last = np.ascontiguousarray(soft.transpose(1, 2, 0))
    parts = [
        cv2.warpAffine(
            channels_last[..., start : start + CHANNELS], matrix, (width, height),
            flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0,
        ).reshape(height, width, -1)
        for start in range(0, soft.shape[0], CHANNELS)
    ]  # fmt: skip
    return np.concatenate(parts, -1).transpose(2, 0, 1)


def _spacing(pixels: int, points: int) -> float:
    """Distance of the points of a grid whose outermost lie on the outermost pixels."""
    return (pixels - 1) / max(1, points - 1)
