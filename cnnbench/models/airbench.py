"""Airbench's net. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024 (arXiv:2404.00498), section 3.

    whiten     2x2, 24, GELU                                    24 x 31 x 31
    layer1     3x3, 64, max pool, BN, GELU; 3x3, 64, BN, GELU       64 x 15 x 15
    layer2     3x3, 256, max pool, BN, GELU; 3x3, 256, BN, GELU     256 x 7 x 7
    layer3     3x3, 256, max pool, BN, GELU; 3x3, 256, BN, GELU     256 x 3 x 3
    head       max pool over the whole map, linear without bias, divided by 9

It learns in a few epochs because of its initialisation. `whiten` is not trained but computed from training images: the
principal components of their 2x2 patches, each scaled to variance 1, and their negatives. So the next layers get
inputs that are uncorrelated and of equal size (section 3.2). The other filters begin as a partial identity
(section 3.3), BatchNorm forgets fast and does not scale, and the net has few, wide maps of low resolution.

The recipe in conf/model/airbench.yaml is that of the later airbench94_muon, with Muon for the filters. Both nets stop
training the biases of `whiten` after three epochs; this one does not.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from cnnbench.models.layers import Conv2d, Linear, Net

WIDTHS = (64, 256, 256)
SCALE = 1 / 9


def keep_fixed(module: nn.Module, name: str) -> None:
    """Turn a parameter into a buffer: it is saved and moved with the net, but does not train."""
    value = module._parameters.pop(name)
    assert value is not None
    module.register_buffer(name, value.detach())


class Whiten(Conv2d):
    """Convolution to the principal components of `kernel` x `kernel` patches, and their negatives.

    Before `fit()` it gives the pixels themselves.
    """

    def __init__(self, in_channels: int, kernel: int) -> None:
        size = in_channels * kernel**2
        super().__init__(in_channels, 2 * size, kernel)
        keep_fixed(self, "weight")
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]
        self._assign(torch.eye(size))

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor], eps: float = 5e-4) -> None:
        """Compute the filters from normalised images (N, C, H, W) each; eps is added to each component's variance."""
        size = self.in_channels * math.prod(self.kernel_size)
        moments, count = torch.zeros(size, size, dtype=torch.float64), 0
        for images in batches:
            patches = nn.functional.unfold(images.float(), self.kernel_size)  # N x size x places
            moments += torch.einsum("nip,njp->ij", patches, patches).cpu().double()
            count += patches.shape[0] * patches.shape[2]
        variances, components = torch.linalg.eigh(moments / count)
        self._assign(components.T / (variances[:, None] + eps).sqrt())

    @torch.no_grad()
    def _assign(self, rows: Tensor) -> None:
        self.weight.copy_(torch.cat([rows, -rows]).view_as(self.weight))


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm without a trained scale, and with running statistics that follow within a few steps."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=0.4)
        keep_fixed(self, "weight")


class Classifier(Linear):
    """Linear layer whose outputs are divided by 9: its weights can be as large, and change as fast, as others."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * SCALE


def conv3x3(in_channels: int, channels: int) -> Conv2d:
    """Convolution that begins as a partial identity: the first filters copy a channel each, others are random."""
    conv = Conv2d(in_channels, channels, 3, padding=1, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=5**0.5)
    nn.init.dirac_(conv.weight.data[:in_channels])
    return conv


def group(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv1=conv3x3(in_channels, channels),
            pool=nn.MaxPool2d(2),
            norm1=BatchNorm(channels),
            act1=nn.GELU(),
            conv2=conv3x3(channels, channels),
            norm2=BatchNorm(channels),
            act2=nn.GELU(),
        )
    )


class Airbench(Net):
    image_size = 32

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.whiten = Whiten(in_channels, 2)
        self.act = nn.GELU()
        first, second, third = WIDTHS
        self.layer1 = group(self.whiten.out_channels, first)
        self.layer2 = group(first, second)
        self.layer3 = group(second, third)
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.fc = Classifier(third, num_classes, bias=False)
        nn.init.kaiming_uniform_(self.fc.weight, a=5**0.5)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {
            "stem": [self.whiten, self.act],
            "layer1": [self.layer1],
            "layer2": [self.layer2],
            "layer3": [self.layer3],
            "head": [self.pool, self.fc],
        }

    def fit_to(self, batches: Iterable[Tensor]) -> None:
        self.whiten.fit(batches)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.whiten(x))  # 24 x 31 x 31
        x = self.layer3(self.layer2(self.layer1(x)))  # 256 x 3 x 3
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


def airbench(*, num_classes: int = 10, in_channels: int = 3) -> Airbench:
    return Airbench(num_classes=num_classes, in_channels=in_channels)


MODELS: dict[str, Callable[..., Net]] = {"airbench": airbench}
