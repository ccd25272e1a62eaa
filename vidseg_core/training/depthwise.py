"""Gradients of large depthwise convolutions on the CPU, in about a third of the time that PyTorch 2.13 takes.

Its backward pass of a 5 x 5 depthwise convolution (oneDNN) has no fast path: on EfficientNet-Lite0 it made half of a
training step. The gradient by the weights is a kernel of ours here; the one by the input is a convolution forward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg_core.kernels.cpu.depthwise import weight_gradient_rows
from vidseg_core.networks.efficientnet_lite import SameConv2d
from vidseg_core.threads import over_rows

SLOW_KERNEL = 5  # 3 x 3 has a fast path


def hasten_gradients(net: nn.Module) -> int:
    """Let a network's 5 x 5 depthwise convolutions be trained by `Depthwise`; for a network on the CPU.

    Returns:
        How many there are.
    """
    found = [
        module
        for module in net.modules()
        if isinstance(module, SameConv2d)
        and module.groups == module.in_channels > 1
        and module.kernel_size == (SLOW_KERNEL, SLOW_KERNEL)
    ]
    for module in found:
        module.trained_by = Depthwise.apply
    return len(found)


class Depthwise(torch.autograd.Function):
    """Convolve each channel with a kernel of its own; `Depthwise.apply(x, weight, stride)`.

    Args:
        x: B x C x H x W, padded already.
        weight: C x 1 x k x k; cast to the type of `x`.
        stride: of both axes.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        cast = weight.to(x.dtype)
        ctx.save_for_backward(x, cast)
        ctx.stride, ctx.dtype = stride, weight.dtype
        return F.conv2d(x, cast, None, stride, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (x, weight), stride = ctx.saved_tensors, ctx.stride
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = x.shape
        kernel = weight.shape[-1]

        sums = torch.zeros((batch, kernel, kernel, channels))
        pixels = (tensor.permute(0, 2, 3, 1).float().contiguous().numpy() for tensor in (x, gradient))
        over_rows(weight_gradient_rows, batch, *pixels, stride, sums.numpy())
        by_weight = sums.sum(0).permute(2, 0, 1)[:, None].to(ctx.dtype)

        if stride > 1:  # what a stride left out had no part in the result
            spread = x.new_zeros((batch, height - kernel + 1, width - kernel + 1, channels)).permute(0, 3, 1, 2)
            spread[:, :, ::stride, ::stride] = gradient
            gradient = spread
        by_input = F.conv2d(gradient, weight.flip(2, 3), None, 1, kernel - 1, groups=channels)
        return by_input, by_weight, None
