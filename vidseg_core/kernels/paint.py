"""Labels and overlay in one go, from logits of this frame or of one before."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vidseg_core.arrays import Array, device_type_of
from vidseg_core.classes import VOID
from vidseg_core.devices import Device
from vidseg_core.kernels.decode import decode, decode_warped
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.kernels.transfer import download
from vidseg_core.overlay import Colours, overlay

if TYPE_CHECKING:
    import torch


class Moved(NamedTuple):
    """Says how logits of another frame are moved to this one: `way`, 1 x 2 x h x w, and the rest as in `warp`.

    `one_class` is that of the logits, see `kernels.decode.one_class`.
    """

    way: Array
    one_class: Array
    align_corners: bool = True
    padding: str = "zeros"


class Painted(NamedTuple):
    """Holds labels, H x W, uint8, and the overlay, H x W x 3, uint8, RGB; None where none was asked for."""

    labels: np.ndarray
    overlay: np.ndarray | None


def paint(
    logits: Array,
    size: tuple[int, int],
    *,
    half_pixel: bool = False,
    moved: Moved | None = None,
    own: Array | None = None,
    image: Array | None = None,
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
    return PAINT.on(device_type_of(logits))(logits, size, half_pixel, moved, own, image, colours)


def draw(
    logits: Array,
    size: tuple[int, int],
    *,
    moved: Moved | None = None,
    own: Array | None = None,
    image: Array | None = None,
    colours: Colours | None = None,
) -> tuple[Array, Array | None]:
    """Compute `paint` and leave labels and overlay where the logits are; arguments are not checked.

    Returns:
        H x W, uint8, and H x W x 3, uint8, or None where no overlay is asked for; newly allocated.
    """
    return DRAW.on(device_type_of(logits))(logits, size, False, moved, own, image, colours)


def draws(device: Device | torch.device) -> bool:
    """Return whether overlays are best drawn along with labels: where the image is there, too, and the host waits.

    On the CPU they are left to whoever shows them.
    """
    return device.type != "cpu"


def brought(labels: Array, overlaid: Array | None) -> Painted:
    """Bring what `draw` returns to the host's memory."""
    found = download(labels) if overlaid is None else download(labels, overlaid)
    return Painted(found[0], None if overlaid is None else found[1])


DRAW = Operation("draw", "paint.draw_reference")
PAINT = Operation("paint", "paint.paint_reference", for_host=True)


@PAINT.register("cpu")
def _paint_on_cpu(
    logits: np.ndarray, size: tuple[int, int], half_pixel: bool, moved: Moved | None, own: np.ndarray | None,
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
