"""LeNet-5. LeCun, Bottou, Bengio and Haffner, Gradient-Based Learning Applied to Document Recognition, 1998.

    layer                          maps        trainable   connections
    C1  5x5                        6 x 28x28         156       122,304
    S2  sum of 2x2, scaled         6 x 14x14          12         5,880
    C3  5x5, partly connected     16 x 10x10       1,516       151,600
    S4  sum of 2x2, scaled        16 x  5x5           32         2,000
    C5  5x5                      120 x  1x1       48,120        48,120
    F6  fully connected           84              10,164        10,164
    output, Euclidean RBF         10                   0           840
                                                  60,000       340,908

As in the paper: images of 32 x 32 pixels with one channel; each map of S2 and S4 has a trained coefficient and bias of
its own; maps of C3 see the maps of S2 that its Table I names; f(a) = 1.7159 tanh(2a / 3) follows every layer up to F6;
weights begin uniform within 2.4 / fan-in. The output is the negative squared distance between the 84 values of F6 and a
fixed code of +1 and -1 for each class: the cross-entropy of these logits is the paper's criterion (9) without its
constant j, the class of rubbish.

Deviations: the codes are drawn at random once, with equal odds, which the paper names as the other choice, in place of
drawings of the characters, which exist for these alone; the coefficient of S2 and S4 begins at 1/4 and the biases at
zero, which the paper leaves open; the sides of images are resized to 32, not padded from 28; images are normalised by
the mean and deviation of their own data set; SGD in place of the diagonal Levenberg-Marquardt step. Multiply-adds are
those of convolutions and products: connections without biases and without S2 and S4.

`output: linear` is what most call LeNet-5 today: a trained linear layer (850 parameters more) behind the same F6.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.models.layers import WEIGHTED, Conv2d, Linear, Net

# Table I: the maps of S2 that each map of C3 sees, by how many they are.
THREES = ((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5))
FOURS = (
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5), (0, 1, 3, 4), (1, 2, 4, 5),
    (0, 2, 3, 5),
)  # fmt: skip
SIXES = ((0, 1, 2, 3, 4, 5),)
TABLE = (THREES, FOURS, SIXES)


class Squash(nn.Module):
    """f(a) = 1.7159 tanh(2a / 3), which maps 1 to 1 and -1 to -1."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    """Sum of each 2 x 2, times a coefficient, plus a bias, of each map its own: (N, C, H, W) -> (N, C, H/2, W/2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (4 * F.avg_pool2d(x, 2)) + self.bias


class PartlyConnected(nn.Module):
    """C3: a 5 x 5 convolution whose maps each see some of the six maps before, (N, 6, H, W) -> (N, 16, H-4, W-4)."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = nn.ModuleList(
            Conv2d(sum(map(len, rows)), len(rows), 5, groups=len(rows)) for rows in TABLE
        )  # one for each number of maps seen

    def forward(self, x: Tensor) -> Tensor:
        seen = ([one for row in rows for one in row] for rows in TABLE)
        return torch.cat([conv(x[:, maps]) for conv, maps in zip(self.groups, seen, strict=True)], dim=1)


class Codes(Linear):
    """Negative squared distances (N, classes) between x (N, D) and a fixed code of +1 and -1 for each class."""

    weight: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes, bias=False)
        del self.weight
        self.register_buffer("weight", torch.randint(0, 2, (classes, features)) * 2.0 - 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            x = x.float()
            squares = x.square().sum(1, keepdim=True) + self.weight.square().sum(1)
            return 2 * F.linear(x, self.weight) - squares


class LeNet5(Net):
    image_size = 32

    def __init__(self, num_classes: int, in_channels: int, output: str) -> None:
        super().__init__()
        self.c1, self.s2 = Conv2d(in_channels, 6, 5), Subsampling(6)
        self.c3, self.s4 = PartlyConnected(), Subsampling(16)
        self.c5, self.f6 = Conv2d(16, 120, 5), Linear(120, 84)
        self.output = Codes(84, num_classes) if output == "rbf" else Linear(84, num_classes)
        self.squash = Squash()
        begin(self)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {"stem": [self.c1, self.s2], "c3": [self.c3, self.s4], "c5": [self.c5], "head": [self.f6, self.output]}

    @property
    def class_layers(self) -> list[nn.Module]:
        return [self.f6, self.output]

    def forward(self, x: Tensor) -> Tensor:
        x = self.squash(self.s2(self.squash(self.c1(x))))  # 6 x 14 x 14
        x = self.squash(self.s4(self.squash(self.c3(x))))  # 16 x 5 x 5
        x = self.squash(self.c5(x)).flatten(1)  # 120
        logits: Tensor = self.output(self.squash(self.f6(x)))
        return logits


def begin(net: LeNet5) -> None:
    """Weights uniform within 2.4 / fan-in, biases zero."""
    for layer in net.modules():
        if isinstance(layer, WEIGHTED) and not isinstance(layer, Codes):
            bound = 2.4 / layer.weight[0].numel()
            nn.init.uniform_(layer.weight, -bound, bound)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def lenet5(*, num_classes: int = 10, in_channels: int = 1, output: Literal["rbf", "linear"] = "rbf") -> LeNet5:
    return LeNet5(num_classes, in_channels, output)


MODELS: dict[str, Callable[..., Net]] = {"lenet5": lenet5}
