"""EfficientNet-Lite0, an image classifier made for 8 bit integers, and its encoder.

EfficientNet (Tan and Le, ICML 2019) is a stack of inverted residual blocks (Sandler et al., CVPR 2018); its Lite
variant has ReLU6 and no squeeze-and-excitation. State-dict keys are those of the public file.

Padding is TensorFlow's "same": where it cannot be even on both sides, the bottom and the right get one more, so that
strided convolutions sample other pixels than with PyTorch's own padding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEM_WIDTH = 32
HEAD_WIDTH = 1280
# One row per stage: blocks, kernel, stride of the first block, factor of expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# Of the maps at strides 4, 8, 16 and 32: the last stage at each stride.
ENCODER_WIDTHS = (24, 40, 112, 320)
BN_EPS, BN_MOMENTUM = 1e-3, 0.01


class SameConv2d(nn.Conv2d):
    """Convolution without bias, padded as TensorFlow does: ceil(size / stride) values come out.

    Attributes:
        keeps_precision: it is not to be computed in 8 bit integers.
        trained_by: computes the convolution while training instead of PyTorch: of the padded input, weights, stride.
    """

    keeps_precision = False
    trained_by: Callable[[Tensor, Tensor, int], Tensor] | None = None

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(channels_in, channels, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        vertical, horizontal = (
            same_padding(int(size), kernel, stride)
            for size, kernel, stride in zip(x.shape[2:], self.kernel_size, self.stride, strict=True)
        )
        if self.training and self.trained_by is not None:
            return self.trained_by(F.pad(x, (*horizontal, *vertical)), self.weight, self.stride[0])
        if vertical[0] == vertical[1] and horizontal[0] == horizontal[1]:
            padding = vertical[0], horizontal[0]
            return F.conv2d(x, self.weight, None, self.stride, padding, groups=self.groups)
        x = F.pad(x, (*horizontal, *vertical))
        return F.conv2d(x, self.weight, None, self.stride, groups=self.groups)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros before and behind a side of `size` values that make ceil(size / stride) values come out."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter each channel by itself, project to few; with a shortcut where sizes allow.

    Args:
        channels_in, channels: of input and output.
        kernel, stride: of the depthwise convolution.
        expansion: factor on `channels_in`; 1 leaves the first convolution out.
    """

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = channels_in * expansion
        if expansion != 1:
            self._expand_conv = SameConv2d(channels_in, wide, 1)
            self._bn0 = _norm(wide)
        self._depthwise_conv = SameConv2d(wide, wide, kernel, stride, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv = SameConv2d(wide, channels, 1)
        self._bn2 = _norm(channels)
        self._expands = expansion != 1
        self._has_shortcut = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        wide = F.relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        wide = F.relu6(self._bn1(self._depthwise_conv(wide)))
        projected = self._bn2(self._project_conv(wide))
        return x + projected if self._has_shortcut else projected


class Lite0Encoder(nn.Module):
    """Image to maps at strides 4, 8, 16 and 32, of `ENCODER_WIDTHS` channels."""

    def __init__(self):
        super().__init__()
        self._conv_stem = SameConv2d(3, STEM_WIDTH, 3, 2)
        self._bn0 = _norm(STEM_WIDTH)
        blocks: list[InvertedResidual] = []
        channels_in, strides, at = STEM_WIDTH, [], 2
        for count, kernel, stride, expansion, channels in STAGES:
            at *= stride
            for number in range(count):
                step = stride if number == 0 else 1
                blocks.append(InvertedResidual(channels_in, channels, kernel, step, expansion))
                strides.append(at)
                channels_in = channels
        self._blocks = nn.ModuleList(blocks)
        # Rounded to 8 bit integers, the convolutions at full and half resolution made more than half of what
        # rounding changes in SwiftNet's labels (on held-back pictures); in bfloat16 they take a few percent longer.
        for convolution in nn.ModuleList([self._conv_stem, *blocks[:2]]).modules():
            if isinstance(convolution, SameConv2d):
                convolution.keeps_precision = True
        # The last block at each stride, but for the first ones at stride 2.
        self._taps = {len(strides) - 1 - strides[::-1].index(stride) for stride in (4, 8, 16, 32)}

    def forward(self, x: Tensor) -> list[Tensor]:
        """Compute the maps, finest first.

        Args:
            x: B x 3 x H x W, RGB, normalised with `LITE0_MEAN_RGB` and `LITE0_STD_RGB`.

        Returns:
            Four tensors B x C x ceil(H / s) x ceil(W / s) for s = 4, 8, 16, 32.
        """
        x = F.relu6(self._bn0(self._conv_stem(x)))  # B x 32 x H/2 x W/2
        maps = []
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in self._taps:
                maps.append(x)
        return maps


class EfficientNetLite0(Lite0Encoder):
    """The whole classifier, as in the public file.

    Args:
        num_classes: of ImageNet.
    """

    def __init__(self, num_classes: int = 1000):
        super().__init__()
        self._conv_head = SameConv2d(ENCODER_WIDTHS[-1], HEAD_WIDTH, 1)
        self._bn1 = _norm(HEAD_WIDTH)
        self._fc = nn.Linear(HEAD_WIDTH, num_classes)

    def classify(self, x: Tensor) -> Tensor:
        """Compute class scores, B x num_classes, of pictures as `forward` takes them; trained at 224 x 224."""
        x = F.relu6(self._bn1(self._conv_head(self(x)[-1])))
        return self._fc(torch.mean(x, dim=(2, 3)))
