"""Segmenters, frame to class scores: a segmentation network, or the ground truth in its place."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from vidseg_core.arrays import Array, as_tensor, takes_tensors, without_gradients
from vidseg_core.backends.backend import Ranges
from vidseg_core.backends.choose import Executor, Runtime
from vidseg_core.classes import TRUTH_LOGIT
from vidseg_core.devices import Device
from vidseg_core.engine.network_picture import picture_for, place, without_border
from vidseg_core.errors import CheckpointError, ConfigError
from vidseg_core.frame import Frame
from vidseg_core.kernels.transfer import lies_on, upload
from vidseg_core.models.architectures import SEGMENTER
from vidseg_core.models.card import SWIFTNET_INPUT, InputCard, ModelCard, OutputCard
from vidseg_core.models.open import Model, open_model

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

log = logging.getLogger(__name__)
SCORED = ("logits", "probabilities", "labels", "queries")
"""Kinds of output that a segmenter can have, see `models.card.OutputCard`."""
MOST_COSTS = 64
# Of what is compiled while frames are labelled.
NICENESS = 5
SWIFTNET_OUTPUT = OutputCard(stride=4)


class Segmenter(Protocol):
    """Frame to class scores, 1 x C x any size; the stream takes them to its device if they are elsewhere."""

    num_classes: int

    def __call__(self, frame: Frame) -> Array: ...


def pixels_on(frame: Frame, device: Device | torch.device) -> Array:
    """Return the frame's image where the device's kernels read it."""
    return frame.pixels if lies_on(frame.pixels, device) else upload(frame.image, device)


def load_segmenter(
    model: Model,
    input_scale: float | None,
    device: Device | torch.device,
    runtime: Runtime,
    name: str = "segmenter",
    *,
    lean: bool = False,
) -> NetworkSegmenter:
    """Have a model's per-frame network executed by `runtime`.

    Args:
        model: brings a segmenter; its network is moved to `device`.
        input_scale: see `NetworkSegmenter`.
        name: what to call it in messages.
        lean: keep the network's compiled form alone; to compile another one its file is read again.

    Raises:
        CheckpointError: its input or output is of a kind that the engine does not take.
        ConfigError: the runtime needs activation ranges, and the card has none.
    """
    check_segmenter(model, runtime)
    from vidseg_core.networks.graph import Foreign, Graph

    card, network = model.card, ready(model.networks[SEGMENTER], device)
    ranges = ranges_of(card)
    again: Callable[[], nn.Module] | None = None
    if lean and not isinstance(network, Graph):  # a graph's weights are in its file
        path = model.path  # the function must not keep the model

        def again() -> nn.Module:
            return ready(open_model(path, SEGMENTER).networks[SEGMENTER], device)

    execute = runtime.executor(network, name, ranges, again)
    takes_batches = card.output.kind in ("logits", "probabilities") and not isinstance(network, Foreign)
    return NetworkSegmenter(network, input_scale, device, execute, card.input, card.output, takes_batches)


def check_segmenter(model: Model, runtime: Runtime) -> None:
    """Check that the engine can use a model's segmenter; raises as `load_segmenter` does."""
    card = model.card
    if card.output.kind not in SCORED:
        raise CheckpointError(f"{model.path}: output: expected {', '.join(SCORED)}, found {card.output.kind}")
    if card.activation_ranges is None and runtime.needs_ranges:
        raise ConfigError(
            f"runtime: openvino_int8 needs weights that tell their activation ranges, {model.path} does not: "
            "`vidseg weights calibrate` adds them"
        )


def ranges_of(card: ModelCard) -> Ranges | None:
    """Return a card's activation ranges as runtimes take them."""
    return None if card.activation_ranges is None else dict(card.activation_ranges)


