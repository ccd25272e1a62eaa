"""Labels and overlay in one go, from logits of this frame or of one before."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.classes import VOID
from vidseg_core.kernels.decode import decode, decode_warped
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.kernels.resample import resize
from vidseg_core.kernels.transfer import Pixels, download
from vidseg_core.kernels.warp import warp
from vidseg_core.overlay import Colours, overlay


class Moved(NamedTuple):
    """Says how logits of another frame are moved to this one: `way`, 1 x 2 x h x w, and the rest as in `warp`.

    `one_class` is that of the logits, see `kernels.decode.one_class`.
    """

    way: Tensor
    one_class: Tensor
    align_corners: bool = True
    padding: str = "zeros"


class Painted(NamedTuple):
    """Holds labels, H x W, uint8, and the overlay, H x W x 3, uint8, RGB; None where none was asked for."""

    labels: np.ndarray
    overlay: np.ndarray | None


def paint(
    logits: Tensor,
    size: tuple[int, int],
    *,
    half_pixel: bool = False,
    moved: Moved | None = None,
    own: Pixels | None = None,
    image: Pixels | None = None,
    colours: Colours | None = None,
) -> Painted:
    """Label a picture and draw the labels over it, where the logits are.

    Args:
        logits: 1 x C x h x w, C in 1..255, finite.
        size: (H, W) of the picture.
        half_pixel: see `decode`; not together with `moved`.
        moved: for logits of another frame; None for this one's. See `decode_warped`.
        own: H x W, bool, on the logits' device: True where labels are void.
        image: H x W x 3, uint8, RGB, on the logits' device.
        colours: what the overlay is drawn with; None for no overlay, then `image` is not read.

    Returns:
        Arrays of the host, newly allocated. Labels are those of `decode` or `decode_warped`, the overlay is that of
        `vidseg_core.overlay.overlay`.

    Raises:
        ValueError: shapes do not fit together.
    """
    if logits.ndim != 4 or logits.shape[0] != 1 or not 1 <= logits.shape[1] <= 255:
        raise ValueError(f"expected logits of 1 x C x h x w with C in 1..255, got {tuple(logits.shape)}")
    if colours is not None and (image is None or tuple(image.shape) != (*size, 3)):
        raise ValueError(f"expected an image of {size} like its labels, got {None if image is None else image.shape}")
    if own is not None and tuple(own.shape) != tuple(size):
        raise ValueError(f"own: expected {size} like the labels, got {tuple(own.shape)}")
    return PAINT.on(logits.device.type)(logits, size, half_pixel, moved, own, image, colours)


def draw(
    logits: Tensor,
    size: tuple[int, int],
    *,
    moved: Moved | None = None,
    own: Tensor | None = None,
    image: Tensor | None = None,
    colours: Colours | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Compute `paint` and leave labels and overlay where the logits are; arguments are not checked.

    Returns:
        H x W, uint8, and H x W x 3, uint8, or None where no overlay is asked for; newly allocated.
    """
    return DRAW.on(logits.device.type)(logits, size, False, moved, own, image, colours)


def draws(device: torch.device) -> bool:
    """Return whether overlays are best drawn along with labels: where the image is there, too, and the host waits.

    On the CPU they are left to whoever shows them.
    """
    return device.type != "cpu"


def draw_reference(
    logits: Tensor, size: tuple[int, int], half_pixel: bool, moved: Moved | None, own: Tensor | None,
    image: Tensor | None, colours: Colours | None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Compute `draw` in plain torch."""
    logits = logits.float()
    if moved is not None:
        logits = warp(logits, moved.way, moved.align_corners, moved.padding)
    if half_pixel:
        full = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    else:
        full = resize(logits, size)
    labels = full.argmax(1)[0]
    if own is not None:
        labels = torch.where(own, VOID, labels)
    if colours is None or image is None:
        return labels.to(torch.uint8), None
    table = torch.from_numpy(colours.table()).to(labels.device)[labels]  # H x W x 4
    drawn = (image.int() * table[..., 3:] + table[..., :3]) >> 8
    return labels.to(torch.uint8), drawn.to(torch.uint8)


def paint_reference(
    logits: Tensor, size: tuple[int, int], half_pixel: bool, moved: Moved | None, own: Tensor | None,
    image: Tensor | None, colours: Colours | None,
) -> Painted:  # fmt: skip
    """Compute `paint` by `draw`, and bring both to the host; arguments are not checked."""
    return brought(*DRAW.on(logits.device.type)(logits, size, half_pixel, moved, own, image, colours))


def brought(labels: Tensor, overlaid: Tensor | None) -> Painted:
    """Bring what `draw` returns to the host's memory."""
    found = download(labels) if overlaid is None else download(labels, overlaid)
    return Painted(found[0], None if overlaid is None else found[1])


DRAW = Operation("draw", draw_reference)
PAINT = Operation("paint", paint_reference)


@PAINT.register("cpu")
def _paint_on_cpu(
    logits: Tensor, size: tuple[int, int], half_pixel: bool, moved: Moved | None, own: np.ndarray | None,
    image: np.ndarray | None, colours: Colours | None,
) -> Painted:  # fmt: skip
    if moved is None:
        labels = decode(logits, size, half_pixel)
    else:
        labels = decode_warped(logits, moved.way, moved.one_class, size, moved.align_corners, moved.padding)
    if own is not None:
        labels[own] = VOID
    drawn = None if colours is None or image is None else overlay(image, labels, colours.lut, colours.opacity)
    return Painted(labels, drawn)
