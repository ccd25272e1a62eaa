"""Blend the past into a key frame's scores, as far as the picture agrees with it.

A per-frame network errs anew on every frame, so what it said of the same surface a moment ago is worth something: where
the last key frame's picture, moved along the flow, looks like the current one, flow was right and nothing was
uncovered. Where it does not, or would come from outside the image, the carried scores are worth nothing.
"""

from __future__ import annotations

import numpy as np

from vidseg_core.arrays import Array, channels_first, device_type_of, pixels_last
from vidseg_core.kernels.cpu.shares import fuse_rows
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.kernels.resample import places
from vidseg_core.threads import over_rows

# Chosen on streets that no training saw; weights of 0.3 to 0.5 and tolerances of 5 to 10 are about equally good.
WEIGHT = 0.5
TOLERANCE = 5.0  # grey levels
LEAST_PROBABILITY = 1e-6
VALUE_NS = 3.2
"""On one thread, see `threads.over_rows`."""


def fuse(scores: Array, carried: Array, apart: Array, picture: tuple[int, int] | None = None) -> Array:
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
    return FUSE.on(device_type_of(scores))(scores, carried, apart, picture)


def likeness(apart: np.ndarray, tolerance: float) -> np.ndarray:
    """Rate how alike two pictures are: 1 where they are equal, falling to 0 as a Gaussian of their difference does."""
    return np.exp(-((apart / tolerance) ** 2))


FUSE = Operation("fuse", "fuse.fuse_reference")


@FUSE.register("cpu")
def _fuse_on_cpu(
    scores: np.ndarray, carried: np.ndarray, apart: np.ndarray, picture: tuple[int, int] | None
) -> np.ndarray:
    new, past = pixels_last(scores), pixels_last(carried)
    at = places(past.shape[:2], new.shape[:2], picture, False, target_half_pixel=picture is not None)
    share = np.ascontiguousarray(WEIGHT * likeness(apart, TOLERANCE)[0, 0], dtype=np.float32)
    least, out = np.float32(LEAST_PROBABILITY), np.empty_like(new)
    over_rows(fuse_rows, len(new), new, past, share, *at, least, out, work_us=VALUE_NS * out.size / 1e3)
    return channels_first(out)
