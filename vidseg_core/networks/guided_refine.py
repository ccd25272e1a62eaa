"""Guided refinement: repairs warped logits with what the current image shows (GSVNet's guided spatially-varying
convolution, arXiv 2103.08834, plus SwNet-seq's edge map).

Every bilinear resize in here uses `align_corners=True`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CANDIDATES = 11
OCCLUSION = 10  # the weight of the candidate that comes from the image alone: where nothing could be warped


@dataclass(frozen=True)
class Refined:
    """Attributes:
    logits: B x C x h x w.
    guide: B x 11 x h x w, weights of the candidates, 0..1, summing to 1 where any is above 0.
    edge: B x 1 x h x w, 0 or 1; None in a network without edge map.
    """

    logits: Tensor
    guide: Tensor
    edge: Tensor | None

    @property
    def occlusion(self) -> Tensor:
        """B x 1 x h x w, 0..1: how far the result rests on the current image instead of the warped past."""
        return self.guide[:, OCCLUSION : OCCLUSION + 1]


def conv_bn_relu(channels_in: int, channels: int, stride: int = 1) -> tuple[nn.Module, nn.Module, nn.Module]:
    return nn.Conv2d(channels_in, channels, 3, stride, 1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)


def label_edges(logits: Tensor) -> Tensor:
    """Mark the pixels where the labels of `logits` (B x C x h x w) change, and the border: B x 1 x h x w of 0 or 1."""
    labels = logits.argmax(1, keepdim=True).to(logits.dtype)
    laplacian = torch.ones(1, 1, 3, 3, dtype=logits.dtype, device=logits.device)
    laplacian[0, 0, 1, 1] = -8.0
    # Sums of whole numbers, but a convolution by way of Fourier or Winograd, as cuDNN may choose, rounds on its way.
    return (F.conv2d(labels, laplacian, padding=1).abs() > 0.5).to(logits.dtype)


def guided_sum(guide: Tensor, warped: Tensor, intra: Tensor) -> Tensor:
    """Sum the eleven candidates, each times its weight.

    The order is: `warped`; its shifts over the 3x3 neighbourhood, row by row without the centre, zeros outside; an
    all-zero map (which adds nothing, so its weight only takes from the others'); `intra`.

    Args:
        guide: B x 11 x h x w.
        warped: B x C x h x w.
        intra: B x C x h x w.
    """
    h, w = warped.shape[2:]
    total = guide[:, 0:1] * warped + guide[:, OCCLUSION : OCCLUSION + 1] * intra
    padded = F.pad(warped, (1, 1, 1, 1))
    neighbours = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    for k, (i, j) in enumerate(neighbours, start=1):
        total = torch.addcmul(total, guide[:, k : k + 1], padded[:, :, i : i + h, j : j + w])
    return total


class Guide(nn.Module):
    """Image features and edges to the weights of the candidates."""

    def __init__(self, channels_in: int):
        super().__init__()
        self.guide_conv = nn.Sequential(*conv_bn_relu(channels_in, 32))
        self.guide_conv_feat = nn.Sequential(*conv_bn_relu(32, 64, stride=2), *conv_bn_relu(64, 128, stride=2))
        # The modules at 0 and 4 enlarge to a size known only in `forward`.
        self.guide_deconv = nn.Sequential(nn.Identity(), *conv_bn_relu(128, 64), nn.Identity(), *conv_bn_relu(64, 32))
        self.guide_decoder = nn.Sequential(*conv_bn_relu(32, CANDIDATES))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.guide_conv(x)  # B x 32 x h x w
        half = self.guide_conv_feat[:3](fine)  # B x 64 x h/2 x w/2
        coarse = self.guide_conv_feat[3:](half)  # B x 128 x h/4 x w/4
        coarse = F.interpolate(coarse, half.shape[2:], mode="bilinear", align_corners=True)
        coarse = self.guide_deconv[1:4](coarse)
        coarse = F.interpolate(coarse, fine.shape[2:], mode="bilinear", align_corners=True)
        weights = self.guide_decoder(fine + self.guide_deconv[5:](coarse))  # B x 11 x h x w
        return weights / (weights.sum(1, keepdim=True) + 1e-9)


class GuidedRefine(nn.Module):
    """Warped logits and the current image to repaired logits.

    Args:
        num_classes: 1 to 255.
        edge: whether the guide sees where the warped labels change.
    """

    def __init__(self, num_classes: int, edge: bool = True):
        super().__init__()
        self.intra_net = nn.Sequential(
            *conv_bn_relu(3, 32), *conv_bn_relu(32, 32), nn.Conv2d(32, num_classes, 3, padding=1)
        )
        self.guide = Guide(num_classes + int(edge))
        self.edge = edge

    @property
    def num_classes(self) -> int:
        return self.intra_net[6].out_channels

    def forward(self, warped: Tensor, image: Tensor) -> Refined:
        """Repair warped logits.

        Args:
            warped: B x C x h x w, the previous logits at their new places.
            image: B x 3 x h x w, the current image on the same grid, normalised BGR.
        """
        edge = label_edges(warped) if self.edge else None
        guide, intra = self.weigh(image, edge)
        return Refined(guided_sum(guide, warped, intra), guide, edge)

    def weigh(self, image: Tensor, edge: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute by convolutions the weights (B x 11 x h x w) and the intra candidate (B x C x h x w)."""
        intra = self.intra_net(image)
        return self.guide(intra if edge is None else torch.cat((intra, edge), 1)), intra
