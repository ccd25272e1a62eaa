"""One look at a camera's picture in plain torch."""

from __future__ import annotations

import torch

from vidseg_core.arrays import Array
from vidseg_core.kernels.flow import levels_of
from vidseg_core.kernels.look import Looked
from vidseg_core.kernels.reference.flow import pyramid_reference
from vidseg_core.kernels.reference.grey import grey_picture_reference
from vidseg_core.kernels.reference.picture import shrunk_reference


def look_reference(image: Array, size: tuple[int, int], compares: bool = True) -> Looked:
    """Compute `look` in plain torch, whose `shrunk` is always there."""
    levels = pyramid_reference(grey_picture_reference(image, size), levels_of(*size))
    return Looked(levels, shrunk_reference(image, size).to(torch.uint8)[None])
