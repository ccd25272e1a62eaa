"""Score a segmentation network on the labelled images of a data set, each by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import torch
from torch import nn

from vidseg_core import distributed
from vidseg_core.data.labelled import LabelledSet
from vidseg_core.engine.segmenter import NetworkSegmenter
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix
from vidseg_core.frame import Frame
from vidseg_core.kernels.decode import decode
from vidseg_core.models.card import SWIFTNET_INPUT, InputCard


def evaluate_images(
    net: nn.Module,
    dataset: LabelledSet,
    input_scale: float = 1.0,
    device: torch.device | str = "cpu",
    autocast: bool = False,
    input: InputCard = SWIFTNET_INPUT,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> ConfusionMatrix:
    """Segment every image of `dataset` as the engine segments a key frame, and count against its labels.

    Several processes share the images, and each gets the counts of all.

    Args:
        net: has `num_classes`; B x 3 x H x W normalised RGB -> B x C x h x w logits; its training mode is put back.
        input_scale: the network sees the image resized by this factor.
        autocast: compute in bfloat16 where that is safe.
        input: how the network's input is made of a picture.
        progress: wraps the iteration over the samples' indices, for instance `tqdm`.
    """
    device = torch.device(device)
    segmenter = NetworkSegmenter(net, input_scale, device, input=input)
    matrix = ConfusionMatrix(len(dataset.classes))
    precision = torch.autocast(device.type, torch.bfloat16) if autocast else contextlib.nullcontext()
    mode = net.training
    net.eval()
    try:
        with torch.inference_mode(), precision:
            for index in progress(range(distributed.rank(), len(dataset), distributed.world_size())):
                frame = Frame(dataset.read_image(index), stamp_ns=0, name=dataset.samples[index].name)
                matrix.update(decode(segmenter(frame), frame.size), dataset.read_labels(index))
    finally:
        net.train(mode)
    matrix.sum_over_processes()
    return matrix
