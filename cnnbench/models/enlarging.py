"""What nets for super-resolution share: the scale, the bicubic filter of the field, and how far they look.

The filter is Keys' with a = -0.5, as wide as a pixel of the result where the image shrinks: MATLAB's `imresize` and
Pillow's BICUBIC, in whose terms the field's numbers are published. torch has it under `antialias`; without, its filter
has a = -0.75.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.models.layers import Net

Scale = Literal[2, 3, 4]
LARGER = "a larger image"
BICUBIC = 2  # pixels of the small image, to each side, that an enlarged pixel depends on


class Enlarger(Net):
    """Net that maps images (N, C, h, w) in 0..1 to images (N, C, scale * h, scale * w), of any size.

    `image_size` is the paper's side of a training square, in pixels of the large image.
    """

    answers = LARGER
    norm = 2  # of the difference from the truth, in the loss: 2, or 1 for the absolute difference

    def __init__(self, scale: int, in_channels: int) -> None:
        super().__init__()
        self.scale, self.in_channels = scale, in_channels

    @property
    def radius(self) -> int:
        """Pixels of the small image, to each side, that a pixel of the answer depends on at most."""
        raise NotImplementedError


def enlarged(images: Tensor, scale: int) -> Tensor:
    """Floating images (N, C, h, w) at `scale` times their size, bicubic. Values may leave the range of the input."""
    return F.interpolate(images, scale_factor=float(scale), mode="bicubic", align_corners=False, antialias=True)


def reduced(images: Tensor, scale: int) -> Tensor:
    """Floating images (N, C, H, W) at 1 / scale of their size, bicubic and antialiased; `scale` divides their sides."""
    size = [side // scale for side in images.shape[2:]]
    return F.interpolate(images, size, mode="bicubic", align_corners=False, antialias=True)


def whole_blocks(images: Tensor, scale: int) -> Tensor:
    """Images (..., H, W) without the last rows and columns that the scale does not divide (the field's `modcrop`)."""
    height, width = (side - side % scale for side in images.shape[-2:])
    return images[..., :height, :width]


def exactly(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer's answer in float32, under autocast too: the 8 bits of bfloat16 are too few for an image's pixels."""
    if x.is_meta or not torch.is_autocast_enabled(x.device.type):
        answer: Tensor = layer(x)
        return answer
    with torch.autocast(x.device.type, enabled=False):
        return exactly(layer, x.float())
