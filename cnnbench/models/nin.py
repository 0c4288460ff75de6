"""Network in Network. Lin, Chen and Yan, 2013: each convolution is followed by a small net of its own, two 1x1 layers.

    nin (ImageNet), 7,595,176 parameters            nin_cifar, 966,986 parameters
    11x11/4,   96   1x1,   96   1x1,   96           5x5, 192   1x1, 160   1x1,  96
    max pool 3x3/2                                  max pool 3x3/2, dropout 0.5
    5x5,      256   1x1,  256   1x1,  256           5x5, 192   1x1, 192   1x1, 192
    max pool 3x3/2                                  max pool 3x3/2, dropout 0.5
    3x3,      384   1x1,  384   1x1,  384           3x3, 192   1x1, 192   1x1, classes
    max pool 3x3/2, dropout 0.5                     average pool over the whole map
    3x3,     1024   1x1, 1024   1x1, classes
    average pool over the whole map

Each layer, the last one too, ends in a ReLU. There is no linear layer: the last 1x1 makes one map for each class, and
the mean of that map is the logit.

Where the paper leaves gaps, the definitions that its authors published fill them: the ImageNet net, which is not in the
paper at all; pools that round up (54 -> 27 -> 13 -> 6, 32 -> 16 -> 8); conv1 of the ImageNet net without padding.

`init: he` by default, with two changes, since the last ReLU dies easily: what all features have in common lets a few
steps push a whole class map below zero, and a map that is zero for every image has no gradient left. On the digits that
cost one class or more in most runs. The last layer has N(0, 0.05^2) and biases of 10, which the softmax does not notice
and which keep its maps away from zero until the net tells classes apart; and each filter but the first layer's has its
mean taken out, so that it does not answer to what all channels have in common. `init: paper` is N(0, 0.05^2) with zero
biases throughout, as the CIFAR definition has it; it needs much longer to start.

`final_relu: false` leaves out the last ReLU: the logits are then linear in the features, as a new classifier on top of
trained ones has to be.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from cnnbench.models.layers import Conv2d, Net, he_normal, normal

Init = Literal["he", "paper"]
CLASSES = 0  # in the tables: as many filters as there are classes

# kernel, stride and padding of the convolution; filters of the three layers; whether dropout follows the pool
Block = tuple[int, int, int, tuple[int, int, int], bool]
IMAGENET: tuple[Block, ...] = (
    (11, 4, 0, (96, 96, 96), False),
    (5, 1, 2, (256, 256, 256), False),
    (3, 1, 1, (384, 384, 384), True),
    (3, 1, 1, (1024, 1024, CLASSES), False),
)
CIFAR: tuple[Block, ...] = (
    (5, 1, 2, (192, 160, 96), True),
    (5, 1, 2, (192, 192, 192), True),
    (3, 1, 1, (192, 192, CLASSES), False),
)


@torch.no_grad()
def take_means_out(layers: list[Conv2d]) -> None:
    for layer in layers:
        layer.weight -= layer.weight.mean(dim=(1, 2, 3), keepdim=True)


class NiN(Net):
    """Net of one table: `mlpconv1`, `mlpconv2`, … in turn; `head` is the last 1x1 layer."""

    def __init__(self, blocks: tuple[Block, ...], image_size: int, *, num_classes: int, in_channels: int,
                 dropout: float, init: Init, final_relu: bool) -> None:  # fmt: skip
        super().__init__()
        self.image_size = image_size
        for number, (kernel, stride, padding, (a, b, c), drops) in enumerate(blocks, start=1):
            block = nn.Sequential(
                Conv2d(in_channels, a, kernel, stride, padding), nn.ReLU(), Conv2d(a, b, 1), nn.ReLU()
            )
            self.add_module(f"mlpconv{number}", block)
            if c != CLASSES:
                block.extend([Conv2d(b, c, 1), nn.ReLU(), nn.MaxPool2d(3, stride=2, ceil_mode=True)])
                if drops:
                    block.append(nn.Dropout(dropout))
            in_channels = c
        last = nn.ReLU() if final_relu else nn.Identity()
        self.head = nn.Sequential(Conv2d(b, num_classes, 1), last, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        if init == "he":
            he_normal(self)
            take_means_out([layer for layer in self.modules() if isinstance(layer, Conv2d)][1:])
            normal(self.head, std=0.05, bias=10.0)
        else:
            normal(self, std=0.05)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {{"mlpconv1": "stem"}.get(name, name): [block] for name, block in self.named_children()}

    def forward(self, x: Tensor) -> Tensor:
        for block in self.children():  # ImageNet: 96 x 27 x 27, 256 x 13 x 13, 384 x 6 x 6, 1024 x 6 x 6, classes
            x = block(x)  # CIFAR: 96 x 16 x 16, 192 x 8 x 8, 192 x 8 x 8, classes
        return x


def nin(*, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5, init: Init = "he",
        final_relu: bool = True) -> NiN:  # fmt: skip
    return NiN(IMAGENET, 224, num_classes=num_classes, in_channels=in_channels, dropout=dropout, init=init,
               final_relu=final_relu)  # fmt: skip


def nin_cifar(*, num_classes: int = 10, in_channels: int = 3, dropout: float = 0.5, init: Init = "he",
        final_relu: bool = True) -> NiN:  # fmt: skip
    return NiN(CIFAR, 32, num_classes=num_classes, in_channels=in_channels, dropout=dropout, init=init,
               final_relu=final_relu)  # fmt: skip


MODELS: dict[str, Callable[..., Net]] = {"nin": nin, "nin_cifar": nin_cifar}
