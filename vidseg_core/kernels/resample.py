"""Bilinear resizing, and images as networks want them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.kernels.cpu.resample import sample_rows
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.kernels.transfer import Pixels, device_type_of, tensor_of
from vidseg_core.networks.normalisation import MEAN_RGB, STD_RGB
from vidseg_core.threads import over_rows

Colour = tuple[float, float, float]
# On one thread, see `threads.over_rows`.
VALUE_NS = 1.2


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate bilinearly; the outermost pixels of both sizes fall on each other.

    Args:
        x: B x C x any size, floating point.
        size: (h, w) wanted.

    Returns:
        B x C x h x w; `x` itself where that is its size.
    """
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return RESIZE.on(x.device.type)(x, size)


def resize_reference(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Compute `resize` in plain torch, differentiable. PyTorch's kernel is the CPU's, too."""
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def resample(
    x: Tensor, size: tuple[int, int], picture: tuple[int, int], *, source_half_pixel: bool, target_half_pixel: bool
) -> Tensor:
    """Interpolate between lattices that lie otherwise in the same picture.

    The pixels of one cover equal parts of the picture (half pixel), or its outermost pixels lie on the picture's.

    Args:
        x: B x C x any size.
        size: (h, w) wanted.
        picture: (H, W) of the picture.
        source_half_pixel, target_half_pixel: which of the two `x` and the result are.

    Returns:
        B x C x h x w, newly allocated; places outside of `x` take its nearest pixel.
    """
    return RESAMPLE.on(x.device.type)(x, size, picture, source_half_pixel, target_half_pixel)


def resample_reference(
    x: Tensor, size: tuple[int, int], picture: tuple[int, int], source_half_pixel: bool, target_half_pixel: bool
) -> Tensor:
    """Compute `resample` in plain torch, differentiable. PyTorch's kernel is the CPU's, too."""
    sides = []
    for inputs, outputs, side in zip(x.shape[2:], size, picture, strict=True):
        at = lattice(inputs, outputs, side, source_half_pixel, target_half_pixel)
        sides.append(torch.from_numpy(2 * at / max(inputs - 1, 1) - 1).to(x))
    grid = torch.stack((sides[1].expand(size), sides[0][:, None].expand(size)), -1)
    grid = grid.expand(x.shape[0], *grid.shape)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)


def lattice(
    inputs: int, outputs: int, side: int | None = None, source_half_pixel: bool = False, target_half_pixel: bool = False
) -> np.ndarray:
    """Find where each of `outputs` pixels along one side lies among `inputs` pixels: float64, may be outside.

    Args:
        inputs, outputs: numbers of pixels.
        side: of the picture, in its pixels; counts where one of the two is half pixel and the other is not.
        source_half_pixel, target_half_pixel: see `resample`.
    """
    side = side or outputs
    at = np.arange(outputs, dtype=np.float64)
    at = (at + 0.5) * (side / outputs) - 0.5 if target_half_pixel else at * ((side - 1) / max(outputs - 1, 1))
    return (at + 0.5) * (inputs / side) - 0.5 if source_half_pixel else at * ((inputs - 1) / max(side - 1, 1))


def on_grid(scores: Tensor, grid: tuple[int, int], picture: tuple[int, int] | None = None) -> Tensor:
    """Bring a network's scores to the grid.

    Args:
        scores: B x C x any size.
        grid: (h, w).
        picture: (H, W) of the picture, of which the scores' pixels cover equal parts; None where the outermost lie on
            its outermost, as those of the grid do.

    Returns:
        B x C x h x w; `scores` themselves where nothing changes.
    """
    if picture is None:
        return resize(scores, grid)
    return resample(scores, grid, picture, source_half_pixel=True, target_half_pixel=False)


RESIZE = Operation("resize", resize_reference)
RESAMPLE = Operation("resample", resample_reference)


def positions(inputs: int, outputs: int, half_pixel: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Find for each output pixel the input pixel before it (int32) and how far it lies behind that (float32, 0..1).

    With `half_pixel` the pixels of both cover equal parts of the picture; else the outermost fall on each other.
    """
    if half_pixel:
        step = np.float32(inputs) / np.float32(outputs)
        at = ((np.arange(outputs, dtype=np.float32) + np.float32(0.5)) * step - np.float32(0.5)).clip(0, inputs - 1)
    else:
        step = np.float32(inputs - 1) / np.float32(max(outputs - 1, 1))
        at = np.arange(outputs, dtype=np.float32) * step
    before = np.minimum(at.astype(np.int32), inputs - 1)
    return before, at - before.astype(np.float32)


def network_input(
    image: Pixels,
    size: tuple[int, int],
    *,
    bgr: bool = False,
    normalised: bool = True,
    mean: Colour = MEAN_RGB,
    std: Colour = STD_RGB,
) -> Tensor:
    """Prepare an image as a network wants it, resized and normalised in one pass.

    Args:
        image: H x W x 3, uint8, RGB.
        size: (h, w) wanted.
        bgr: whether the channels come in the order blue, green, red.
        normalised: subtract `mean` and divide by `std`; else values stay 0..255.
        mean, std: of red, green and blue, whatever the order of the channels.

    Returns:
        1 x 3 x h x w, float32, in memory as h x w x 3 (channels last), on the image's device.
    """
    if not normalised:
        mean, std = (0.0,) * 3, (1.0,) * 3
    return NETWORK_INPUT.on(device_type_of(image))(image, size, bgr, mean, std)


def network_input_reference(image: Pixels, size: tuple[int, int], bgr: bool, mean: Colour, std: Colour) -> Tensor:
    """Compute `network_input` in plain torch."""
    x = resize(tensor_of(image).permute(2, 0, 1)[None].float(), size)
    mean_of, std_of = (torch.tensor(values).view(3, 1, 1).to(x.device) for values in (mean, std))
    x = (x - mean_of) / std_of
    return (x.flip(1) if bgr else x).contiguous(memory_format=torch.channels_last)


NETWORK_INPUT = Operation("network_input", network_input_reference)


@NETWORK_INPUT.register("cpu")
def _network_input_on_cpu(image: np.ndarray, size: tuple[int, int], bgr: bool, mean: Colour, std: Colour) -> Tensor:
    y0, fy = positions(image.shape[0], size[0])
    x0, fx = positions(image.shape[1], size[1])
    gain = (1.0 / np.array(std)).astype(np.float32)
    offset = (-np.array(mean) / np.array(std)).astype(np.float32)
    out = np.empty((*size, 3), dtype=np.float32)
    rows = image.reshape(image.shape[0], -1)
    work_us = VALUE_NS * out.size / 1e3
    over_rows(sample_rows, size[0], rows, y0, fy, x0, fx, gain, offset, 2 if bgr else 0, out, work_us=work_us)
    return torch.from_numpy(out)[None].permute(0, 3, 1, 2)
