"""Pre-activation ResNet. He, Zhang, Ren and Sun, "Identity Mappings in Deep Residual Networks", 2016.

The units of resnet.py with BatchNorm and ReLU before each convolution instead of after it, so that nothing but
additions lies on the way from the first unit to the last. One more BatchNorm and ReLU follow the last unit.

    for        before the units       units                  maps         net: units in each stage
    CIFAR      3x3 conv of 16         two 3x3                16 … 64      20: 3, 32: 5, 44: 7, 56: 9, 110: 18, 1202: 200
                                      1x1, 3x3, 1x1          64 … 256     164: 18, 1001: 111
    ImageNet   7x7/2 conv of 64, BN,  two 3x3                64 … 512     18: 2 2 2 2, 34: 3 4 6 3
               ReLU, 3x3/2 max pool   1x1, 3x3, 1x1          256 … 2048   50: 3 4 6 3, 101: 3 4 23 3, 152: 3 8 36 3,
                                                                          200: 3 24 36 3

Where the number of channels changes, the shortcut is option A (zero channels) in the CIFAR nets of two 3x3, as in the
first paper, and a 1x1 convolution elsewhere. Units that change it, and the first unit of all, activate before the two
paths part; all others on the residual path alone.

Not in the paper, or not as it is there:
- The ImageNet nets already have BN and ReLU after conv1; the paper has the first unit use that one. `first_unit: own`
  gives it a BatchNorm of its own before its convolutions, as some published weights have: 128 parameters more.
- `stride_in`: which convolution of a bottleneck strides. The paper does not say; `1x1` is the first paper's place and
  gives the CIFAR nets' published counts, `3x3` is that of resnet50 and its kin.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn

from cnnbench.models.layers import Conv2d, Linear, Net, he_normal
from cnnbench.models.resnet import Blocks, Pad, PadShortcut
from cnnbench.models.stochastic_depth import Residual

StrideIn = Literal["1x1", "3x3"]
FirstUnit = Literal["shared", "own"]
# in_channels, channels, stride -> shortcut where the shape changes
MakeShortcut = Callable[[int, int, int], nn.Module]


def pad_shortcut(pad: Pad, in_channels: int, channels: int, stride: int) -> nn.Module:
    return PadShortcut(channels - in_channels, stride, pad)


def conv_shortcut(in_channels: int, channels: int, stride: int) -> nn.Module:
    return Conv2d(in_channels, channels, 1, stride, bias=False)


class Unit(Residual):
    """BN, ReLU and a convolution for each row of `convs`: (in_channels, channels, kernel, stride).

    `shared`: the first BN and ReLU come before the paths part. `first_bn`: false where the input is activated already.
    """

    def __init__(self, convs: list[tuple[int, int, int, int]], shortcut: nn.Module, shared: bool,
                 first_bn: bool = True) -> None:  # fmt: skip
        super().__init__()
        self.shared = shared
        self.activate = nn.Sequential(nn.BatchNorm2d(convs[0][0]), nn.ReLU()) if first_bn else nn.Identity()
        self.residual = nn.Sequential()
        for number, (in_channels, channels, kernel, stride) in enumerate(convs):
            if number:
                self.residual.extend([nn.BatchNorm2d(in_channels), nn.ReLU()])
            self.residual.append(Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False))
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activate(x)
        shortcut: Tensor = self.shortcut(activated if self.shared else x)
        return shortcut + self.drawn(self.residual(activated))


def make_layer(bottleneck: bool, shortcut: MakeShortcut, stride_in: StrideIn, in_channels: int, width: int, units: int,
               stride: int, first_of_all: bool = False, first_bn: bool = True) -> nn.Sequential:  # fmt: skip
    """Stage of `units` units; the first may change the number of channels and stride."""
    channels = 4 * width if bottleneck else width
    layer = nn.Sequential()
    for number in range(units):
        s = stride if number == 0 else 1
        if bottleneck:
            first, second = (s, 1) if stride_in == "1x1" else (1, s)
            convs = [(in_channels, width, 1, first), (width, width, 3, second), (width, channels, 1, 1)]
        else:
            convs = [(in_channels, width, 3, s), (width, width, 3, 1)]
        changes = in_channels != channels or s != 1
        layer.append(Unit(
            convs,
            shortcut(in_channels, channels, s) if changes else nn.Identity(),
            shared=changes or (first_of_all and number == 0),
            first_bn=first_bn or number > 0,
        ))  # fmt: skip
        in_channels = channels
    return layer


class PreActResNet(Net):
    """Pre-activation ResNet for ImageNet."""

    image_size = 224

    def __init__(self, blocks: Blocks, bottleneck: bool, *, num_classes: int, in_channels: int, first_unit: FirstUnit,
                 stride_in: StrideIn = "1x1") -> None:  # fmt: skip
        super().__init__()
        layer = partial(make_layer, bottleneck, conv_shortcut, stride_in)
        factor, own = (4 if bottleneck else 1), first_unit == "own"
        self.conv1 = Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(64), nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = layer(64, 64, blocks[0], 1, first_bn=own)
        self.layer2 = layer(64 * factor, 128, blocks[1], 2)
        self.layer3 = layer(128 * factor, 256, blocks[2], 2)
        self.layer4 = layer(256 * factor, 512, blocks[3], 2)
        self.bn, self.relu2 = nn.BatchNorm2d(512 * factor), nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = Linear(512 * factor, num_classes)
        he_normal(self)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {
            "stem": [self.conv1, self.bn1, self.relu, self.maxpool],
            "layer1": [self.layer1],
            "layer2": [self.layer2],
            "layer3": [self.layer3],
            "layer4": [self.layer4, self.bn, self.relu2],
            "head": [self.avgpool, self.fc],
        }

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # 3 x 224 x 224 -> 64 x 56 x 56
        x = self.layer1(x)  # 64 x 56 x 56; with bottlenecks, from here on four times the channels
        x = self.layer2(x)  # 128 x 28 x 28
        x = self.layer3(x)  # 256 x 14 x 14
        x = self.relu2(self.bn(self.layer4(x)))  # 512 x 7 x 7
        x = self.avgpool(x).flatten(1)  # 512
        logits: Tensor = self.fc(x)
        return logits


class CifarPreActResNet(Net):
    """Pre-activation ResNet for CIFAR: 6n + 2 weight layers, or 9n + 2 with bottlenecks."""

    image_size = 32

    def __init__(self, n: int, bottleneck: bool, shortcut: MakeShortcut, *, num_classes: int,
                 in_channels: int) -> None:  # fmt: skip
        super().__init__()
        layer = partial(make_layer, bottleneck, shortcut, "1x1")
        factor = 4 if bottleneck else 1
        self.conv1 = Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.layer1 = layer(16, 16, n, 1, first_of_all=True)
        self.layer2 = layer(16 * factor, 32, n, 2)
        self.layer3 = layer(32 * factor, 64, n, 2)
        self.bn, self.relu = nn.BatchNorm2d(64 * factor), nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = Linear(64 * factor, num_classes)
        he_normal(self)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {
            "stem": [self.conv1],
            "layer1": [self.layer1],
            "layer2": [self.layer2],
            "layer3": [self.layer3, self.bn, self.relu],
            "head": [self.avgpool, self.fc],
        }

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(self.conv1(x))  # 3 x 32 x 32 -> 16 x 32 x 32; with bottlenecks four times the channels
        x = self.layer2(x)  # 32 x 16 x 16
        x = self.relu(self.bn(self.layer3(x)))  # 64 x 8 x 8
        x = self.avgpool(x).flatten(1)  # 64
        logits: Tensor = self.fc(x)
        return logits


def imagenet_basic(blocks: Blocks, *, num_classes: int = 1000, in_channels: int = 3,
                   first_unit: FirstUnit = "shared") -> PreActResNet:  # fmt: skip
    return PreActResNet(blocks, False, num_classes=num_classes, in_channels=in_channels, first_unit=first_unit)


def imagenet(blocks: Blocks, *, num_classes: int = 1000, in_channels: int = 3, stride_in: StrideIn = "1x1",
             first_unit: FirstUnit = "shared") -> PreActResNet:  # fmt: skip
    return PreActResNet(blocks, True, num_classes=num_classes, in_channels=in_channels, first_unit=first_unit,
                        stride_in=stride_in)  # fmt: skip


def cifar_basic(n: int, *, num_classes: int = 10, in_channels: int = 3, shortcut_pad: Pad = "end") -> CifarPreActResNet:
    shortcut = partial(pad_shortcut, shortcut_pad)
    return CifarPreActResNet(n, False, shortcut, num_classes=num_classes, in_channels=in_channels)


def cifar(n: int, *, num_classes: int = 10, in_channels: int = 3) -> CifarPreActResNet:
    return CifarPreActResNet(n, True, conv_shortcut, num_classes=num_classes, in_channels=in_channels)


MODELS: dict[str, Callable[..., Net]] = {
    "preact_resnet20": partial(cifar_basic, 3),
    "preact_resnet32": partial(cifar_basic, 5),
    "preact_resnet44": partial(cifar_basic, 7),
    "preact_resnet56": partial(cifar_basic, 9),
    "preact_resnet110": partial(cifar_basic, 18),
    "preact_resnet1202": partial(cifar_basic, 200),
    "preact_resnet164": partial(cifar, 18),
    "preact_resnet1001": partial(cifar, 111),
    "preact_resnet18": partial(imagenet_basic, (2, 2, 2, 2)),
    "preact_resnet34": partial(imagenet_basic, (3, 4, 6, 3)),
    "preact_resnet50": partial(imagenet, (3, 4, 6, 3)),
    "preact_resnet101": partial(imagenet, (3, 4, 23, 3)),
    "preact_resnet152": partial(imagenet, (3, 8, 36, 3)),
    "preact_resnet200": partial(imagenet, (3, 24, 36, 3)),
}
