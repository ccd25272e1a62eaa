"""Segmenters, frame to class scores: a segmentation network, or the ground truth in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from vidseg_core.backends.choose import Runtime
from vidseg_core.engine.geometry import network_size
from vidseg_core.errors import CheckpointError, ConfigError
from vidseg_core.frame import Frame
from vidseg_core.kernels.resample import network_input
from vidseg_core.models.architectures import SEGMENTER
from vidseg_core.models.card import SWIFTNET_INPUT, InputCard
from vidseg_core.models.open import Model

TRUTH_LOGIT = 10.0


class Segmenter(Protocol):
    """Frame to class scores, 1 x C x any size; the stream takes them to its device if they are elsewhere."""

    num_classes: int

    def __call__(self, frame: Frame) -> Tensor: ...


def load_segmenter(
    model: Model, input_scale: float, device: torch.device, runtime: Runtime, name: str = "segmenter"
) -> NetworkSegmenter:
    """Have a model's per-frame network executed by `runtime`.

    Args:
        model: brings a segmenter; its network is moved to `device`.
        input_scale: see `NetworkSegmenter`.
        name: what to call it in messages.

    Raises:
        CheckpointError: its input or output is of a kind that the engine does not take.
        ConfigError: the runtime needs activation ranges, and the card has none.
    """
    card = model.card
    for what, found, expected in (
        ("input layout", card.input.layout, "nchw"),
        ("input size rule", card.input.size_rule, "multiple"),
        ("output", card.output.kind, "logits"),
    ):
        if found != expected:
            raise CheckpointError(f"{model.path}: {what}: expected {expected}, found {found}")
    if card.activation_ranges is None and runtime.needs_ranges:
        raise ConfigError(
            f"runtime: openvino_int8 needs weights that tell their activation ranges, {model.path} does not: "
            "`vidseg weights calibrate` adds them"
        )
    network = ready(model.networks[SEGMENTER], device)
    ranges = None if card.activation_ranges is None else dict(card.activation_ranges)
    execute = runtime.executor(network, name, ranges)
    return NetworkSegmenter(network, input_scale, device, execute, card.input)


def ready(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to the device, in evaluation mode, without gradients, channels last; it is changed in place."""
    # PyTorch's stubs do not know `memory_format` of modules.
    return network.eval().requires_grad_(False).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


class NetworkSegmenter:
    """A per-frame network.

    Args:
        network: B x 3 x h x w, as `input` says, to logits B x C x any smaller size; has `num_classes`.
        input_scale: size of its input in units of the image's.
        device: where it is.
        execute: what calls it, see `backends.choose`; None for the network itself.
        input: how its input is made of a picture.
    """

    def __init__(
        self,
        network: nn.Module,
        input_scale: float,
        device: torch.device,
        execute: Callable[..., Any] | None = None,
        input: InputCard = SWIFTNET_INPUT,
    ):
        self.network = network
        self.execute = execute or network
        self.num_classes = cast(int, network.num_classes)
        self.input_scale = input_scale
        self.input = input
        self._device = device

    def __call__(self, frame: Frame) -> Tensor:
        size = network_size(frame.size, self.input_scale, self.input.multiple)
        bgr = self.input.colours == "bgr"
        image = network_input(frame.image, size, bgr=bgr, mean=self.input.mean, std=self.input.std)
        return self.execute(image.to(self._device))


class TruthSegmenter:
    """Give the frame's own labels as if a network had been sure of them: all later losses are those of propagation.

    Args:
        num_classes: of the class table.
    """

    is_truth = True

    def __init__(self, num_classes: int):
        self.num_classes = num_classes

    def __call__(self, frame: Frame) -> Tensor:
        """Turn the frame's labels into scores; raises ValueError for a frame without labels."""
        if frame.labels is None:
            raise ValueError(f"frame {frame.name!r}: expected ground truth labels, it has none")
        ids = np.arange(self.num_classes, dtype=np.uint8)[:, None, None]
        one_hot = (frame.labels[None] == ids).astype(np.float32)
        return torch.from_numpy(one_hot * TRUTH_LOGIT)[None]
