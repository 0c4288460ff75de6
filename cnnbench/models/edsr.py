"""EDSR, baseline. Lim, Son, Kim, Nah & Lee, Enhanced Deep Residual Networks for Single Image Super-Resolution, 2017
(arXiv 1707.02921).

Residual blocks without normalisation on the small image, then convolutions whose channels are shuffled into pixels:

    head   3 x 3, 64
    body   16 x (3 x 3, 64, ReLU, 3 x 3, 64, added to its input), 3 x 3, 64, added to the head's output
    tail   x2: 3 x 3, 256, shuffle      x3: 3 x 3, 576, shuffle      x4: twice as x2;      3 x 3, C

    parameters for x2, x3, x4 in colour: 1,369,859 / 1,554,499 / 1,517,571 (published: 1.37 / 1.55 / 1.52 million)

Names of the parameters are the authors' (EDSR-PyTorch), so inside the net pixels are in 0..255 less the mean of DIV2K,
as theirs are. The mean is a constant here, a frozen layer there. The loss is the absolute difference.
`blocks` and `width` make smaller nets. For one channel the mean is that of the three.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from cnnbench.models.enlarging import Enlarger, Scale, exactly
from cnnbench.models.layers import Net

RANGE = 255.0
MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K's pixels
SQUARE = 48  # pixels of the small image: the side of a training square


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3x3(width, width), nn.ReLU(), conv3x3(width, width))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x)
        return result


class Edsr(Enlarger):
    norm = 1

    def __init__(self, *, in_channels: int, scale: int, blocks: int, width: int) -> None:
        super().__init__(scale, in_channels)
        self.image_size = SQUARE * scale
        self.head = nn.Sequential(conv3x3(in_channels, width))
        self.body = nn.Sequential(*(Block(width) for _ in range(blocks)), conv3x3(width, width))
        self.tail = nn.Sequential(upsampler(scale, width), conv3x3(width, in_channels))
        mean = MEAN if in_channels == 3 else (sum(MEAN) / 3,)
        self.register_buffer("mean_pixel", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.mean_pixel: Tensor

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {"stem": [self.head], "body": [self.body], "head": [self.tail]}

    @property
    def radius(self) -> int:
        """A convolution of the large image reaches less than a pixel of the small one: counted as one."""
        return sum(isinstance(module, nn.Conv2d) for module in self.modules())

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(RANGE * (x - self.mean_pixel))  # 64 x h x w
        x = x + self.body(x)
        x = exactly(self.tail[1], self.tail[0](x))  # C x scale h x scale w
        return x / RANGE + self.mean_pixel


def conv3x3(in_channels: int, channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, padding=1)


def upsampler(scale: int, width: int) -> nn.Sequential:
    steps = [2, 2] if scale == 4 else [scale]
    return nn.Sequential(
        *(layer for step in steps for layer in (conv3x3(width, step * step * width), nn.PixelShuffle(step)))
    )


def edsr_baseline(*, in_channels: Literal[1, 3] = 3, scale: Scale = 3, blocks: int = 16, width: int = 64) -> Edsr:
    return Edsr(in_channels=in_channels, scale=scale, blocks=blocks, width=width)


MODELS: dict[str, Callable[..., Net]] = {"edsr_baseline": edsr_baseline}
