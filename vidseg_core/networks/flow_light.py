"""FlowLight, the small flow network that SwNet-seq was published with (187k parameters).

Both images are normalised and in BGR order. The flow is in *quarter* pixels of the input and points from the current
frame to the previous one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLOW_UNIT = 4.0  # divide the output by this to get pixels of the input


def conv_bn(channels_in: int, channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, kernel, stride, padding, dilation),
        nn.BatchNorm2d(channels),
        nn.LeakyReLU(0.1, inplace=True),
    )


class FlowLight(nn.Module):
    """Two strided convolutions, four dilated ones in a chain, merged."""

    def __init__(self):
        super().__init__()
        self.conv1 = conv_bn(6, 32, 3, stride=2)
        self.conv2 = conv_bn(32, 64, 3, stride=2)
        self.conv_dilate_1 = conv_bn(64, 64, 3, dilation=1)
        self.conv_dilate_2 = conv_bn(64, 64, 3, dilation=2)
        self.conv_dilate_3 = conv_bn(64, 64, 3, dilation=4)
        self.conv_dilate_4 = conv_bn(64, 64, 3, dilation=8)
        self.conv_merge = conv_bn(256, 64, 1)
        self.toflow = nn.Conv2d(64, 2, 3, padding=1)

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """Compute the flow from `current` to `previous`.

        Args:
            current: B x 3 x h x w, normalised BGR.
            previous: the same for the frame before.

        Returns:
            B x 2 x ceil(h/4) x ceil(w/4), (u, v) in quarter pixels of the input.
        """
        x = self.conv2(self.conv1(torch.cat((current, previous), 1)))  # B x 64 x h/4 x w/4
        d1 = self.conv_dilate_1(x)
        d2 = self.conv_dilate_2(x) + d1
        d3 = self.conv_dilate_3(x) + d2
        d4 = self.conv_dilate_4(x) + d3
        return self.toflow(self.conv_merge(torch.cat((d1, d2, d3, d4), 1)) + x)
