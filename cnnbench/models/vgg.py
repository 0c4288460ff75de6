"""VGG. Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014.

Table 1 of the paper: COLUMNS below, one column to a line. Every convolution is 3x3 with padding 1 (`/1`: 1x1) and is
followed by a ReLU, every `M` is a 2x2/2 max pool; then fc 4096, fc 4096 and fc 1000.

    column   net          weight layers   parameters
    A        vgg11              11        132,863,336
    A-LRN    vgg11_lrn          11        132,863,336
    B        vgg13              13        133,047,848
    C        vgg16_c            16        133,638,952
    D        vgg16              16        138,357,544
    E        vgg19              19        143,667,240

Not in the paper, or not as it is there:
- The `_bn` forms have BatchNorm after each convolution; they are torchvision's, whose parameter names all these share,
  but for `vgg16_c_bn`, which torchvision has not. `width` is a factor on all channels and units, for small images.
- Between the last pool and fc6 stands an average pool to 7 x 7: the identity at 224 pixels, for other sizes
  torchvision's way through.
- `init: he` by default. The paper drew A's weights from a normal distribution of variance 0.01 (`init: paper`), which
  multiplies the signal by up to 11 in a layer, and started the deeper nets from a trained A; its authors later found
  that an initialisation scaled to the number of inputs (Glorot and Bengio, 2010) makes that needless. He's is that one
  for ReLUs; the linear layers have N(0, 0.01^2), as torchvision's.
- The response norm of A-LRN is AlexNet's, as the paper says; it found no use in it.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn

from cnnbench.models.alexnet import response_norm
from cnnbench.models.layers import Conv2d, Linear, Net, convolved, he_normal, normal

Init = Literal["he", "paper"]

COLUMNS = {
    "A":     "64     M   128     M   256 256         M   512 512         M   512 512         M",
    "A-LRN": "64 LRN M   128     M   256 256         M   512 512         M   512 512         M",
    "B":     "64 64  M   128 128 M   256 256         M   512 512         M   512 512         M",
    "C":     "64 64  M   128 128 M   256 256 256/1   M   512 512 512/1   M   512 512 512/1   M",
    "D":     "64 64  M   128 128 M   256 256 256     M   512 512 512     M   512 512 512     M",
    "E":     "64 64  M   128 128 M   256 256 256 256 M   512 512 512 512 M   512 512 512 512 M",
}  # fmt: skip


def scaled(channels: int, width: float) -> int:
    return max(1, round(width * channels))


def feature_layers(column: str, in_channels: int, bn: bool, width: float = 1.0) -> list[nn.Module]:
    """Layers of a column, up to the last pool. width: factor on the channels."""
    layers: list[nn.Module] = []
    for entry in column.split():
        if entry == "M":
            layers.append(nn.MaxPool2d(2, stride=2))
        elif entry == "LRN":
            layers.append(response_norm())
        else:
            number, _, one = entry.partition("/")
            kernel, channels = 1 if one else 3, scaled(int(number), width)
            layers.append(Conv2d(in_channels, channels, kernel, padding=kernel // 2))
            in_channels = channels
            layers += [nn.BatchNorm2d(in_channels), nn.ReLU()] if bn else [nn.ReLU()]
    return layers


class VGG(Net):
    """VGG net of one column, with or without BatchNorm."""

    image_size = 224

    def __init__(self, column: str, bn: bool, *, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5,
                 init: Init = "he", width: float = 1.0) -> None:  # fmt: skip
        super().__init__()
        last, units = scaled(512, width), scaled(4096, width)
        self.features = nn.Sequential(*feature_layers(COLUMNS[column], in_channels, bn, width))
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            Linear(last * 7 * 7, units), nn.ReLU(), nn.Dropout(dropout),
            Linear(units, units), nn.ReLU(), nn.Dropout(dropout),
            Linear(units, num_classes),
        )  # fmt: skip
        if init == "he":
            he_normal(self, linear_std=0.01)
        else:
            normal(self, std=0.1)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        """Stages: one up to each pool (stem, conv2, …, conv5), then the linear layers."""
        names = iter(("stem", "conv2", "conv3", "conv4", "conv5"))
        stages: dict[str, list[nn.Module]] = {}
        part: list[nn.Module] = []
        for layer in self.features:
            part.append(layer)
            if isinstance(layer, nn.MaxPool2d):
                stages[next(names)], part = part, []
        classifier = list(self.classifier)
        return {**stages, "fc6": [self.avgpool, *classifier[:3]], "fc7": classifier[3:6], "head": classifier[6:]}

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)  # 3 x 224 x 224 -> 64 x 112 -> 128 x 56 -> 256 x 28 -> 512 x 14 -> 512 x 7 x 7
        x = self.avgpool(x).flatten(1)  # 25088
        logits: Tensor = self.classifier(x)  # 4096 -> 4096 -> classes
        return logits

    def dense(self, x: Tensor) -> Tensor:
        return convolved(self.features(x), self.classifier, 7)


MODELS: dict[str, Callable[..., Net]] = {
    "vgg11": partial(VGG, "A", False),
    "vgg11_lrn": partial(VGG, "A-LRN", False),
    "vgg13": partial(VGG, "B", False),
    "vgg16_c": partial(VGG, "C", False),
    "vgg16": partial(VGG, "D", False),
    "vgg19": partial(VGG, "E", False),
    "vgg11_bn": partial(VGG, "A", True),
    "vgg13_bn": partial(VGG, "B", True),
    "vgg16_c_bn": partial(VGG, "C", True),
    "vgg16_bn": partial(VGG, "D", True),
    "vgg19_bn": partial(VGG, "E", True),
}