def input_scale(card: InputCard, chosen: float | None, default: float = 1.0) -> float | None:
    """Return the size of a network's input in units of the picture's; None where the card prefers rows or a size.

    Args:
        card: of the network's input.
        chosen: by the user, see `EngineConfig.input_scale`; None for what suits the network.
        default: for a network whose card tells neither rows nor scale.
    """
    prefers = card.rows or card.size_rule in ("preferred", "shortest_edge")
    return chosen if chosen or prefers else card.scale or default


def ready(network: nn.Module, device: Device | torch.device) -> nn.Module:
    """Move a network to the device, in evaluation mode, without gradients, channels last; it is changed in place."""
    import torch

    # PyTorch's stubs do not know `memory_format` of modules.
    return network.eval().requires_grad_(False).to(device=str(device), memory_format=torch.channels_last)  # type: ignore[call-overload]


def scores_of(output: Array | tuple[Array, ...], card: OutputCard, num_classes: int) -> Array:
    """Turn what a network gives into logits.

    Args:
        output: as `card` says.
        num_classes: 1 or more.

    Returns:
        B x C x h x w.
    """
    if card.kind == "logits" and card.groups is None and not isinstance(output, tuple):
        if output.shape[1] != 1 or num_classes == 1:
            return output
    from vidseg_core.engine.scores import SCORES_OF

    return takes_tensors(SCORES_OF[card.kind])(output, card, num_classes)


class NetworkSegmenter:
    """A per-frame network.

    Args:
        network: B x 3 x h x w, as `input` says, to B x C x any smaller size, as `output` says; has `num_classes`.
        input_scale: size of its input in units of the image's; None for the one that suits the image, by `input`.
        device: where it is.
        execute: what calls it, see `backends.choose`; None for the network itself.
        input: how its input is made of a picture.
        output: what it gives.
        takes_batches: whether the network and what calls it take several pictures at a time.

    Attributes:
        half_pixel: whether its scores' pixels cover equal parts of the picture; else the outermost lie on the
            picture's.
        share, costs: see `Capabilities.input_rows`.
    """

    def __init__(
        self,
        network: nn.Module,
        input_scale: float | None,
        device: Device | torch.device,
        execute: Callable[..., Any] | None = None,
        input: InputCard = SWIFTNET_INPUT,
        output: OutputCard = SWIFTNET_OUTPUT,
        takes_batches: bool = False,
    ):
        self.execute = execute or network
        self._network = None if isinstance(execute, Executor) else network
        self.num_classes = cast(int, network.num_classes)
        self.input_scale = input_scale
        self.input = input
        self.output = output
        self._takes_batches = takes_batches
        self.half_pixel = is_half_pixel(input, output)
        self.share = 1.0
        self.costs: deque[tuple[float, float]] = deque(maxlen=MOST_COSTS)
        self.device = device
        self._ready: set[tuple[int, int]] = set()
        self._shares: dict[tuple[int, int], float] = {}  # in use, by the size of the picture
        self._preparing: threading.Thread | None = None
        self._refused: set[tuple[int, int]] = set()

    @property
    def network(self) -> nn.Module:
        """The per-frame network."""
        return self._network if self._network is not None else cast(Executor, self.execute).network

    @property
    def runtime(self) -> str | None:
        """Name what executes the network; None while nothing is chosen yet, or where PyTorch calls it directly."""
        return self.execute.runtime if isinstance(self.execute, Executor) else None

    @property
    def input_rows(self) -> Callable[[tuple[int, int]], int] | None:
        """See `Capabilities`."""
        return rows_of(self.input, self.input_scale)

    def at_share(self, share: float) -> NetworkSegmenter:
        """Return the same network with an input of that share of its size, from the first frame on."""
        other = NetworkSegmenter(
            self.network, self.input_scale, self.device, self.execute, self.input, self.output, self._takes_batches
        )
        other.share = share
        return other

    def input_size(self, size: tuple[int, int], share: float = 1.0) -> tuple[int, int]:
        """Return (h, w) of the network's input for a picture of `size`, (H, W)."""
        return place(size, self.input, self.input_scale, share).size

    @property
    def together(self) -> Callable[[Sequence[Frame]], list[Tensor]] | None:
        """See `Capabilities`."""
        return self._segment_together if self._takes_batches else None

    def __call__(self, frame: Frame) -> Tensor:
        begun_s = time.perf_counter()
        size, share, is_usual = self._size_now(frame.size)
        scores = self._scores([frame], share)
        self._ready.add(size)
        if is_usual and self._preparing is None:
            self.costs.append((time.perf_counter() - begun_s, share))
        return scores

    def _segment_together(self, frames: Sequence[Frame]) -> list[Tensor]:
        _, share, _ = self._size_now(frames[0].size)
        return list(self._scores(frames, share).split(1))

    def _scores(self, frames: Sequence[Frame], share: float) -> Tensor:
        """Call the network for frames of one size: B x C x h x w."""
        placed = place(frames[0].size, self.input, self.input_scale, share)
        import torch

        images = [as_tensor(picture_for(pixels_on(frame, self.device), self.input, placed)) for frame in frames]
        found = self.execute(images[0] if len(images) == 1 else torch.cat(images))
        return cast("Tensor", without_border(scores_of(found, self.output, self.num_classes), placed))

    def _size_now(self, picture: tuple[int, int]) -> tuple[tuple[int, int], float, bool]:
        """Choose the input's size for a picture: (h, w), its share, and whether the network was called so before.

        Nothing waits for another size to be compiled: until it is, the last one is used.
        """
        share, last = self.share, self._shares.get(picture)
        size = self.input_size(picture, share)
        if last is not None and last != share and size not in self._ready:
            self._prepare(size)
            share = last
            size = self.input_size(picture, share)
        self._shares[picture] = share
        return size, share, size in self._ready

    def _prepare(self, size: tuple[int, int]) -> None:
        """Have the network compiled for an input of (h, w) by a thread, if none is at that and it has not failed."""
        if self._preparing is None and size not in self._refused:
            # A daemon: a compiler that hangs must not keep the process from ending.
            self._preparing = threading.Thread(target=self._compile, args=(size,), name="vidseg-compiler", daemon=True)
            self._preparing.start()

    def _compile(self, size: tuple[int, int]) -> None:
        import torch

        os.nice(NICENESS)  # on Linux, of this thread alone
        try:
            with without_gradients():
                self.execute(torch.zeros(1, 3, *size, device=str(self.device)).to(memory_format=torch.channels_last))
        except Exception:
            self._refused.add(size)
            log.exception("the segmenter cannot be compiled for an input of %d x %d", size[1], size[0])
        else:
            self._ready.add(size)
        finally:
            self._preparing = None


