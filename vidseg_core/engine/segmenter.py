"""What looks at a key frame: a segmentation network, or the ground truth in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vidseg_core.backends.backend import Ranges
from vidseg_core.backends.choose import Runtime
from vidseg_core.engine.geometry import network_size
from vidseg_core.errors import CheckpointError, ConfigError
from vidseg_core.frame import Frame
from vidseg_core.kernels.resample import network_input
from vidseg_core.models.checkpoint import load_swiftnet
from vidseg_core.models.files import read_metadata
from vidseg_core.models.registry import is_ranges, record_of
from vidseg_core.networks.swiftnet import SwiftNet

TRUTH_LOGIT = 10.0


class Segmenter(Protocol):
    """Frame to class scores, 1 x C x any size; the stream takes them to its device if they are elsewhere."""

    num_classes: int

    def __call__(self, frame: Frame) -> Tensor: ...


def load_network(path: Path, device: torch.device) -> SwiftNet:
    """The per-frame network in a file, ready to be called. Raises CheckpointError: it has none."""
    return ready(load_swiftnet(path), device)


def load_segmenter(
    path: Path, input_scale: float, device: torch.device, runtime: Runtime, name: str = "segmenter"
) -> NetworkSegmenter:
    """The per-frame network in a file, executed by `runtime`.

    Args:
        input_scale: see `NetworkSegmenter`.
        name: what to call it in messages.

    Raises:
        CheckpointError: there is none in the file, or its activation ranges are no such thing.
        ConfigError: the runtime needs those, and there are none.
    """
    network = load_network(path, device)
    ranges = ranges_of(path, network)
    if ranges is None and runtime.needs_ranges:
        raise ConfigError(
            f"runtime: openvino_int8 needs weights that tell their activation ranges, {path} does not: "
            "`vidseg weights calibrate` adds them"
        )
    return NetworkSegmenter(network, input_scale, device, runtime.executor(network, name, ranges))


def ranges_of(path: Path, network: nn.Module) -> Ranges | None:
    """What values the network's convolutions meet: as its file tells, or else its record; None where neither does.

    Raises:
        CheckpointError: what the file tells is something else.
    """
    stored = read_metadata(path).get("activation_ranges")
    if stored is None and (record := record_of(path)) is not None:
        stored = record.activation_ranges
    if stored is None:
        return None
    names = {name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    if not is_ranges(stored) or not set(stored) <= names:
        raise CheckpointError(f"{path}: activation_ranges: expected two numbers for names of its convolutions")
    return {name: (low, high) for name, (low, high) in stored.items()}


def ready(network: nn.Module, device: torch.device) -> nn.Module:
    """The network itself: on the device, in evaluation mode, without gradients, channels last."""
    return network.eval().requires_grad_(False).to(device=device, memory_format=torch.channels_last)


class NetworkSegmenter:
    """A per-frame network.

    Args:
        network: B x 3 x h x w, normalised RGB, to logits B x C x any smaller size; has `num_classes`.
        input_scale: size of its input in units of the image's.
        device: where it is.
        execute: what calls it, see `backends.choose`; None for the network itself.
    """

    def __init__(
        self,
        network: nn.Module,
        input_scale: float,
        device: torch.device,
        execute: Callable[[Tensor], Tensor] | None = None,
    ):
        self.network = network
        self.execute = execute or network
        self.num_classes: int = network.num_classes
        self.input_scale = input_scale
        self._device = device

    def __call__(self, frame: Frame) -> Tensor:
        image = network_input(frame.image, network_size(frame.size, self.input_scale))
        return self.execute(image.to(self._device))


class TruthSegmenter:
    """The frame's own labels as if a network had been sure of them: what is lost afterwards, propagation has lost.

    Args:
        num_classes: of the class table.
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes

    def __call__(self, frame: Frame) -> Tensor:
        """Raises ValueError for a frame without labels."""
        if frame.labels is None:
            raise ValueError(f"frame {frame.name!r}: expected ground truth labels, it has none")
        ids = np.arange(self.num_classes, dtype=np.uint8)[:, None, None]
        one_hot = (frame.labels[None] == ids).astype(np.float32)
        return torch.from_numpy(one_hot * TRUTH_LOGIT)[None]
