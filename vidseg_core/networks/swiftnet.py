"""SwiftNet, single scale (Orsic et al., CVPR 2019), on one of several encoders.

An ImageNet classifier as encoder, spatial pyramid pooling, and a ladder decoder with lateral skips.

With ResNet-18, state-dict keys are those of the public checkpoint. Every bilinear resize in here uses
`align_corners=False`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg_core.networks import efficientnet_lite
from vidseg_core.networks.efficientnet_lite import Lite0Encoder
from vidseg_core.networks.normalisation import LITE0_MEAN_RGB, LITE0_STD_RGB, MEAN_RGB, STD_RGB

RESNET18_WIDTHS = (64, 128, 256, 512)
DECODER_WIDTH = 128
PYRAMID_GRIDS = (8, 4, 2)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around an identity or 1x1 shortcut (He et al., CVPR 2016)."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class BNReluConv(nn.Module):
    """The decoder's unit: normalise, rectify, convolve; padded to keep the size."""

    def __init__(self, channels_in: int, channels: int, kernel: int, bias: bool = False):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels_in)
        self.conv = nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(self.norm(x)))


class PyramidPooling(nn.Module):
    """Context from pooling the coarsest map to grids of 8, 4 and 2 rows, as wide as the picture's shape asks.

    Args:
        channels_in: of the coarsest map.
        width: channels of the output; each level has a third of it.
    """

    def __init__(self, channels_in: int, width: int):
        super().__init__()
        self.spp = nn.Module()
        self.spp.spp_bn = BNReluConv(channels_in, width, 1)
        for level in range(len(PYRAMID_GRIDS)):
            self.spp.add_module(f"spp{level}", BNReluConv(width, width // 3, 1))
        self.spp.spp_fuse = BNReluConv(width + len(PYRAMID_GRIDS) * (width // 3), width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, w = (int(side) for side in x.shape[2:])  # a tracer would make tensors of them
        x = self.spp.spp_bn(x)  # B x D x h x w
        levels = [x]
        for level, rows in enumerate(PYRAMID_GRIDS):
            pooled = F.adaptive_avg_pool2d(x, (rows, max(1, round(rows * w / h))))
            levels.append(resize(self.spp.get_submodule(f"spp{level}")(pooled), (h, w)))  # B x D/3 x h x w
        return self.spp.spp_fuse(torch.cat(levels, 1))  # B x D x h x w


class Upsample(nn.Module):
    """One step up the ladder: enlarge, add the encoder's skip, blend."""

    def __init__(self, skip_channels: int, width: int):
        super().__init__()
        self.bottleneck = BNReluConv(skip_channels, width, 1)
        self.blend_conv = BNReluConv(width, width, 3)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.blend_conv(resize(x, skip.shape[2:]) + self.bottleneck(skip))


class Backbone(nn.Module):
    """Image to features at stride 4: an encoder, which a subclass brings, and the decoder.

    Args:
        widths: channels of the encoder's maps at strides 4, 8, 16 and 32.
        width: channels of the decoder.

    Attributes:
        mean_rgb, std_rgb: of the pixels, 0..255, that its input is normalised with.
    """

    mean_rgb: tuple[float, float, float] = MEAN_RGB
    std_rgb: tuple[float, float, float] = STD_RGB

    def __init__(self, widths: tuple[int, int, int, int], width: int):
        super().__init__()
        self.spp = PyramidPooling(widths[-1], width)
        self.upsample = nn.ModuleList(Upsample(channels, width) for channels in reversed(widths[:-1]))

    def encode(self, x: Tensor) -> list[Tensor]:
        """Compute the encoder's maps at strides 4, 8, 16 and 32."""
        raise NotImplementedError

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over the parameters that a pretrained encoder brings."""
        decoder = {*self.spp.parameters(), *self.upsample.parameters()}
        return (parameter for parameter in self.parameters() if parameter not in decoder)

    def forward(self, x: Tensor) -> Tensor:
        *skips, x = self.encode(x)
        x = self.spp(x)  # B x D x H/32 x W/32
        for step, skip in zip(self.upsample, reversed(skips), strict=True):
            x = step(x, skip)
        return x  # B x D x H/4 x W/4


class ResNet18Backbone(Backbone):
    """SwiftNet-R18's, with the public checkpoint's keys."""

    def __init__(self, width: int):
        super().__init__(RESNET18_WIDTHS, width)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels_in = 64
        for number, channels in enumerate(RESNET18_WIDTHS, start=1):
            stride = 1 if number == 1 else 2
            layer = nn.Sequential(BasicBlock(channels_in, channels, stride), BasicBlock(channels, channels, 1))
            self.add_module(f"layer{number}", layer)
            channels_in = channels
        # The public checkpoint stores them; the forward pass takes an image that is already normalised.
        self.register_buffer("img_mean", torch.tensor(MEAN_RGB).view(1, 3, 1, 1))
        self.register_buffer("img_std", torch.tensor(STD_RGB).view(1, 3, 1, 1))

    def encode(self, x: Tensor) -> list[Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # B x 64 x H/4 x W/4
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)  # after the layer's last ReLU: the public weights were trained with that
        return maps


class Lite0Backbone(Backbone):
    """EfficientNet-Lite0 as encoder, under `encoder` with the public file's keys."""

    mean_rgb = LITE0_MEAN_RGB
    std_rgb = LITE0_STD_RGB

    def __init__(self, width: int):
        super().__init__(efficientnet_lite.ENCODER_WIDTHS, width)
        self.encoder = Lite0Encoder()

    def encode(self, x: Tensor) -> list[Tensor]:
        return self.encoder(x)


ENCODERS: dict[str, type[ResNet18Backbone] | type[Lite0Backbone]] = {"r18": ResNet18Backbone, "lite0": Lite0Backbone}


class SwiftNet(nn.Module):
    """Image to class scores.

    Args:
        num_classes: 1 to 255.
        encoder: one of `ENCODERS`.
        width: channels of the decoder, 3 or more.

    Attributes:
        encoder: the name of its encoder.
    """

    def __init__(self, num_classes: int, encoder: str = "r18", width: int = DECODER_WIDTH):
        super().__init__()
        self.encoder = encoder
        self.backbone = ENCODERS[encoder](width)
        self.logits = BNReluConv(width, num_classes, 1, bias=True)

    @property
    def num_classes(self) -> int:
        return self.logits.conv.out_channels

    def forward(self, rgb: Tensor) -> Tensor:
        """Compute class scores at stride 4.

        Args:
            rgb: B x 3 x H x W, RGB, normalised with the backbone's `mean_rgb` and `std_rgb`.

        Returns:
            B x C x ceil(H/4) x ceil(W/4), logits.
        """
        return self.logits(self.backbone(rgb))
