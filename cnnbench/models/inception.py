"""Inception-v3. Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the Inception Architecture", 2015 (CVPR 2016).

    layer          kernel  output            layer           kernel     output
    Conv2d_1a      3x3/2    32 x 149 x 149   Mixed_5b … 5d   module A   288 x 35 x 35
    Conv2d_2a      3x3      32 x 147 x 147   Mixed_6a        module B   768 x 17 x 17
    Conv2d_2b      3x3, p1  64 x 147 x 147   Mixed_6b … 6e   module C   768 x 17 x 17
    max pool       3x3/2    64 x 73 x 73     Mixed_7a        module D  1280 x 8 x 8
    Conv2d_3b      1x1      80 x 73 x 73     Mixed_7b, 7c    module E  2048 x 8 x 8
    Conv2d_4a      3x3     192 x 71 x 71     average pool, dropout 0.5, linear
    max pool       3x3/2   192 x 35 x 35

Every convolution has BatchNorm and ReLU. 23,834,568 parameters; the auxiliary classifier on Mixed_6e, with BatchNorm
too (the paper's "BN-auxiliary"), adds 3,326,696 while the net trains.

Not in the paper, or not as it is there:
- The paper's text and tables leave the filters open. The net that is meant everywhere is the one that Google published;
  torchvision has it, and its weights load. It takes not 4.8 billion multiply-adds, as printed, but 5,713,216,096.
- The auxiliary loss weighs 0.4, as in torchvision's training. Below 299 pixels the classifier's 5x5 convolution does
  not fit, and it is skipped.
- The paper names no initialisation. It is He's here.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.models.googlenet import check_transform, from_imagenet_statistics
from cnnbench.models.layers import ConvUnit, Linear, Net, he_normal

# A module: its branches side by side. A branch: its layers in turn, each "name filters kernel", padded to keep the size
# of the map. "/2" strides, without padding. "a | b" sets two layers side by side. "avg" is a 3x3/1 pool, "max" a 3x3/2.
Branches = list[list[str]]


def module_a(pool: int) -> Branches:
    return [
        ["branch1x1 64 1x1"],
        ["branch5x5_1 48 1x1", "branch5x5_2 64 5x5"],
        ["branch3x3dbl_1 64 1x1", "branch3x3dbl_2 96 3x3", "branch3x3dbl_3 96 3x3"],
        ["avg", f"branch_pool {pool} 1x1"],
    ]


MODULE_B: Branches = [
    ["branch3x3 384 3x3/2"],
    ["branch3x3dbl_1 64 1x1", "branch3x3dbl_2 96 3x3", "branch3x3dbl_3 96 3x3/2"],
    ["max"],
]


def module_c(c: int) -> Branches:
    return [
        ["branch1x1 192 1x1"],
        [f"branch7x7_1 {c} 1x1", f"branch7x7_2 {c} 1x7", "branch7x7_3 192 7x1"],
        [f"branch7x7dbl_1 {c} 1x1", f"branch7x7dbl_2 {c} 7x1", f"branch7x7dbl_3 {c} 1x7", f"branch7x7dbl_4 {c} 7x1",
         "branch7x7dbl_5 192 1x7"],
        ["avg", "branch_pool 192 1x1"],
    ]  # fmt: skip


MODULE_D: Branches = [
    ["branch3x3_1 192 1x1", "branch3x3_2 320 3x3/2"],
    ["branch7x7x3_1 192 1x1", "branch7x7x3_2 192 1x7", "branch7x7x3_3 192 7x1", "branch7x7x3_4 192 3x3/2"],
    ["max"],
]
MODULE_E: Branches = [
    ["branch1x1 320 1x1"],
    ["branch3x3_1 384 1x1", "branch3x3_2a 384 1x3 | branch3x3_2b 384 3x1"],
    ["branch3x3dbl_1 448 1x1", "branch3x3dbl_2 384 3x3", "branch3x3dbl_3a 384 1x3 | branch3x3dbl_3b 384 3x1"],
    ["avg", "branch_pool 192 1x1"],
]
MIXED = {
    "5b": module_a(32), "5c": module_a(64), "5d": module_a(64),
    "6a": MODULE_B, "6b": module_c(128), "6c": module_c(160), "6d": module_c(160), "6e": module_c(192),
    "7a": MODULE_D, "7b": MODULE_E, "7c": MODULE_E,
}  # fmt: skip


class Mixed(nn.Module):
    """Module as the tables above describe it."""

    def __init__(self, in_channels: int, branches: Branches) -> None:
        super().__init__()
        self.branches = branches
        self.out_channels = sum(self._add(branch, in_channels) for branch in branches)

    def _add(self, branch: list[str], channels: int) -> int:
        """Make the layers of a branch; returns its output channels."""
        for step in branch:
            if step in ("avg", "max"):
                continue
            filters = [self._add_layer(layer, channels) for layer in step.split(" | ")]
            channels = sum(filters)
        return channels

    def _add_layer(self, layer: str, in_channels: int) -> int:
        name, filters, shape = layer.split()
        kernel, _, stride = shape.partition("/")
        height, width = map(int, kernel.split("x"))
        padding = (0, 0) if stride else (height // 2, width // 2)
        self.add_module(name, ConvUnit(in_channels, int(filters), (height, width), int(stride or 1), padding))
        return int(filters)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._run(branch, x) for branch in self.branches], dim=1)

    def _run(self, branch: list[str], x: Tensor) -> Tensor:
        for step in branch:
            if step == "avg":
                x = F.avg_pool2d(x, 3, stride=1, padding=1)
            elif step == "max":
                x = F.max_pool2d(x, 3, stride=2)
            else:
                parts = [self.get_submodule(layer.split()[0])(x) for layer in step.split(" | ")]
                x = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return x


class Auxiliary(nn.Module):
    """Auxiliary classifier on the maps of Mixed_6e."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, stride=3)
        self.conv0 = ConvUnit(in_channels, 128, 1)
        self.conv1 = ConvUnit(128, 768, 5)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(self.conv0(self.pool(x)))  # 768 x 17 x 17 -> 5 x 5 -> 128 x 5 x 5 -> 768 x 1 x 1
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


