"""SRCNN. Dong, Loy, He & Tang, Image Super-Resolution Using Deep Convolutional Networks, 2015 (arXiv 1501.00092).

The image is enlarged by bicubic interpolation first, then three convolutions make it sharper, on the large image:

    conv1  f1 x f1, 64   patch extraction
    conv2  f2 x f2, 32   non-linear mapping
    conv3  f3 x f3,  C   reconstruction

    9-1-5   8,032 weights    9-3-5   24,416    9-5-5   57,184    (one channel)

Deviations: edges are repeated before each convolution, as in the authors' test program, in training too, where they
leave the border away. The first filters pass the image on, and the last layer's other weights are small, so that the
untrained net is about bicubic interpolation: T91 takes a minute to 31.9 dB on Set5 at x3, for which weights drawn with
the paper's deviation of 0.001 or as He et al. (2015) have it take ten times as long. Colour (in_channels=3) is section
4.5 of the paper, with all channels through one net.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from cnnbench.models.enlarging import BICUBIC, Enlarger, Scale, enlarged, exactly
from cnnbench.models.layers import Conv2d, Net, he_normal

FILTERS = (9, 5)  # sides of those of the first and the last layer
WIDTHS = (64, 32)
SMALL = 0.03  # of the last layer's weights, as a share of He's
SIDES = {2: 32, 3: 33, 4: 32}  # of a training square: the paper's 33, or what the scale divides


class Srcnn(Enlarger):
    def __init__(self, *, in_channels: int, scale: int, middle: int) -> None:
        super().__init__(scale, in_channels)
        self.image_size = SIDES[scale]
        first, last = FILTERS
        self.conv1 = edge_conv(in_channels, WIDTHS[0], first)
        self.conv2 = edge_conv(WIDTHS[0], WIDTHS[1], middle)
        self.conv3 = edge_conv(WIDTHS[1], in_channels, last)
        self.relu = nn.ReLU()
        he_normal(self)
        self.begin_as_bicubic()

    @torch.no_grad()
    def begin_as_bicubic(self) -> None:
        """Filters 0 to C pass a channel each on, untouched by the ReLUs, since pixels are not negative."""
        self.conv3.weight *= SMALL
        for conv in (self.conv1, self.conv2, self.conv3):
            middle = conv.kernel_size[0] // 2
            for channel in range(self.in_channels):
                passing = conv.weight[:, channel] if conv is self.conv3 else conv.weight[channel]
                passing.zero_()
                conv.weight[channel, channel, middle, middle] = 1

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {"stem": [self.conv1], "layer1": [self.conv2], "head": [self.conv3]}

    @property
    def radius(self) -> int:
        reach = sum(conv.kernel_size[0] // 2 for conv in (self.conv1, self.conv2, self.conv3))
        return BICUBIC + -(-reach // self.scale)

    def forward(self, x: Tensor) -> Tensor:
        x = enlarged(x, self.scale)  # C x H x W from here on: the large image
        x = self.relu(self.conv1(x))  # 64
        x = self.relu(self.conv2(x))  # 32
        return exactly(self.conv3, x)


def edge_conv(in_channels: int, channels: int, kernel: int) -> Conv2d:
    return Conv2d(in_channels, channels, kernel, padding=kernel // 2, padding_mode="replicate")


def srcnn(*, in_channels: Literal[1, 3] = 1, scale: Scale = 3, middle: Literal[1, 3, 5] = 1) -> Srcnn:
    """middle: side of the filters of the second layer."""
    return Srcnn(in_channels=in_channels, scale=scale, middle=middle)


MODELS: dict[str, Callable[..., Net]] = {"srcnn": srcnn}
