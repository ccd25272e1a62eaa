"""Bring pixels to where the kernels of a device read them, and results back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vidseg_core.kernels.dispatch import Operation

Pixels = np.ndarray | Tensor
"""Pixels where kernels read them: an array for those of the CPU, a tensor on the device for all others."""


def upload(pixels: np.ndarray, device: torch.device, out: Tensor | None = None) -> Pixels:
    """Bring pixels to a device.

    Args:
        pixels: any shape and strides, uint8.
        out: where to put them on a device other than the CPU; None for new memory.

    Returns:
        On the CPU `pixels` themselves; else a tensor on the device, contiguous, of the same shape. The device may still
        be copying; what it is asked for next waits for that, and `pixels` may change at once.
    """
    return UPLOAD.on(device.type)(pixels, device, out)


def upload_reference(pixels: np.ndarray, device: torch.device, out: Tensor | None = None) -> Tensor:
    """Compute `upload` in plain torch."""
    there = tensor_of(pixels).to(device)
    return there if out is None else out.copy_(there)


def download(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    """Wait for tensors of one device and bring them to the host's memory.

    Returns:
        An array for each, newly allocated unless it is on the CPU. Those of a CUDA device are in pinned memory: to keep
        many of them for long, copy them.
    """
    return DOWNLOAD.on(tensors[0].device.type)(*tensors)


def download_reference(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    """Compute `download` in plain torch."""
    return tuple(x.cpu().numpy() for x in tensors)


def tensor_of(pixels: Pixels) -> Tensor:
    """Return pixels as a tensor where they are."""
    return pixels if isinstance(pixels, Tensor) else torch.from_numpy(np.ascontiguousarray(pixels))


def lies_on(pixels: Pixels | None, device: torch.device) -> bool:
    """Return whether these are pixels on a device other than the CPU, and it is `device`."""
    if not isinstance(pixels, Tensor):
        return False
    return pixels.device.type == device.type and device.index in (None, pixels.device.index)


def device_type_of(pixels: Pixels) -> str:
    """Return the type of device whose kernels read these pixels."""
    return "cpu" if isinstance(pixels, np.ndarray) else pixels.device.type


UPLOAD = Operation("upload", upload_reference)
DOWNLOAD = Operation("download", download_reference)


@UPLOAD.register("cpu")
def _upload_to_cpu(pixels: np.ndarray, device: torch.device, out: None = None) -> np.ndarray:
    return pixels
