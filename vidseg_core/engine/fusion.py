"""Past and new evidence on key frames: the carried scores are blended into the segmenter's where the picture agrees.

A per-frame network errs anew on every frame, so what it said of the same surface a moment ago is worth something. How
much, each pixel's colour tells: where the last key frame's picture, moved along the flow, looks like the current one,
flow was right and nothing was uncovered, and the past counts for up to `WEIGHT`; where it does not, or where it would
come from outside the image, only the new scores count.
"""

from __future__ import annotations

import cv2
import torch
from torch import Tensor

from vidseg_core.engine.geometry import View, resize
from vidseg_core.engine.warp import warp

# Chosen on streets that no training saw; weights of 0.3 to 0.5 and tolerances of 5 to 10 are about equally good.
WEIGHT = 0.5
TOLERANCE = 5.0  # grey levels
SMOOTHING = 1.0  # pixels of the grid: sensor noise and steep edges must not count as disagreement
LEAST_PROBABILITY = 1e-6


def picture(view: View) -> Tensor:
    """What later frames compare with: 1 x 3 x h x w, float32, 0..255, smoothed; owns its memory."""
    small = cv2.resize(view.image, view.grid[::-1], interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), SMOOTHING)
    return torch.from_numpy(small).permute(2, 0, 1)[None].to(view.device).float()


def past_weight(current: Tensor, past: Tensor, motion: Tensor | None) -> Tensor:
    """How much the past says about each pixel of the current frame: 1 x 1 x h x w in 0..`WEIGHT`.

    Args:
        current, past: `picture` of the two frames.
        motion: 1 x 2 x h x w, flow from the current frame to the past one; None where nothing moved.
    """
    if motion is None:
        return WEIGHT * _agreement(current, past)
    h, w = current.shape[2:]
    x = torch.arange(w, device=motion.device) + motion[:, 0]
    y = torch.arange(h, device=motion.device)[:, None] + motion[:, 1]
    inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
    return WEIGHT * _agreement(current, warp(past, motion, padding="border")) * inside[:, None]


def _agreement(a: Tensor, b: Tensor) -> Tensor:
    return torch.exp(-(((a - b).abs().mean(1, keepdim=True) / TOLERANCE) ** 2))


def fuse(scores: Tensor, carried: Tensor, weight: Tensor) -> Tensor:
    """Log-probabilities of the mixture, as large as `scores`.

    Args:
        scores: 1 x C x any size, the segmenter's logits.
        carried: 1 x C x h x w, logits of the past at their new places.
        weight: 1 x 1 x h x w, share of the past, 0..1.
    """
    size = tuple(scores.shape[2:])
    new, past, share = scores.float().softmax(1), resize(carried, size).softmax(1), resize(weight, size)
    return torch.lerp(new, past, share).clamp_min(LEAST_PROBABILITY).log()
