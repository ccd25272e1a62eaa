"""Blend the past into a key frame's scores, as far as the picture agrees with it.

A per-frame network errs anew on every frame, so what it said of the same surface a moment ago is worth something: where
the last key frame's picture, moved along the flow, looks like the current one, flow was right and nothing was
uncovered. Where it does not, or would come from outside the image, the carried scores are worth nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidseg_core.kernels.dispatch import Operation
from vidseg_core.kernels.resample import resample, resize

# Chosen on streets that no training saw; weights of 0.3 to 0.5 and tolerances of 5 to 10 are about equally good.
WEIGHT = 0.5
TOLERANCE = 5.0  # grey levels
LEAST_PROBABILITY = 1e-6


def fuse(scores: Tensor, carried: Tensor, apart: Tensor, picture: tuple[int, int] | None = None) -> Tensor:
    """Mix a key frame's probabilities with those of the past.

    Args:
        scores: 1 x C x any size, the segmenter's logits.
        carried: 1 x C x h x w, logits of the past at their new places.
        apart: 1 x 1 x h x w, see `difference`; the share of the past is `WEIGHT` exp(-(apart / `TOLERANCE`)^2).
        picture: (H, W) of the picture, of which the scores' pixels cover equal parts; None where the outermost lie on
            its outermost, as those of the grid do.

    Returns:
        1 x C x the scores' size, float32, newly allocated: logarithms of the mixture, at least of `LEAST_PROBABILITY`.
    """
    return FUSE.on(scores.device.type)(scores, carried, apart, picture)


def fuse_reference(scores: Tensor, carried: Tensor, apart: Tensor, picture: tuple[int, int] | None) -> Tensor:
    """Compute `fuse` in plain torch. On the CPU, too: its exponentials are vectorised, numba's are not."""
    size = (scores.shape[2], scores.shape[3])

    def moved(x: Tensor) -> Tensor:
        if picture is None:
            return resize(x, size)
        return resample(x, size, picture, source_half_pixel=False, target_half_pixel=True)

    share = moved(WEIGHT * likeness(apart, TOLERANCE))
    new, past = scores.float().softmax(1), moved(carried).float().softmax(1)
    return torch.lerp(new, past, share).clamp_min(LEAST_PROBABILITY).log()


def likeness(apart: Tensor, tolerance: float) -> Tensor:
    """Rate how alike two pictures are: 1 where they are equal, falling to 0 as a Gaussian of their difference does."""
    return torch.exp(-((apart / tolerance) ** 2))


FUSE = Operation("fuse", fuse_reference)
