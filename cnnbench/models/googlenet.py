"""GoogLeNet. Szegedy et al., "Going Deeper with Convolutions", 2014 (CVPR 2015).

    layer         kernel  output           parameters (weights)
    conv1         7x7/2    64 x 112 x 112  9,408; max pool 3x3/2 and response norm follow: 64 x 56 x 56
    conv2, conv3  1x1, 3x3 192 x 56 x 56   114,688; response norm and max pool 3x3/2 follow: 192 x 28 x 28
    3a, 3b                 480 x 28 x 28   MODULES below; max pool 3x3/2 follows: 480 x 14 x 14
    4a … 4e                832 x 14 x 14   a; max pool 3x3/2 follows: 832 x 7 x 7
    5a, 5b                1024 x 7 x 7
    average pool, dropout 0.4, linear      1,024,000

An inception module sets four branches side by side: 1x1; 1x1, 3x3; 1x1, 5x5; 3x3/1 max pool, 1x1. 22 layers deep,
6,998,552 parameters. While it trains, two auxiliary classifiers on 4a and 4d (average pool 5x5/3, 1x1 of 128, fc 1024,
dropout 0.7, fc) add 6,379,728 more, and their losses weigh 0.3 each.

Not in the paper, or not as it is there:
- Table 1 gives conv1 2.7 K parameters and 34 M operations: that is a separable 7x7, which the authors' next paper says
  they used (`separable_stem`). The text says 7x7 convolution, and so does this net. Its parameters for 4a … 5b do not
  follow from the table's own filters; ours follow from the filters.
- The paper names no initialisation. It is He's here: without BatchNorm the net learns only if the signal keeps its
  size through 22 layers.
- `bn` puts BatchNorm after each convolution and takes the response norm out.
- `modules` are the lecture's two comparisons. `direct`: without the 1x1 layers that reduce the channels before the 3x3
  and the 5x5. `one_size`: all filters 3x3, after a 1x1 as wide as makes the module cost what the paper's does.
- At 224 pixels the auxiliary pools give the 4 x 4 maps that their linear layers need; at other sizes the maps are
  pooled to that. Below 79 pixels there is no room for a 5x5 pool: the auxiliary classifiers are then skipped.

`googlenet_tv` is the net that torchvision calls GoogLeNet, and its weights load: BatchNorm, no response norm, a 3x3
where the paper has the 5x5, max pool 2x2/2 before 5a, auxiliary pools straight to 4 x 4, dropout 0.2. 6,624,904
parameters.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cnnbench.models.alexnet import response_norm
from cnnbench.models.layers import ConvUnit, Linear, Net, he_normal, separate

# Filters: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
Filters = tuple[int, int, int, int, int, int]
Modules = Literal["inception", "direct", "one_size"]


def out_channels(module: str) -> int:
    """Output channels of the four branches together."""
    one, _, three, _, five, pool = MODULES[module]
    return one + three + five + pool


def reduced(in_channels: int, reduce: int, channels: int, kernel: int, bn: bool) -> nn.Sequential:
    """Branch: a 1x1 bottleneck of `reduce` filters (0: none), then `channels` filters of kernel x kernel."""
    filters = ConvUnit(reduce or in_channels, channels, kernel, padding=kernel // 2, bn=bn)
    return nn.Sequential(ConvUnit(in_channels, reduce, 1, bn=bn), filters) if reduce else nn.Sequential(filters)


def one_size(in_channels: int, filters: Filters, bn: bool) -> nn.Sequential:
    """Module of 3x3 filters alone: as many as the four branches have, after a 1x1 that equals the number of weights."""
    one, reduce3, three, reduce5, five, pool = filters
    channels = one + three + five + pool
    weights = in_channels * (one + reduce3 + reduce5 + pool) + 9 * reduce3 * three + 25 * reduce5 * five
    return reduced(in_channels, round(weights / (in_channels + 9 * channels)), channels, 3, bn)


class Inception(nn.Module):
    """The four branches; `five` is the kernel of the third, 5 in the paper."""

    def __init__(self, in_channels: int, filters: Filters, five: int, bn: bool) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five_by_five, pool = filters
        self.branch1 = ConvUnit(in_channels, one, 1, bn=bn)
        self.branch2 = reduced(in_channels, reduce3, three, 3, bn)
        self.branch3 = reduced(in_channels, reduce5, five_by_five, five, bn)
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), ConvUnit(in_channels, pool, 1, bn=bn))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class Auxiliary(nn.Module):
    """A classifier on the maps of 4a or 4d. `pool` is the paper's average pool, or none."""

    def __init__(self, in_channels: int, num_classes: int, pool: nn.Module, bn: bool, dropout: float) -> None:
        super().__init__()
        self.pool, self.fit = pool, nn.AdaptiveAvgPool2d(4)
        self.conv = ConvUnit(in_channels, 128, 1, bn=bn)
        self.fc1, self.relu1, self.dropout = Linear(128 * 4 * 4, 1024), nn.ReLU(), nn.Dropout(dropout)
        self.fc2 = Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.fit(self.pool(x)))  # 512 or 528 x 14 x 14 -> 4 x 4 -> 128 x 4 x 4
        x = self.dropout(self.relu1(self.fc1(x.flatten(1))))  # 1024
        logits: Tensor = self.fc2(x)
        return logits