def is_half_pixel(input: InputCard, output: OutputCard) -> bool:
    """Return whether the pixels of a network's scores cover equal parts of the picture."""
    return output.corners == "half_pixel" or output.kind == "labels" or input.fit == "letterbox"


def rows_of(card: InputCard, input_scale: float | None) -> Callable[[tuple[int, int]], int] | None:
    """Make what tells the rows of a network's input for a picture of (H, W); None for an input of a fixed size."""
    if card.size_rule == "fixed":
        return None
    if card.size_rule != "multiple":
        return lambda size: place(size, card, input_scale).content[0]
    return lambda size: round(size[0] * (input_scale or card.scale_for(size)))


class TruthSegmenter:
    """Give the frame's own labels as if a network had been sure of them: all later losses are those of propagation.

    Args:
        num_classes: of the class table.
    """

    is_truth = True

    def __init__(self, num_classes: int):
        self.num_classes = num_classes

    def __call__(self, frame: Frame) -> np.ndarray:
        """Turn the frame's labels into scores; raises ValueError for a frame without labels."""
        if frame.labels is None:
            raise ValueError(f"frame {frame.name!r}: expected ground truth labels, it has none")
        ids = np.arange(self.num_classes, dtype=np.uint8)[:, None, None]
        one_hot = (frame.labels[None] == ids).astype(np.float32)
        return (one_hot * np.float32(TRUTH_LOGIT))[None]
