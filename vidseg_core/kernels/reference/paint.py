"""Labels and overlay in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.arrays import as_tensor
from vidseg_core.classes import VOID
from vidseg_core.kernels.paint import DRAW, Moved, Painted, brought
from vidseg_core.kernels.reference.resample import resize_reference
from vidseg_core.kernels.reference.warp import warp_reference
from vidseg_core.overlay import Colours


def draw_reference(
    logits: Tensor, size: tuple[int, int], half_pixel: bool, moved: Moved | None, own: Tensor | None,
    image: Tensor | None, colours: Colours | None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Compute `draw` in plain torch."""
    logits = logits.float()
    if moved is not None:
        logits = warp_reference(logits, as_tensor(moved.way), moved.align_corners, moved.padding)
    if half_pixel:
        full = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    else:
        full = resize_reference(logits, size)
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