class GoogLeNet(Net):
    """GoogLeNet of the paper, or with `as_torchvision` torchvision's variant."""

    image_size = 224
    aux_weight = 0.3

    def __init__(self, *, as_torchvision: bool, num_classes: int, in_channels: int, aux: bool, bn: bool,
                 dropout: float, dropout_aux: float, modules: Modules = "inception", separable_stem: bool = False,
                 transform_input: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.transform_input = transform_input
        self.aux_image_size = 0 if as_torchvision or not aux else 79
        norm = nn.Identity if bn else response_norm
        five = 3 if as_torchvision else 5

        def inception(before: int | str, name: str) -> nn.Module:
            in_channels = before if isinstance(before, int) else out_channels(before)
            filters = MODULES[name]
            if modules == "one_size":
                return one_size(in_channels, filters, bn)
            if modules == "direct":
                filters = (filters[0], 0, filters[2], 0, *filters[4:])
            return Inception(in_channels, filters, five, bn)

        self.conv1 = ConvUnit(in_channels, 64, 7, 2, padding=3, bn=bn)
        if separable_stem:
            separate(self.conv1)
        self.maxpool1, self.norm1 = nn.MaxPool2d(3, stride=2, ceil_mode=True), norm()
        self.conv2 = ConvUnit(64, 64, 1, bn=bn)
        self.conv3 = ConvUnit(64, 192, 3, padding=1, bn=bn)
        self.norm2, self.maxpool2 = norm(), nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception3a = inception(192, "3a")
        self.inception3b = inception("3a", "3b")
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = inception("3b", "4a")
        self.inception4b = inception("4a", "4b")
        self.inception4c = inception("4b", "4c")
        self.inception4d = inception("4c", "4d")
        self.inception4e = inception("4d", "4e")
        self.maxpool4 = nn.MaxPool2d(2 if as_torchvision else 3, stride=2, ceil_mode=True)
        self.inception5a = inception("4e", "5a")
        self.inception5b = inception("5a", "5b")
        if aux:
            pool = nn.Identity if as_torchvision else lambda: nn.AvgPool2d(5, stride=3)
            self.aux1 = Auxiliary(out_channels("4a"), num_classes, pool(), bn, dropout_aux)
            self.aux2 = Auxiliary(out_channels("4d"), num_classes, pool(), bn, dropout_aux)
        self.avgpool, self.dropout = nn.AdaptiveAvgPool2d(1), nn.Dropout(dropout)
        self.fc = Linear(out_channels("5b"), num_classes)
        he_normal(self)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        three = [self.inception3a, self.inception3b, self.maxpool3]
        four = [self.inception4a, self.inception4b, self.inception4c, self.inception4d, self.inception4e, self.maxpool4]
        return {
            "stem": [self.conv1, self.maxpool1, self.norm1, self.conv2, self.conv3, self.norm2, self.maxpool2],
            "inception3": list(three),
            "inception4": list(four),
            "inception5": [self.inception5a, self.inception5b],
            "head": [*self.auxiliary.values(), self.avgpool, self.dropout, self.fc],
        }

    @property
    def auxiliary(self) -> dict[str, nn.Module]:
        return {name: head for name, head in self.named_children() if isinstance(head, Auxiliary)}

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        with_aux = self.training and bool(self.auxiliary) and min(x.shape[-2:]) >= self.aux_image_size
        if self.transform_input:
            x = from_imagenet_statistics(x)
        x = self.norm1(self.maxpool1(self.conv1(x)))  # 3 x 224 x 224 -> 64 x 112 x 112 -> 64 x 56 x 56
        x = self.maxpool2(self.norm2(self.conv3(self.conv2(x))))  # 192 x 28 x 28
        x = self.inception3b(self.inception3a(x))  # 480 x 28 x 28
        x = a = self.inception4a(self.maxpool3(x))  # 512 x 14 x 14
        x = d = self.inception4d(self.inception4c(self.inception4b(x)))  # 528 x 14 x 14
        x = self.inception4e(x)  # 832 x 14 x 14
        x = self.inception5b(self.inception5a(self.maxpool4(x)))  # 1024 x 7 x 7
        x = self.dropout(self.avgpool(x).flatten(1))  # 1024
        logits: Tensor = self.fc(x)
        return (logits, self.aux1(a), self.aux2(d)) if with_aux else logits


def from_imagenet_statistics(x: Tensor) -> Tensor:
    """Images renormalised from ImageNet's mean and std to 0.5 and 0.5, as Google's weights expect."""
    mean, std = x.new_tensor([0.485, 0.456, 0.406]), x.new_tensor([0.229, 0.224, 0.225])
    return x * (std / 0.5).view(-1, 1, 1) + ((mean - 0.5) / 0.5).view(-1, 1, 1)


def check_transform(transform_input: bool, in_channels: int) -> None:
    if transform_input and in_channels != 3:
        raise ValueError(f"transform_input is for images of 3 channels, not {in_channels}")


def googlenet(*, num_classes: int = 1000, in_channels: int = 3, aux: bool = True, bn: bool = False,
              modules: Modules = "inception", separable_stem: bool = False, dropout: float = 0.4,
              dropout_aux: float = 0.7) -> GoogLeNet:  # fmt: skip
    arguments: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels, "aux": aux, "bn": bn}
    return GoogLeNet(as_torchvision=False, modules=modules, separable_stem=separable_stem, dropout=dropout,
                     dropout_aux=dropout_aux, **arguments)  # fmt: skip


def googlenet_tv(*, num_classes: int = 1000, in_channels: int = 3, aux: bool = True, dropout: float = 0.2,
                 dropout_aux: float = 0.7, transform_input: bool = False) -> GoogLeNet:  # fmt: skip
    """`transform_input` is for torchvision's pretrained weights, which expect another normalisation."""
    check_transform(transform_input, in_channels)
    return GoogLeNet(as_torchvision=True, num_classes=num_classes, in_channels=in_channels, aux=aux, bn=True,
                     dropout=dropout, dropout_aux=dropout_aux, transform_input=transform_input)  # fmt: skip


MODELS: dict[str, Callable[..., Net]] = {"googlenet": googlenet, "googlenet_tv": googlenet_tv}
