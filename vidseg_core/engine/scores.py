"""Logits out of what networks give, by the kinds of output that there are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from vidseg_core.arrays import as_tensor
from vidseg_core.classes import TRUTH_LOGIT, VOID
from vidseg_core.kernels.fuse import LEAST_PROBABILITY
from vidseg_core.kernels.queries import scores_of_queries
from vidseg_core.models.card import OutputCard

VOTING = 2


def _logits(output: Tensor, card: OutputCard, num_classes: int) -> Tensor:
    """Return logits as they are; of one channel, the second of two classes against the first."""
    if output.shape[1] != 1 or num_classes == 1:
        return _grouped(output, card)
    above = output - math.log(card.threshold / (1 - card.threshold))
    return torch.cat((torch.zeros_like(above), above), 1)


def _grouped(scores: Tensor, card: OutputCard) -> Tensor:
    """Take the best channel of each group: the classes then are those that the best channels of all belong to."""
    if card.groups is None:
        return scores
    return torch.stack([scores[:, list(group)].amax(1) for group in card.groups], 1)


def _of_probabilities(output: Tensor, card: OutputCard, num_classes: int) -> Tensor:
    if output.shape[1] == 1:
        return _logits(output.logit(LEAST_PROBABILITY), card, num_classes)
    return _grouped(output, card).clamp_min(LEAST_PROBABILITY).log()


def _of_labels(output: Tensor, card: OutputCard, num_classes: int) -> Tensor:
    """Turn class ids, B x 1 x H x W, into votes of squares of `VOTING` pixels; void ids vote for nothing."""
    ids = output[0, 0].numpy()
    groups = card.groups or tuple((i,) for i in range(num_classes))
    table = np.full(max(int(ids.max()), *map(max, groups)) + 1, VOID, dtype=np.uint8)
    for number, group in enumerate(groups):
        table[list(group)] = number
    ids = table[ids.astype(np.int64)]
    size = max(1, ids.shape[1] // VOTING), max(1, ids.shape[0] // VOTING)
    votes = np.empty((size[1], size[0], num_classes), dtype=np.float32)
    for i in range(num_classes):
        share = cv2.resize((ids == i).view(np.uint8) * 255, size, interpolation=cv2.INTER_AREA)
        np.multiply(share, TRUTH_LOGIT / 255, out=votes[..., i])
    return torch.from_numpy(votes)[None].permute(0, 3, 1, 2)


def _of_queries(output: tuple[Tensor, Tensor], card: OutputCard, num_classes: int) -> Tensor:
    masks, classes = output
    return _grouped(as_tensor(scores_of_queries(masks, classes.flatten(2), card.mask_size)), card)


SCORES_OF: dict[str, Callable[[Any, OutputCard, int], Tensor]] = {
    "logits": _logits,
    "probabilities": _of_probabilities,
    "labels": _of_labels,
    "queries": _of_queries,
}
"""By the kind of a network's output: (output, card, number of classes) -> logits, B x C x h x w."""
