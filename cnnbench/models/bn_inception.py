"""BN-Inception. Ioffe and Szegedy, "Batch Normalization", 2015: GoogLeNet with BatchNorm, and two 3x3 for each 5x5.

    layer         kernel   output
    conv1         7x7/2     64 x 112 x 112   max pool 3x3/2 follows: 64 x 56 x 56
    conv2, conv3  1x1, 3x3 192 x 56 x 56     max pool 3x3/2 follows: 192 x 28 x 28
    3a, 3b, 3c             576 x 14 x 14     MODULES below (Figure 5 of the paper); 3c and 4e stride
    4a … 4e               1024 x 7 x 7
    5a, 5b                1024 x 7 x 7
    average pool, linear

34 layers deep, 11,194,984 parameters; no dropout, response norm or auxiliary classifiers.

Not in the paper, or not as it is there:
- Figure 5 gives 4c and 4d a pool projection of 128, with which their filters sum to 608, and prints 576 (and 1024 after
  4e). With 96 every printed output holds, and so it is in Google's own published code: the default here.
  `pool_proj: 128` is the other reading, which the Caffe port has, and its 1,056 channels after 4e.
- Its 13.6 M parameters cannot be had from its own table.
- conv1 is a plain 7x7; the paper's is separable (`separable_stem`).
- `conv_bias` gives each convolution the biases that the Caffe port has; BatchNorm cancels them.
- The pools of 3c and 4e pad as the convolutions beside them do, so that the maps agree at any size.
- The paper names no initialisation. It is He's here.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from cnnbench.models.layers import ConvUnit, Linear, Net, he_normal, separate

# Filters: 1x1; 3x3 reduce, 3x3; double 3x3 reduce, double 3x3; pool projection (0: as many as come in) and its pool.
Filters = tuple[int, int, int, int, int, int, str]
STRIDES = ("3c", "4e")


def modules(proj: int) -> dict[str, Filters]:
    return {
        "3a": (64, 64, 64, 64, 96, 32, "avg"),
        "3b": (64, 64, 96, 64, 96, 64, "avg"),
        "3c": (0, 128, 160, 64, 96, 0, "max"),
        "4a": (224, 64, 96, 96, 128, 128, "avg"),
        "4b": (192, 96, 128, 96, 128, 128, "avg"),
        "4c": (160, 128, 160, 128, 160, proj, "avg"),
        "4d": (96, 128, 192, 160, 192, proj, "avg"),
        "4e": (0, 128, 192, 192, 256, 0, "max"),
        "5a": (352, 192, 320, 160, 224, 128, "avg"),
        "5b": (352, 192, 320, 192, 224, 128, "max"),
    }


class Inception(nn.Module):
    """Up to four parallel branches. A module with stride has no 1x1 branch and no pool projection."""

    def __init__(self, in_channels: int, filters: Filters, stride: int, bias: bool) -> None:
        super().__init__()
        one, reduce3, three, reduce33, double, proj, pool = filters
        self.out_channels = one + three + double + (proj or in_channels)
        if one:
            self.branch1 = ConvUnit(in_channels, one, 1, bias=bias)
        self.branch2 = nn.Sequential(
            ConvUnit(in_channels, reduce3, 1, bias=bias),
            ConvUnit(reduce3, three, 3, stride, padding=1, bias=bias),
        )
        self.branch3 = nn.Sequential(
            ConvUnit(in_channels, reduce33, 1, bias=bias),
            ConvUnit(reduce33, double, 3, padding=1, bias=bias),
            ConvUnit(double, double, 3, stride, padding=1, bias=bias),
        )
        pools = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}
        self.branch4 = nn.Sequential(pools[pool](3, stride=stride, padding=1))
        if proj:
            self.branch4.append(ConvUnit(in_channels, proj, 1, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class BNInception(Net):
    """The net above."""

    image_size = 224

    def __init__(self, *, num_classes: int = 1000, in_channels: int = 3, pool_proj: Literal[96, 128] = 96,
                 conv_bias: bool = False, separable_stem: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.conv1 = ConvUnit(in_channels, 64, 7, 2, padding=3, bias=conv_bias)
        if separable_stem:
            separate(self.conv1)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = ConvUnit(64, 64, 1, bias=conv_bias)
        self.conv3 = ConvUnit(64, 192, 3, padding=1, bias=conv_bias)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        channels = 192
        for name, filters in modules(pool_proj).items():
            module = Inception(channels, filters, 2 if name in STRIDES else 1, conv_bias)
            self.add_module(f"inception{name}", module)
            channels = module.out_channels
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), Linear(channels, num_classes)
        he_normal(self)

    def inceptions(self, number: str = "") -> list[nn.Module]:
        """Modules of one map size (3, 4 or 5), or all of them."""
        return [module for name, module in self.named_children() if name.startswith(f"inception{number}")]

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {
            "stem": [self.conv1, self.maxpool1, self.conv2, self.conv3, self.maxpool2],
            "inception3": self.inceptions("3"),
            "inception4": self.inceptions("4"),
            "inception5": self.inceptions("5"),
            "head": [self.avgpool, self.fc],
        }

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool1(self.conv1(x))  # 3 x 224 x 224 -> 64 x 112 x 112 -> 64 x 56 x 56
        x = self.maxpool2(self.conv3(self.conv2(x)))  # 192 x 28 x 28
        for inception in self.inceptions():  # 576 x 14 x 14 after 3c, 1024 x 7 x 7 after 4e
            x = inception(x)
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))  # 1024 -> classes
        return logits


MODELS: dict[str, Callable[..., Net]] = {"bn_inception": BNInception}
