"""Batches prepared in the background, in a fixed order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from vidseg_core import distributed
from vidseg_core.training.augment import Augmentation
from vidseg_core.training.mix import Mix

T = TypeVar("T")


def load_batches(
    mix: Mix, batches: list[list[tuple[int, int]]], augmentation: Augmentation, seed: int, epoch: int, workers: int
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Yield the augmented views of `batches` in order; `workers` threads stay a little ahead.

    What a view looks like depends on (seed, epoch, its position in the epoch) only. Of several processes, each gets its
    own part of every batch.

    Returns:
        An iterator over images B x 3 x h x w, uint8, channels last in memory; labels B x h x w, int64, 255 = void.
    """
    arguments = ((mix, batch, augmentation, (seed, epoch, number)) for number, batch in enumerate(batches))
    return ahead_of_use(_load, arguments, workers)


def ahead_of_use(make: Callable[..., T], arguments: Iterable[tuple], workers: int) -> Generator[T, None, None]:
    """Yield `make(*one)` for each of `arguments`, in order; `workers` threads stay a little ahead of who takes them."""
    pending: deque[Future[T]] = deque()
    waiting = iter(arguments)
    with ThreadPoolExecutor(workers, "loader") as pool:
        try:
            while True:
                while len(pending) <= workers and (one := next(waiting, None)) is not None:
                    pending.append(pool.submit(make, *one))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _load(mix: Mix, batch: list[tuple[int, int]], augmentation: Augmentation, where: tuple[int, int, int]):
    views = []
    for position in range(distributed.rank(), len(batch), distributed.world_size()):
        number, index = batch[position]
        dataset = mix.parts[number].train
        rng = np.random.default_rng([*where, position])
        views.append(augmentation(dataset.read_image(index), dataset.read_labels(index), rng))
    images = torch.from_numpy(np.stack([image for image, _ in views])).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.stack([labels for _, labels in views])).long()
    return images, labels
