"""ESPCN. Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional
Neural Network, 2016 (arXiv 1609.05158).

All convolutions run on the small image; the last one gives scale x scale values for each of its pixels, which a shuffle
puts side by side:

    conv1  5 x 5, 64, tanh
    conv2  3 x 3, 32, tanh
    conv3  3 x 3, scale^2 C
    shuffle              C x scale h x scale w

    parameters for x2, x3, x4 and one channel: 21,284 / 22,729 / 24,752

Deviations: zeros are added at the edges before each convolution, so that the answer has the full size.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from cnnbench.models.enlarging import Enlarger, Scale, exactly
from cnnbench.models.layers import Conv2d, Net, he_normal

SQUARE = 17  # pixels of the small image: the side of a training square


class Espcn(Enlarger):
    def __init__(self, *, in_channels: int, scale: int) -> None:
        super().__init__(scale, in_channels)
        self.image_size = SQUARE * scale
        self.conv1 = Conv2d(in_channels, 64, 5, padding=2)
        self.conv2 = Conv2d(64, 32, 3, padding=1)
        self.conv3 = Conv2d(32, scale * scale * in_channels, 3, padding=1)
        self.tanh, self.shuffle = nn.Tanh(), nn.PixelShuffle(scale)
        he_normal(self)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {"stem": [self.conv1], "layer1": [self.conv2], "head": [self.conv3, self.shuffle]}

    @property
    def radius(self) -> int:
        return 2 + 1 + 1

    def forward(self, x: Tensor) -> Tensor:
        x = self.tanh(self.conv1(x))  # 64 x h x w
        x = self.tanh(self.conv2(x))  # 32 x h x w
        image: Tensor = self.shuffle(exactly(self.conv3, x))  # C x scale h x scale w
        return image


def espcn(*, in_channels: Literal[1, 3] = 1, scale: Scale = 3) -> Espcn:
    return Espcn(in_channels=in_channels, scale=scale)


MODELS: dict[str, Callable[..., Net]] = {"espcn": espcn}
