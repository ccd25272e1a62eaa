"""Any function as a per-frame network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidseg_core.classes import ClassTable
from vidseg_core.engine.network_picture import place
from vidseg_core.engine.segmenter import SCORED, NetworkSegmenter
from vidseg_core.errors import ConfigError
from vidseg_core.models.card import InputCard, OutputCard
from vidseg_core.models.card_file import table_of


class FunctionSegmenter(NetworkSegmenter):
    """A function as the network of key frames, or as the update network; see `network_segmenter`.

    Attributes:
        classes: table of its classes.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Any],
        classes: ClassTable,
        input: InputCard,
        output: OutputCard,
        input_scale: float | None,
        device: torch.device,
    ):
        self.classes = classes
        super().__init__(_Function(function, len(classes), output), input_scale, device, None, input, output)


def network_segmenter(
    network: Callable[[Tensor], Any],
    classes: ClassTable | Sequence[str],
    *,
    input: InputCard,
    output: OutputCard | None = None,
    input_scale: float | None = None,
    device: str = "cpu",
) -> FunctionSegmenter:
    """Make a segmenter of any function, for `build_engine`.

    Args:
        network: tensor, 1 x 3 x h x w, float32, on `device`, to tensor or array as `output` says: 1 x C x any size,
            or 1 x h x w for class ids; for queries a pair of masks and classes. Called by one thread at a time.
        classes: a class table, or names in order.
        input: how the picture is made ready; `mean` and `std` are of values 0..255.
        output: what comes back; None for logits whose pixels cover equal parts of the picture.
        input_scale: size of the input in units of the picture's; None for what `input` prefers.

    Raises:
        ConfigError: the output's kind is none that an engine takes.
        CheckpointError: a value of `input` or `output` makes no sense.
        ClassTableError: no classes, too many, or one twice.
    """
    output = OutputCard(corners="half_pixel") if output is None else output
    if output.kind not in SCORED:
        raise ConfigError(f"output: expected {', '.join(SCORED)}, got {output.kind}")
    table = classes if isinstance(classes, ClassTable) else table_of("given", classes)
    place((64, 64), input, input_scale)  # what it says has to make sense together
    return FunctionSegmenter(network, table, input, output, input_scale, torch.device(device))


class _Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any], num_classes: int, output: OutputCard):
        super().__init__()
        self._function = function
        self._channels = 1 if output.kind == "labels" else num_classes
        self._is_free = output.groups is not None or output.kind == "queries"
        self.num_classes = num_classes

    def forward(self, image: Tensor) -> Any:
        found = self._function(image)
        if self._is_free and isinstance(found, tuple | list):
            return tuple(_tensor(one) for one in found)
        scores = _tensor(found)
        scores = scores[:, None] if scores.ndim == 3 else scores
        binary = self.num_classes == 2 and scores.ndim == 4 and scores.shape[1] == 1
        if scores.ndim != 4 or not (self._is_free or binary or scores.shape[1] == self._channels):
            raise ValueError(
                f"network: expected 1 x {self._channels} x h x w, as there are {self.num_classes} classes, "
                f"got {' x '.join(map(str, scores.shape))}"
            )
        return scores


def _tensor(found: Any) -> Tensor:
    return (torch.from_numpy(found) if isinstance(found, np.ndarray) else found).float()
