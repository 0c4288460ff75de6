"""ResNet and its plain twins. He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", 2015.

For ImageNet (Table 1): each row is a stage; 7x7/2 and 3x3/2 max pool before them, average pool and fc after.

    stage   map      18           34           50             101            152
    layer1  56x56    [3x3,  64]   [3x3,  64]   [1x1,  64]     [1x1,  64]     [1x1,  64]
                     [3x3,  64]   [3x3,  64]   [3x3,  64]     [3x3,  64]     [3x3,  64]
                         x 2          x 3      [1x1, 256] x3  [1x1, 256] x3  [1x1, 256] x3
    layer2  28x28    128 x 2      128 x 4      128, 512  x4   128, 512  x4   128, 512  x8
    layer3  14x14    256 x 2      256 x 6      256, 1024 x6   256, 1024 x23  256, 1024 x36
    layer4   7x7     512 x 2      512 x 3      512, 2048 x3   512, 2048 x3   512, 2048 x3

For CIFAR-10 (Section 4.2): a 3x3 convolution, then n blocks each on 16 x 32x32, 32 x 16x16 and 64 x 8x8 maps,
average pool and fc: 6n + 2 weight layers. n = 1 and 2 (resnet8, resnet14) are ours, for quick runs. resnet164 and
resnet1001 are those with n bottlenecks in place of n blocks: the baselines of the authors' next paper (2016).

Shortcuts where the shape changes: A, subsample and pad with zero channels; B, a 1x1 convolution; C, a 1x1 convolution
on every shortcut. A plain net is the same without any shortcut.

Not in the paper, or not as it is there:
- resnet50, 101 and 152 stride in the 3x3 ("v1.5"), as the weights in circulation do. `_v1` strides in the first 1x1,
  as the paper does. The two share their parameter names, and yet are different functions.
- The paper does not say where option A's zero channels go. `shortcut_pad=end` appends them; `both` puts half in front,
  as some published CIFAR weights need.
- ImageNet nets use B by default, as the weights in circulation do; CIFAR nets use A, as the paper does.
- `zero_init_residual` starts each block as the identity (Goyal et al., 2017).
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.models.layers import Conv2d, Linear, Net, he_normal
from cnnbench.models.stochastic_depth import Residual

Shortcut = Literal["A", "B", "C"]
Pad = Literal["end", "both"]


class PadShortcut(nn.Module):
    """Option A: every `stride`-th pixel of x, with `extra` channels of zeros after (or half before) its own."""

    def __init__(self, extra: int, stride: int, pad: Pad) -> None:
        super().__init__()
        self.stride = stride
        self.front = extra // 2 if pad == "both" else 0
        self.back = extra - self.front

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.front, self.back))


def make_shortcut(in_channels: int, channels: int, stride: int, kind: Shortcut, pad: Pad) -> nn.Module:
    """Shortcut of one block. Option A and the identity have no parameters, so they add no keys to the state dict."""
    if kind != "C" and in_channels == channels and stride == 1:
        return nn.Identity()
    if kind == "A":
        return PadShortcut(channels - in_channels, stride, pad)
    return nn.Sequential(Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


class BasicBlock(Residual):
    """Two 3x3 convolutions and the shortcut `downsample` (torchvision's name), which is None in a plain net."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: Shortcut | None, pad: Pad) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1, self.relu1 = nn.BatchNorm2d(width), nn.ReLU()
        self.conv2 = Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(width), nn.ReLU()
        self.downsample = make_shortcut(in_channels, width, stride, shortcut, pad) if shortcut else None

    @property
    def has_shortcut(self) -> bool:
        return self.downsample is not None

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            out = self.drawn(out) + self.downsample(x)
        activation: Tensor = self.relu2(out)
        return activation


class Bottleneck(Residual):
    """1x1 down to `width`, 3x3, 1x1 up to four times the width, and the shortcut. The 3x3 strides (v1.5)."""

    expansion = 4
    stride_in_first = False

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: Shortcut | None, pad: Pad) -> None:
        super().__init__()
        channels = self.expansion * width
        stride_1x1, stride_3x3 = (stride, 1) if self.stride_in_first else (1, stride)
        self.conv1 = Conv2d(in_channels, width, 1, stride_1x1, bias=False)
        self.bn1, self.relu1 = nn.BatchNorm2d(width), nn.ReLU()
        self.conv2 = Conv2d(width, width, 3, stride_3x3, padding=1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(width), nn.ReLU()
        self.conv3 = Conv2d(width, channels, 1, bias=False)
        self.bn3, self.relu3 = nn.BatchNorm2d(channels), nn.ReLU()
        self.downsample = make_shortcut(in_channels, channels, stride, shortcut, pad) if shortcut else None

    @property
    def has_shortcut(self) -> bool:
        return self.downsample is not None

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            out = self.drawn(out) + self.downsample(x)
        activation: Tensor = self.relu3(out)
        return activation


class BottleneckV1(Bottleneck):
    """Bottleneck as in the paper: the first 1x1 strides, and so skips three of every four pixels."""

    stride_in_first = True


BlockType = type[BasicBlock] | type[Bottleneck]
Blocks = tuple[int, int, int, int]  # in layer1, layer2, layer3, layer4
MakeLayer = Callable[[int, int, int, int], nn.Sequential]


def make_layer(block: BlockType, shortcut: Shortcut | None, pad: Pad,
               in_channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:  # fmt: skip
    """Stage of `blocks` blocks; the first changes the number of channels and strides."""
    first = block(in_channels, width, stride, shortcut, pad)
    rest = [block(width * block.expansion, width, 1, shortcut, pad) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


def initialise(net: nn.Module, zero_init_residual: bool = False) -> None:
    """Initialise as He et al.; BatchNorm starts with scale 1 and shift 0, torch's default."""
    he_normal(net)
    for block in net.modules():
        if zero_init_residual and isinstance(block, BasicBlock | Bottleneck):
            nn.init.zeros_((block.bn3 if isinstance(block, Bottleneck) else block.bn2).weight)


class ResNet(Net):
    """ResNet for ImageNet, given its kind of block and the number of blocks in each of the four stages."""

    image_size = 224

    def __init__(self, block: BlockType, blocks: Blocks, *, num_classes: int, in_channels: int,
                 shortcut: Shortcut | None, shortcut_pad: Pad = "end",
                 zero_init_residual: bool = False) -> None:  # fmt: skip
        super().__init__()
        layer: MakeLayer = partial(make_layer, block, shortcut, shortcut_pad)
        self.conv1 = Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(64), nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = layer(64, 64, blocks[0], 1)
        self.layer2 = layer(64 * block.expansion, 128, blocks[1], 2)
        self.layer3 = layer(128 * block.expansion, 256, blocks[2], 2)
        self.layer4 = layer(256 * block.expansion, 512, blocks[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = Linear(512 * block.expansion, num_classes)
        initialise(self, zero_init_residual)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {
            "stem": [self.conv1, self.bn1, self.relu, self.maxpool],
            "layer1": [self.layer1],
            "layer2": [self.layer2],
            "layer3": [self.layer3],
            "layer4": [self.layer4],
            "head": [self.avgpool, self.fc],
        }

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))  # 3 x 224 x 224 -> 64 x 112 x 112
        x = self.maxpool(x)  # 64 x 56 x 56
        x = self.layer1(x)  # 64 x 56 x 56; with bottlenecks, from here on four times the channels
        x = self.layer2(x)  # 128 x 28 x 28
        x = self.layer3(x)  # 256 x 14 x 14
        x = self.layer4(x)  # 512 x 7 x 7
        x = self.avgpool(x).flatten(1)  # 512
        logits: Tensor = self.fc(x)
        return logits


class CifarResNet(Net):
    """ResNet for CIFAR: 6n + 2 weight layers, or 9n + 2 with bottlenecks."""

    image_size = 32

    def __init__(self, n: int, *, num_classes: int, in_channels: int, shortcut: Shortcut | None, block: BlockType,
                 shortcut_pad: Pad = "end", zero_init_residual: bool = False) -> None:  # fmt: skip
        super().__init__()
        layer: MakeLayer = partial(make_layer, block, shortcut, shortcut_pad)
        self.conv1 = Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(16), nn.ReLU()
        self.layer1 = layer(16, 16, n, 1)
        self.layer2 = layer(16 * block.expansion, 32, n, 2)
        self.layer3 = layer(32 * block.expansion, 64, n, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = Linear(64 * block.expansion, num_classes)
        initialise(self, zero_init_residual)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {
            "stem": [self.conv1, self.bn1, self.relu],
            "layer1": [self.layer1],
            "layer2": [self.layer2],
            "layer3": [self.layer3],
            "head": [self.avgpool, self.fc],
        }

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))  # 3 x 32 x 32 -> 16 x 32 x 32
        x = self.layer1(x)  # 16 x 32 x 32; with bottlenecks, from here on four times the channels
        x = self.layer2(x)  # 32 x 16 x 16
        x = self.layer3(x)  # 64 x 8 x 8
        x = self.avgpool(x).flatten(1)  # 64
        logits: Tensor = self.fc(x)
        return logits


def resnet(block: BlockType, blocks: Blocks, *, num_classes: int = 1000, in_channels: int = 3,
           shortcut: Shortcut = "B", shortcut_pad: Pad = "end",
           zero_init_residual: bool = False) -> ResNet:  # fmt: skip
    return ResNet(block, blocks, num_classes=num_classes, in_channels=in_channels, shortcut=shortcut,
                  shortcut_pad=shortcut_pad, zero_init_residual=zero_init_residual)  # fmt: skip


def plain(blocks: Blocks, *, num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    return ResNet(BasicBlock, blocks, num_classes=num_classes, in_channels=in_channels, shortcut=None)


def cifar_resnet(n: int, *, num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "A",
                 shortcut_pad: Pad = "end", zero_init_residual: bool = False) -> CifarResNet:  # fmt: skip
    return CifarResNet(n, num_classes=num_classes, in_channels=in_channels, shortcut=shortcut, block=BasicBlock,
                       shortcut_pad=shortcut_pad, zero_init_residual=zero_init_residual)  # fmt: skip


def cifar_bottleneck(n: int, *, num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "B",
                     shortcut_pad: Pad = "end", zero_init_residual: bool = False) -> CifarResNet:  # fmt: skip
    return CifarResNet(n, num_classes=num_classes, in_channels=in_channels, shortcut=shortcut, block=BottleneckV1,
                       shortcut_pad=shortcut_pad, zero_init_residual=zero_init_residual)  # fmt: skip


def cifar_plain(n: int, *, num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    return CifarResNet(n, num_classes=num_classes, in_channels=in_channels, shortcut=None, block=BasicBlock)


MODELS: dict[str, Callable[..., Net]] = {
    "resnet18": partial(resnet, BasicBlock, (2, 2, 2, 2)),
    "resnet34": partial(resnet, BasicBlock, (3, 4, 6, 3)),
    "resnet50": partial(resnet, Bottleneck, (3, 4, 6, 3)),
    "resnet101": partial(resnet, Bottleneck, (3, 4, 23, 3)),
    "resnet152": partial(resnet, Bottleneck, (3, 8, 36, 3)),
    "resnet50_v1": partial(resnet, BottleneckV1, (3, 4, 6, 3)),
    "resnet101_v1": partial(resnet, BottleneckV1, (3, 4, 23, 3)),
    "resnet152_v1": partial(resnet, BottleneckV1, (3, 8, 36, 3)),
    "plain18": partial(plain, (2, 2, 2, 2)),
    "plain34": partial(plain, (3, 4, 6, 3)),
    "resnet8": partial(cifar_resnet, 1),
    "resnet14": partial(cifar_resnet, 2),
    "resnet20": partial(cifar_resnet, 3),
    "resnet32": partial(cifar_resnet, 5),
    "resnet44": partial(cifar_resnet, 7),
    "resnet56": partial(cifar_resnet, 9),
    "resnet110": partial(cifar_resnet, 18),
    "resnet1202": partial(cifar_resnet, 200),
    "resnet164": partial(cifar_bottleneck, 18),
    "resnet1001": partial(cifar_bottleneck, 111),
    "plain20": partial(cifar_plain, 3),
    "plain32": partial(cifar_plain, 5),
    "plain44": partial(cifar_plain, 7),
    "plain56": partial(cifar_plain, 9),
    "plain110": partial(cifar_plain, 18),
}
