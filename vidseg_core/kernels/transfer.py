"""Bring pixels to where the kernels of a device read them, and results back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vidseg_core.arrays import Array, as_array, device_type_of
from vidseg_core.devices import Device
from vidseg_core.kernels.dispatch import Operation

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def upload(pixels: np.ndarray, device: Device | torch.device, out: Tensor | None = None) -> Array:
    """Bring pixels to a device.

    Args:
        pixels: any shape and strides, uint8.
        out: where to put them, a tensor on the device; None for new memory.

    Returns:
        On the CPU `pixels` themselves, without `out`; else a tensor on the device, contiguous, of the same shape. The
        device may still be copying; what it is asked for next waits for that, and `pixels` may change at once.
    """
    return pixels if device.type == "cpu" and out is None else UPLOAD.on(device.type)(pixels, device, out)


def download(*tensors: Array) -> tuple[np.ndarray, ...]:
    """Wait for tensors of one device and bring them to the host's memory.

    Returns:
        An array for each, newly allocated unless it is on the CPU. Those of a CUDA device are in pinned memory: to keep
        many of them for long, copy them.
    """
    device_type = device_type_of(tensors[0])
    return tuple(map(as_array, tensors)) if device_type == "cpu" else DOWNLOAD.on(device_type)(*tensors)


def lies_on(pixels: Array | None, device: Device | torch.device) -> bool:
    """Return whether these are pixels on a device other than the CPU, and it is `device`."""
    if pixels is None or isinstance(pixels, np.ndarray):
        return False
    return pixels.device.type == device.type and device.index in (None, pixels.device.index)


UPLOAD = Operation("upload", "transfer.upload_reference", for_host=True)
DOWNLOAD = Operation("download", "transfer.download_reference", for_host=True)
