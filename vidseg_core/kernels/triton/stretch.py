"""Resizing of images in bytes in Triton, along one side at a time."""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from vidseg_core.kernels.reference.stretch import weighed
from vidseg_core.kernels.stretch import STRETCH
from vidseg_core.kernels.triton.launch import BLOCK, LAUNCH, blocks


@triton.jit
def stretch_kernel(
    image, first, weights, out, inputs, outputs, inner, elements, TAPS: tl.constexpr, BLOCK: tl.constexpr
):
    """Resize N x inputs x inner bytes to N x outputs x inner, `elements` in all; weights are outputs x TAPS."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = at < elements
    along = at // inner % outputs
    source = at // inner // outputs * inputs * inner + at % inner
    begin = tl.load(first + along, mask=there, other=0)
    total = tl.zeros((BLOCK,), tl.float32)
    for k in range(TAPS):
        weight = tl.load(weights + along * TAPS + k, mask=there, other=0.0)
        pixel = source + tl.minimum(begin + k, inputs - 1) * inner
        total += weight * tl.load(image + pixel, mask=there, other=0).to(tl.float32)
    total = tl.minimum(tl.maximum(total, 0.0), 255.0)
    tl.store(out + at, tl.floor(total + 0.5).to(tl.uint8), mask=there)


@cache
def _weighed(inputs: int, outputs: int, how: str, device: torch.device) -> tuple[Tensor, Tensor]:
    first, weights = weighed(inputs, outputs, how)
    return first.to(device, torch.int32), weights.to(device).contiguous()


@STRETCH.register("cuda")
def stretch(image: Tensor, size: tuple[int, int], how: str) -> Tensor:
    x = image.contiguous()
    for axis in (1, 0):
        inputs, outputs = x.shape[axis], size[axis]
        first, weights = _weighed(inputs, outputs, how, x.device)
        shape = (x.shape[0], outputs, 3) if axis else (outputs, x.shape[1], 3)
        out = torch.empty(shape, dtype=torch.uint8, device=x.device)
        stretch_kernel[blocks(out.numel())](
            x, first, weights, out, inputs, outputs, 3 if axis else 3 * x.shape[1], out.numel(),
            TAPS=weights.shape[1], BLOCK=BLOCK, **LAUNCH,
        )  # fmt: skip
        x = out
    return x
