"""Colorful Image Colorization. Zhang, Isola and Efros, 2016: lightness in, a distribution over colours out.

    colorizer, 313 colours: 32,235,385 parameters, 41,772,122,112 multiply-adds at 256 x 256 (width 1)
    conv1   3x3,  64   3x3/2,  64                     BatchNorm
    conv2   3x3, 128   3x3/2, 128                     BatchNorm
    conv3   3x3, 256   3x3,   256   3x3/2, 256        BatchNorm
    conv4   3x3, 512   3x3,   512   3x3,   512        BatchNorm
    conv5   3x3, 512   3x3,   512   3x3,   512        BatchNorm, dilation 2
    conv6   3x3, 512   3x3,   512   3x3,   512        BatchNorm, dilation 2
    conv7   3x3, 512   3x3,   512   3x3,   512        BatchNorm
    conv8   4x4/2 transposed, 256   3x3, 256   3x3, 256
    head    1x1, colours

Each convolution but the last ends in a ReLU; the BatchNorm follows the ReLU. The answer has a quarter of the image's
rows and columns.

Names are those of the network that the authors released for PyTorch (`eccv16`), without its last layer: that has the
313 colours as fixed weights, and the softmax and the mean before it belong to the task.

`loss` is what the net is trained by, which says what it answers: `class` and `class_rebalanced` answer with logits of
313 colours, `l2` with a and b themselves (over 110), as the paper's three nets of its own.

Not as in the paper: `width` is a factor on all channels, for small images and slow machines; weights begin as He et al.
(2015) say, those of the last layer by N(0, 0.01^2), so that all colours begin as likely.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from cnnbench.models.layers import Conv2d, Net, he_normal, normal

COLOURS = "a colour for each pixel"  # of a quarter of the rows and columns: logits of 313 colours, or ab over 110
Loss = Literal["class", "class_rebalanced", "l2"]

# filters; stride of the last convolution; how many convolutions; dilation
BLOCKS = (
    (64, 2, 2, 1),
    (128, 2, 2, 1),
    (256, 2, 3, 1),
    (512, 1, 3, 1),
    (512, 1, 3, 2),
    (512, 1, 3, 2),
    (512, 1, 3, 1),
)


class Colorizer(Net):
    """Images (N, 1, H, W) of lightness -> (N, colours, H / 4, W / 4)."""

    answers = COLOURS
    image_size = 256
    any_size = True

    def __init__(self, *, num_classes: int = 313, in_channels: int = 1, width: float = 1.0,
                 loss: Loss = "class_rebalanced") -> None:  # fmt: skip
        super().__init__()
        self.in_channels = in_channels
        for number, (filters, stride, count, dilation) in enumerate(BLOCKS, start=1):
            channels = max(1, round(filters * width))
            self.add_module(f"model{number}", block(in_channels, channels, stride, count, dilation))
            in_channels = channels
        half = max(1, round(256 * width))
        self.model8 = nn.Sequential(
            ConvTranspose2d(in_channels, half, 4, stride=2, padding=1), nn.ReLU(),
            Conv2d(half, half, 3, padding=1), nn.ReLU(),
            Conv2d(half, half, 3, padding=1), nn.ReLU(),
            Conv2d(half, 2 if loss == "l2" else num_classes, 1),
        )  # fmt: skip
        self.loss = loss
        he_normal(self)
        normal(self.model8[-1:], std=0.01)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        """Stages: one for each block (stem, conv2, …, conv8), then the last layer."""
        blocks = {f"conv{number}": [self.get_submodule(f"model{number}")] for number in range(2, 8)}
        return {
            "stem": [self.get_submodule("model1")],
            **blocks,
            "conv8": [*self.model8[:-1]],
            "head": [self.model8[-1]],
        }

    def forward(self, x: Tensor) -> Tensor:
        for block in self.children():  # 64 x 128 x 128, 128 x 64, 256 x 32, 512 x 32 (four times), colours x 64 x 64
            x = block(x)
        return x


class ConvTranspose2d(nn.ConvTranspose2d):
    """nn.ConvTranspose2d that begins as He et al. (2015) say: each place of its output has a share of the kernel."""

    def reset_parameters(self) -> None:
        rows, columns = self.kernel_size[0] // self.stride[0], self.kernel_size[1] // self.stride[1]
        nn.init.normal_(self.weight, std=(2 / (self.in_channels * rows * columns)) ** 0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


def block(in_channels: int, channels: int, stride: int, count: int, dilation: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(1, count + 1):
        step = stride if number == count else 1
        layers += [Conv2d(in_channels, channels, 3, step, dilation, dilation=dilation), nn.ReLU()]
        in_channels = channels
    return nn.Sequential(*layers, nn.BatchNorm2d(channels))


MODELS: dict[str, Callable[..., Net]] = {"colorizer": Colorizer}
