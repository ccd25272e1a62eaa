"""Past and new evidence: a network's scores and those carried from the past, blended by what the picture tells.

Where the last key frame's picture, moved along the flow, looks like the current one, flow was right and nothing was
uncovered; where it does not, or where it would come from outside the image, the carried scores are worth nothing.

On key frames (`fuse`) the past is blended into the segmenter's scores where the picture agrees: a per-frame network
errs anew on every frame, so what it said of the same surface a moment ago is worth something. Between key frames
(`update`) a look at the current frame at low resolution takes the place of the carried scores where the picture
disagrees; the two branches are Accel's (Jain et al., CVPR 2019), whose corrective fusion has learned weights.
"""

from __future__ import annotations

import cv2
import torch
from torch import Tensor

from vidseg_core.engine.geometry import View
from vidseg_core.kernels.resample import resample, resize

# Chosen on streets that no training saw; weights of 0.3 to 0.5 and tolerances of 5 to 10 are about equally good.
WEIGHT = 0.5
TOLERANCE = 5.0  # grey levels
UPDATE_TOLERANCE = 10.0  # 7 to 14 are about equally good
SMOOTHING = 1.0  # pixels of the grid: sensor noise and steep edges must not count as disagreement
LEAST_PROBABILITY = 1e-6


def picture(view: View) -> Tensor:
    """Make the picture that later frames compare with: 1 x 3 x h x w, uint8, smoothed; owns its memory."""
    small = cv2.resize(view.image, view.grid[::-1], interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), SMOOTHING)
    return torch.from_numpy(small).permute(2, 0, 1)[None].to(view.device)


def fuse(scores: Tensor, carried: Tensor, apart: Tensor, picture: tuple[int, int] | None = None) -> Tensor:
    """A key frame's scores with the past in them: log-probabilities of the mixture, as large as `scores`.

    Args:
        scores: 1 x C x any size, the segmenter's logits.
        carried: 1 x C x h x w, logits of the past at their new places.
        apart: 1 x 1 x h x w, see `difference`; the share of the past is up to `WEIGHT`.
        picture: (H, W) of the picture, of which the scores' pixels cover equal parts; None where the outermost lie on
            its outermost, as those of the grid do.
    """
    size = (scores.shape[2], scores.shape[3])

    def moved(x: Tensor) -> Tensor:
        if picture is None:
            return resize(x, size)
        return resample(x, size, picture, source_half_pixel=False, target_half_pixel=True)

    share = moved(WEIGHT * _likeness(apart, TOLERANCE))
    new, past = scores.float().softmax(1), moved(carried).softmax(1)
    return torch.lerp(new, past, share).clamp_min(LEAST_PROBABILITY).log()


def on_grid(scores: Tensor, grid: tuple[int, int], picture: tuple[int, int] | None = None) -> Tensor:
    """Bring a network's scores, 1 x C x any size, to the grid; `picture` as in `fuse`."""
    if picture is None:
        return resize(scores, grid)
    return resample(scores, grid, picture, source_half_pixel=True, target_half_pixel=False)


def update(carried: Tensor, fresh: Tensor, apart: Tensor, picture: tuple[int, int] | None = None) -> Tensor:
    """Carried logits, and where the picture is not what the past lets expect, fresh ones: 1 x C x h x w.

    Args:
        carried: 1 x C x h x w, logits of the past at their new places.
        fresh: 1 x C x any size, logits of the current frame, seen at low resolution.
        apart: 1 x 1 x h x w, see `difference`.
        picture: as in `fuse`, of the fresh logits.
    """
    fresh = on_grid(fresh.float(), (carried.shape[2], carried.shape[3]), picture)
    return torch.lerp(fresh, carried, _likeness(apart, UPDATE_TOLERANCE))


def _likeness(apart: Tensor, tolerance: float) -> Tensor:
    return torch.exp(-((apart / tolerance) ** 2))
