"""Gradient of a depthwise convolution by its weights."""

from __future__ import annotations

from numba import njit


@njit(nogil=True, cache=True, fastmath={"contract"})
def weight_gradient_rows(begin, end, x, gradient, stride, out):
    """For `over_rows` over a batch: x, B x H x W x C, and the output's gradient, B x h x w x C, to out, B x k x k x C.

    `out` must hold zeros. Output (i, j) saw input (i * stride .. i * stride + k - 1, and so for j).
    """
    height, width, channels = gradient.shape[1:]
    kernel = out.shape[1]
    for image in range(begin, end):
        for i in range(height):
            for dy in range(kernel):
                for j in range(width):
                    weight = gradient[image, i, j]
                    for dx in range(kernel):
                        total, seen = out[image, dy, dx], x[image, i * stride + dy, j * stride + dx]
                        for channel in range(channels):
                            total[channel] += seen[channel] * weight[channel]
