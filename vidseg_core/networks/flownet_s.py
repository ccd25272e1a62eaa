"""FlowNetS (Dosovitskiy et al., ICCV 2015; FlowNet 2.0, CVPR 2017) in the two layouts that public weights come in.

The layers are the same; what goes in, how maps are enlarged and what comes out are not. `UpstreamFlowNetS` is the one
that SwNet-seq was published with, `FlowNet2S` is NVIDIA's. Their state dicts differ in the four `upsampled_flow*.bias`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 64


def conv(channels_in: int, channels: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2), nn.LeakyReLU(0.1, inplace=True))


def predict_flow(channels_in: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, 2, 3, padding=1)


class FlowNetSLayers(nn.Module):
    """The layers that both layouts share.

    Args:
        padding: of the transposed convolutions; with 0 their results are cropped to the skip's size, top left.
        flow_bias: whether the transposed convolutions of the flow have a bias.
    """

    def __init__(self, padding: int, flow_bias: bool):
        super().__init__()

        def deconv(channels_in: int, channels: int) -> nn.Sequential:
            return nn.Sequential(
                nn.ConvTranspose2d(channels_in, channels, 4, 2, padding), nn.LeakyReLU(0.1, inplace=True)
            )

        def upsampled_flow() -> nn.ConvTranspose2d:
            return nn.ConvTranspose2d(2, 2, 4, 2, padding, bias=flow_bias)

        self.conv1 = conv(6, 64, 7, 2)
        self.conv2 = conv(64, 128, 5, 2)
        self.conv3 = conv(128, 256, 5, 2)
        self.conv3_1 = conv(256, 256)
        self.conv4 = conv(256, 512, stride=2)
        self.conv4_1 = conv(512, 512)
        self.conv5 = conv(512, 512, stride=2)
        self.conv5_1 = conv(512, 512)
        self.conv6 = conv(512, 1024, stride=2)
        self.conv6_1 = conv(1024, 1024)
        self.deconv5 = deconv(1024, 512)
        self.deconv4 = deconv(1026, 256)
        self.deconv3 = deconv(770, 128)
        self.deconv2 = deconv(386, 64)
        self.predict_flow6 = predict_flow(1024)
        self.predict_flow5 = predict_flow(1026)
        self.predict_flow4 = predict_flow(770)
        self.predict_flow3 = predict_flow(386)
        self.predict_flow2 = predict_flow(194)
        self.upsampled_flow6_to_5 = upsampled_flow()
        self.upsampled_flow5_to_4 = upsampled_flow()
        self.upsampled_flow4_to_3 = upsampled_flow()
        self.upsampled_flow3_to_2 = upsampled_flow()

    def features(self, pair: Tensor) -> Tensor:
        """Compute the features that the last flow is predicted from: B x 6 x H x W -> B x 194 x H/4 x W/4."""
        c2 = self.conv2(self.conv1(pair))
        c3 = self.conv3_1(self.conv3(c2))
        c4 = self.conv4_1(self.conv4(c3))
        c5 = self.conv5_1(self.conv5(c4))
        x = self.conv6_1(self.conv6(c5))
        for skip, level in ((c5, 6), (c4, 5), (c3, 4), (c2, 3)):
            h, w = skip.shape[2:]
            flow = getattr(self, f"predict_flow{level}")(x)
            flow = getattr(self, f"upsampled_flow{level}_to_{level - 1}")(flow)
            finer = getattr(self, f"deconv{level - 1}")(x)
            x = torch.cat((skip, finer[:, :, :h, :w], flow[:, :, :h, :w]), 1)
        return x


class UpstreamFlowNetS(FlowNetSLayers):
    """The FlowNetS of SwNet-seq's published code: quarter pixels at 1/8 of its input."""

    def __init__(self):
        super().__init__(padding=0, flow_bias=True)

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """Compute the flow from `current` to `previous`.

        Args:
            current: B x 3 x h x w, normalised BGR.
            previous: the same for the frame before.

        Returns:
            B x 2 x h/8 x w/8, (u, v) in quarter pixels of the input.
        """
        features = self.features(torch.cat((previous, current), 1))
        return self.predict_flow2(F.avg_pool2d(features, 2))


class FlowNet2S(FlowNetSLayers):
    """NVIDIA's FlowNet2-S: pixels of its input, at its input's size."""

    def __init__(self):
        super().__init__(padding=1, flow_bias=False)

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """Compute the flow from `current` to `previous`.

        The layers fit together only where both sides are multiples of 64; other sizes are enlarged to the next ones
        and the flow is brought back.

        Args:
            current: B x 3 x H x W, RGB, 0..255, not normalised.
            previous: the same for the frame before.

        Returns:
            B x 2 x H x W, (u, v) in pixels of the input.
        """
        h, w = current.shape[2:]
        inner = (-h // STRIDE * -STRIDE, -w // STRIDE * -STRIDE)
        if inner != (h, w):
            current, previous = (
                F.interpolate(x, inner, mode="bilinear", align_corners=True) for x in (current, previous)
            )
        mean = torch.stack((current, previous), 2).mean((2, 3, 4)).view(-1, 3, 1, 1)
        pair = torch.cat((current - mean, previous - mean), 1) / 255.0
        flow = self.predict_flow2(self.features(pair)) * 20.0  # B x 2 x H/4 x W/4
        flow = F.interpolate(flow, scale_factor=4, mode="bilinear", align_corners=False)
        if inner != (h, w):
            flow = F.interpolate(flow, (h, w), mode="bilinear", align_corners=True)
            flow = flow * flow.new_tensor([(w - 1) / (inner[1] - 1), (h - 1) / (inner[0] - 1)]).view(1, 2, 1, 1)
        return flow
