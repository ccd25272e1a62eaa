"""A segmentation network on the labelled images of a data set, each by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg_core.data.labelled import LabelledSet
from vidseg_core.evaluation.metrics import ConfusionMatrix
from vidseg_core.networks.normalisation import normalise


def evaluate_images(
    net: nn.Module,
    dataset: LabelledSet,
    input_scale: float = 1.0,
    device: torch.device | str = "cpu",
    autocast: bool = False,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> ConfusionMatrix:
    """Segment every image of `dataset` and count against its labels, both at the size of the image.

    Args:
        net: B x 3 x H x W normalised RGB -> B x C x h x w logits; its training mode is put back afterwards.
        input_scale: the network sees the image resized by this factor.
        autocast: compute in bfloat16 where that is safe.
        progress: wraps the iteration over the samples' indices, for instance `tqdm`.
    """
    matrix = ConfusionMatrix(len(dataset.classes))
    mode = net.training
    net.eval()
    try:
        for index in progress(range(len(dataset))):
            labels = segment_image(net, dataset.read_image(index), input_scale, device, autocast)
            matrix.update(labels, dataset.read_labels(index))
    finally:
        net.train(mode)
    return matrix


@torch.inference_mode()
def segment_image(
    net: nn.Module, image: np.ndarray, input_scale: float, device: torch.device | str, autocast: bool = False
) -> np.ndarray:
    """H x W uint8 class ids for an H x W x 3 uint8 RGB image."""
    device = torch.device(device)
    size = image.shape[:2]
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device)[None].permute(0, 3, 1, 2)  # 1 x 3 x H x W
    x = resize(normalise(pixels.float()), tuple(max(1, round(side * input_scale)) for side in size))
    precision = torch.autocast(device.type, torch.bfloat16) if autocast else contextlib.nullcontext()
    with precision:
        logits = net(x)
    return resize(logits.float(), size).argmax(1)[0].to(torch.uint8).cpu().numpy()


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear to `size`, corners on corners, as everywhere outside SwiftNet."""
    return x if tuple(x.shape[2:]) == size else F.interpolate(x, size=size, mode="bilinear", align_corners=True)
