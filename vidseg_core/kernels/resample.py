"""Bilinear resizing, and images as networks want them."""

from __future__ import annotations

import numpy as np

from vidseg_core.arrays import Array, channels_first, device_type_of, wants_gradient
from vidseg_core.kernels.cpu.resample import interpolate_rows, sample_rows
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.networks.normalisation import MEAN_RGB, STD_RGB
from vidseg_core.threads import over_rows

Colour = tuple[float, float, float]
Places = tuple[np.ndarray, np.ndarray]
"""For each pixel of a side, the one before it among others (int32) and how far it lies behind that (float32)."""
# On one thread, see `threads.over_rows`: of an image's value, and of one of logits.
VALUE_NS = 1.2
LOGIT_NS = 0.35


def resize(x: Array, size: tuple[int, int]) -> Array:
    """Interpolate bilinearly; the outermost pixels of both sizes fall on each other.

    Args:
        x: B x C x any size, floating point.
        size: (h, w) wanted.

    Returns:
        B x C x h x w, of the type of `x` and in memory in its order; `x` itself where that is its size. Tensors that
        ask for gradients get them.
    """
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return (RESIZE.reference if wants_gradient(x) else RESIZE.on(device_type_of(x)))(x, size)


def resize_bytes(x: Array, size: tuple[int, int]) -> Array:
    """Interpolate pictures, B x C x any size, uint8, as `resize` does, and round: B x C x h x w, uint8."""
    if isinstance(x, np.ndarray):
        return np.rint(resize(x.astype(np.float32), size)).astype(x.dtype)
    return resize(x.float(), size).round().to(x.dtype)


def resample(
    x: Array, size: tuple[int, int], picture: tuple[int, int], *, source_half_pixel: bool, target_half_pixel: bool
) -> Array:
    """Interpolate between lattices that lie otherwise in the same picture.

    The pixels of one cover equal parts of the picture (half pixel), or its outermost pixels lie on the picture's.

    Args:
        x: B x C x any size.
        size: (h, w) wanted.
        picture: (H, W) of the picture.
        source_half_pixel, target_half_pixel: which of the two `x` and the result are.

    Returns:
        B x C x h x w, newly allocated, of the type of `x` and in memory in its order; places outside of `x` take its
        nearest pixel. Tensors that ask for gradients get them.
    """
    compute = RESAMPLE.reference if wants_gradient(x) else RESAMPLE.on(device_type_of(x))
    return compute(x, size, picture, source_half_pixel, target_half_pixel)


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


def on_grid(scores: Array, grid: tuple[int, int], picture: tuple[int, int] | None = None) -> Array:
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


RESIZE = Operation("resize", "resample.resize_reference")
RESAMPLE = Operation("resample", "resample.resample_reference")


@RESIZE.register("cpu")
def _resize_on_cpu(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    down, across = map(positions, x.shape[2:], size)
    return _interpolated(x, size, *down, *across)


@RESAMPLE.register("cpu")
def _resample_on_cpu(
    x: np.ndarray, size: tuple[int, int], picture: tuple[int, int], source_half_pixel: bool, target_half_pixel: bool
) -> np.ndarray:
    return _interpolated(x, size, *places(x.shape[2:], size, picture, source_half_pixel, target_half_pixel))


def _interpolated(x: np.ndarray, size: tuple[int, int], *at: np.ndarray) -> np.ndarray:
    """Interpolate at the places of rows and columns, see `places`, without changing the order in memory."""
    batch, channels = x.shape[:2]
    is_channels_last = x.strides[1] <= x.strides[3]
    ordered = np.ascontiguousarray(x.transpose(0, 2, 3, 1) if is_channels_last else x, dtype=np.float32)
    planes = ordered if is_channels_last else ordered.reshape(batch * channels, *x.shape[2:], 1)
    out = np.empty((len(planes), *size, planes.shape[3]), dtype=np.float32)
    over_rows(interpolate_rows, len(planes) * size[0], planes, *at, out, work_us=LOGIT_NS * out.size / 1e3)
    found = out.transpose(0, 3, 1, 2) if is_channels_last else out.reshape(batch, channels, *size)
    return found.astype(x.dtype, copy=False)


def places(
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    picture: tuple[int, int] | None,
    source_half_pixel: bool,
    target_half_pixel: bool = False,
) -> list[np.ndarray]:
    """Find what `positions` does for both sides, between lattices as in `lattice`; outside is the nearest pixel.

    Args:
        inputs, outputs: (h, w).
        picture: (H, W) of the picture; may be None where neither or both are half pixel.
        source_half_pixel, target_half_pixel: see `resample`.

    Returns:
        Four arrays: `positions` of the rows, then of the columns.
    """
    found: list[np.ndarray] = []
    for count, wanted, side in zip(inputs, outputs, picture or (None, None), strict=True):
        at = lattice(count, wanted, side, source_half_pixel, target_half_pixel).clip(0, count - 1)
        before = at.astype(np.int32)
        found += before, (at - before).astype(np.float32)
    return found


def positions(inputs: int, outputs: int, half_pixel: bool = False) -> Places:
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
    image: Array,
    size: tuple[int, int],
    *,
    bgr: bool = False,
    normalised: bool = True,
    mean: Colour = MEAN_RGB,
    std: Colour = STD_RGB,
) -> Array:
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


NETWORK_INPUT = Operation("network_input", "resample.network_input_reference")


@NETWORK_INPUT.register("cpu")
def _network_input_on_cpu(image: np.ndarray, size: tuple[int, int], bgr: bool, mean: Colour, std: Colour) -> np.ndarray:
    y0, fy = positions(image.shape[0], size[0])
    x0, fx = positions(image.shape[1], size[1])
    gain = (1.0 / np.array(std)).astype(np.float32)
    offset = (-np.array(mean) / np.array(std)).astype(np.float32)
    out = np.empty((*size, 3), dtype=np.float32)
    rows = image.reshape(image.shape[0], -1)
    work_us = VALUE_NS * out.size / 1e3
    over_rows(sample_rows, size[0], rows, y0, fy, x0, fx, gain, offset, 2 if bgr else 0, out, work_us=work_us)
    return channels_first(out)
