"""Copies between the host and a CUDA device through pinned memory, which the device reads and writes by itself.

PyTorch keeps pinned memory for the next copy, and hands none out again while a device may still use it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vidseg_core.kernels.transfer import DOWNLOAD, UPLOAD


def _pinned(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # In Triton's interpreter the device is the CPU, and there is nothing to pin.
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


@UPLOAD.register("cuda")
def upload(pixels: np.ndarray, device: torch.device, out: Tensor | None = None) -> Tensor:
    dtype = torch.bool if pixels.dtype == bool else torch.uint8
    staged = _pinned(pixels.shape, dtype, device)
    staged.numpy()[...] = pixels
    return staged.to(device, non_blocking=True) if out is None else out.copy_(staged, non_blocking=True)


@DOWNLOAD.register("cuda")
def download(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    device = tensors[0].device
    results = [_pinned(tuple(x.shape), x.dtype, device).copy_(x, non_blocking=True) for x in tensors]
    if device.type == "cuda":
        torch.cuda.current_stream(device).record_event().synchronize()  # not what other threads ask for after that
    return tuple(x.numpy() for x in results)
