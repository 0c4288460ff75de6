"""U-Net. Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015.

Figure 1 of the paper, for one channel and two classes; each convolution but the last is 3x3, without padding, with a
ReLU behind it. 31,030,658 parameters, 150,428,424,448 multiply-adds.

    level   down: channels, side          up: channels, side
    0       1 -> 64 -> 64       572..568  128 -> 64 -> 64      392..388, then 1x1 to the classes
    1       64 -> 128 -> 128    284..280  256 -> 128 -> 128    200..196
    2       128 -> 256 -> 256   140..136  512 -> 256 -> 256    104..100
    3       256 -> 512 -> 512    68..64   1024 -> 512 -> 512    56..52
    4       512 -> 1024 -> 1024  32..28

2x2/2 max pools lead down; 2x2/2 transposed convolutions, which halve the channels, lead up, to where the cropped map
of the same level is put in front.

Not in the paper, or not as it is there:
- The answer has the size of the image. `padding: mirror` is the paper's: the image is mirrored at its edges (the
  overlap-tile strategy), 92 pixels on each side and as many more as the pools need; so an image of 388 pixels is the
  figure's of 572. `padding: same` pads each convolution by zeros instead, at less than half of the cost.
- `width` is the number of channels of level 0, 64 in the paper; `dropout` stands where it was in the authors' files,
  behind levels 3 and 4.
- Cross-entropy without the paper's weights for the gaps between cells.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from cnnbench.models.layers import MASK, Conv2d, Net, he_normal

LEVELS = 5
MULTIPLE = 2 ** (LEVELS - 1)  # pixels of the image for one of the lowest map
BORDER = 92  # pixels that convolutions without padding lose on each side, on the way down and up
ROUND = 4  # the answer of such a net is a multiple of 16, plus so many pixels


def block(in_channels: int, channels: int, padding: int, dropout: float = 0.0) -> nn.Sequential:
    """Two convolutions with their ReLUs."""
    layers: list[nn.Module] = [
        Conv2d(in_channels, channels, 3, padding=padding), nn.ReLU(),
        Conv2d(channels, channels, 3, padding=padding), nn.ReLU(),
    ]  # fmt: skip
    return nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []))


class Up(nn.Module):
    """One level up: maps at twice their size, and beside them those that were kept on the way down."""

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
        self.block = block(2 * channels, channels, padding)

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        x = self.enlarge(x)
        joined: Tensor = self.block(torch.cat([centre(kept, x), x], dim=1))
        return joined


class UNet(Net):
    """U-Net: a score for each class at each pixel of images of any size."""

    answers, any_size = MASK, True
    image_size = 388

    def __init__(self, *, num_classes: int = 2, in_channels: int = 3, width: int = 64, dropout: float = 0.5,
                 padding: Literal["mirror", "same"] = "mirror") -> None:  # fmt: skip
        super().__init__()
        self.mirror = padding == "mirror"
        channels = [width << level for level in range(LEVELS)]
        zeros, drops = 0 if self.mirror else 1, [0.0] * (LEVELS - 2) + [dropout] * 2
        inputs = [in_channels, *channels[:-1]]
        self.down = nn.ModuleList(map(block, inputs, channels, [zeros] * LEVELS, drops))
        self.pool = nn.MaxPool2d(2, stride=2)
        upper = list(reversed(channels[:-1]))
        self.up = nn.ModuleList(Up(count, zeros) for count in upper)
        self.score = Conv2d(width, num_classes, 1)
        he_normal(self)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        """Stages: the blocks on the way down (stem, down1, …) and up (up3, …, up0), then the scores."""
        down = {f"down{level}" if level else "stem": [block] for level, block in enumerate(self.down)}
        up = {f"up{level}": [part] for level, part in zip(reversed(range(LEVELS - 1)), self.up, strict=True)}
        return {**down, **up, "head": [self.score]}

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = self.bordered(x)  # 1 x 388 x 388 -> 1 x 572 x 572
        kept = []
        for block in self.down[:-1]:
            x = block(x)  # 64 x 568 -> 128 x 280 -> 256 x 136 -> 512 x 64
            kept.append(x)
            x = self.pool(x)
        x = self.down[-1](x)  # 1024 x 28 x 28
        for up in self.up:
            x = up(x, kept.pop())  # 512 x 52 -> 256 x 100 -> 128 x 196 -> 64 x 388
        scores: Tensor = self.score(x)
        return scores[..., :height, :width]

    def bordered(self, x: Tensor) -> Tensor:
        """Images with what the net loses at their edges mirrored, and filled up to a size that its pools can halve."""
        before, rest = (BORDER, ROUND) if self.mirror else (0, 0)
        for dim in (2, 3):
            side = x.shape[dim]
            after = before + (rest - side) % MULTIPLE
            x = x.index_select(dim, mirrored(torch.arange(-before, side + after, device=x.device), side))
        return x


def mirrored(places: Tensor, side: int) -> Tensor:
    """Places int64 along a line of `side` pixels, for places beyond its ends too: the line goes back and forth."""
    last = torch.arange(side, device=places.device)[-1]  # a tensor: ONNX knows no remainder by a free side
    return (places + last).remainder((2 * last).clamp(min=1)).sub(last).abs()


def centre(maps: Tensor, like: Tensor) -> Tensor:
    """Middle of larger maps, of the size of others."""
    top, left = ((maps.shape[dim] - like.shape[dim]) // 2 for dim in (2, 3))
    return maps[..., top : top + like.shape[2], left : left + like.shape[3]]


MODELS: dict[str, Callable[..., Net]] = {"unet": UNet}
