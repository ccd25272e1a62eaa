"""Batches of clips prepared in the background, in a fixed order."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidseg_core.arrays import as_tensor
from vidseg_core.data.labelled import LabelledSet
from vidseg_core.engine.flow import FlowEstimator
from vidseg_core.engine.geometry import View, grid_size, network_size
from vidseg_core.kernels.resample import network_input
from vidseg_core.models.card import SWIFTNET_INPUT, InputCard
from vidseg_core.training.clips import ClipMaker
from vidseg_core.training.loader import ahead_of_use

CPU = torch.device("cpu")


@dataclass(frozen=True)
class ClipBatch:
    """Clips of K + 1 frames, as the networks want them.

    Attributes:
        key: B x 3 x h x w, float32: what the segmenter sees of the first frame.
        last: the same of the last frame.
        images: K + 1 times B x 3 x h x w, float32, normalised BGR on the grid.
        flows: K times B x 2 x h x w, from frame k + 1 to frame k; None where a network finds them.
        labels: B x H x W, int64, of the last frame.
    """

    key: Tensor
    last: Tensor
    images: tuple[Tensor, ...]
    flows: tuple[Tensor, ...] | None
    labels: Tensor

    def to(self, device: torch.device) -> ClipBatch:
        """Return the same batch on `device`."""
        flows = None if self.flows is None else tuple(flow.to(device) for flow in self.flows)
        images = tuple(image.to(device) for image in self.images)
        return ClipBatch(self.key.to(device), self.last.to(device), images, flows, self.labels.to(device))


@dataclass(frozen=True)
class ClipSource:
    """Settings that every batch is made with.

    Attributes:
        maker: cuts or makes the clips.
        flow: finds motion outside of networks, None where a network does.
        input_scale: of the segmenter.
        grid_stride: of the carried logits.
        input: how the segmenter's input is made of a picture.
    """

    maker: ClipMaker
    flow: FlowEstimator | None
    input_scale: float
    grid_stride: int
    input: InputCard = SWIFTNET_INPUT

    def batch(self, samples: list[tuple[LabelledSet, int]], steps: int, seed: tuple[int, ...]) -> ClipBatch:
        """Make clips of `steps` + 1 frames that end at `samples`; they depend on the arguments only."""
        clips = [
            self.maker(dataset, index, steps, np.random.default_rng([*seed, position]))
            for position, (dataset, index) in enumerate(samples)
        ]
        size = clips[0].labels.shape
        wanted = network_size(size, self.input_scale, self.input.multiple)
        views = [[View(image, grid_size(size, self.grid_stride), CPU) for image in clip.images] for clip in clips]
        return ClipBatch(
            torch.cat([self._segmenter_input(clip.images[0], wanted) for clip in clips]),
            torch.cat([self._segmenter_input(clip.images[-1], wanted) for clip in clips]),
            tuple(torch.cat([as_tensor(clip[k].grid_bgr) for clip in views]) for k in range(steps + 1)),
            None if self.flow is None else self._flows(views, steps),
            torch.from_numpy(np.stack([clip.labels for clip in clips])).long(),
        )

    def _segmenter_input(self, image: np.ndarray, size: tuple[int, int]) -> Tensor:
        given = self.input
        return as_tensor(network_input(image, size, bgr=given.colours == "bgr", mean=given.mean, std=given.std))

    def _flows(self, views: list[list[View]], steps: int) -> tuple[Tensor, ...]:
        prepared = [[self.flow.prepare(view) for view in clip] for clip in views]
        return tuple(
            torch.cat([as_tensor(self.flow.flow(clip[k + 1], clip[k])) for clip in prepared]) for k in range(steps)
        )


def load_clips(
    source: ClipSource, batches: list[tuple[list[tuple[LabelledSet, int]], int, tuple[int, ...]]], workers: int
) -> Generator[ClipBatch, None, None]:
    """Yield the batches in order, each given by samples, steps and seed; `workers` threads stay a little ahead."""
    return ahead_of_use(source.batch, batches, workers)