class InceptionV3(Net):
    """The net above. `transform_input` is for the pretrained weights, which expect another normalisation."""

    image_size = 299
    aux_weight = 0.4

    def __init__(self, *, num_classes: int = 1000, in_channels: int = 3, aux: bool = True, dropout: float = 0.5,
                 transform_input: bool = False) -> None:  # fmt: skip
        super().__init__()
        check_transform(transform_input, in_channels)
        self.transform_input, self.aux_image_size = transform_input, 299 if aux else 0
        self.Conv2d_1a_3x3 = ConvUnit(in_channels, 32, 3, 2)
        self.Conv2d_2a_3x3 = ConvUnit(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvUnit(32, 64, 3, padding=1)
        self.maxpool1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = ConvUnit(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvUnit(80, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, stride=2)
        channels = 192
        for name, branches in MIXED.items():
            mixed = Mixed(channels, branches)
            self.add_module(f"Mixed_{name}", mixed)
            channels = mixed.out_channels
            if aux and name == "6e":
                self.AuxLogits = Auxiliary(channels, num_classes)
        self.avgpool, self.dropout, self.fc = (
            nn.AdaptiveAvgPool2d(1),
            nn.Dropout(dropout),
            Linear(channels, num_classes),
        )
        he_normal(self)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        children = list(self.children())
        return {
            "stem": children[: children.index(self.maxpool2) + 1],
            "mixed5": self.mixed("5"),
            "mixed6": self.mixed("6"),
            "mixed7": self.mixed("7"),
            "head": [*self.auxiliary.values(), self.avgpool, self.dropout, self.fc],
        }

    @property
    def auxiliary(self) -> dict[str, nn.Module]:
        return {name: head for name, head in self.named_children() if isinstance(head, Auxiliary)}

    def mixed(self, number: str) -> list[nn.Module]:
        """Modules of one map size: 5, 6 or 7."""
        return [module for name, module in self.named_children() if name.startswith(f"Mixed_{number}")]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        with_aux = self.training and bool(self.auxiliary) and min(x.shape[-2:]) >= self.aux_image_size
        if self.transform_input:
            x = from_imagenet_statistics(x)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # 3 x 299 x 299 -> 64 x 147 x 147
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.maxpool1(x)))  # 192 x 71 x 71
        x = self.maxpool2(x)  # 192 x 35 x 35
        for module in [*self.mixed("5"), *self.mixed("6")]:
            x = module(x)  # 288 x 35 x 35, 768 x 17 x 17
        seen = x
        for module in self.mixed("7"):
            x = module(x)  # 1280 x 8 x 8, 2048 x 8 x 8
        x = self.dropout(self.avgpool(x).flatten(1))  # 2048
        logits: Tensor = self.fc(x)
        return (logits, self.AuxLogits(seen)) if with_aux else logits


MODELS: dict[str, Callable[..., Net]] = {"inception_v3": InceptionV3}
