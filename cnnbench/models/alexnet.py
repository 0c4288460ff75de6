"""AlexNet. Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", 2012.

    layer   filters       stride  pad  groups  followed by                   output
    conv1    96 of 11x11     4     2      1    ReLU, norm, 3x3/2 max pool     96 x 27 x 27
    conv2   256 of 5x5       1     2      2    ReLU, norm, 3x3/2 max pool    256 x 13 x 13
    conv3   384 of 3x3       1     1      1    ReLU                          384 x 13 x 13
    conv4   384 of 3x3       1     1      2    ReLU                          384 x 13 x 13
    conv5   256 of 3x3       1     1      2    ReLU, 3x3/2 max pool          256 x  6 x  6
    fc6     4096                               ReLU, dropout 0.5             4096
    fc7     4096                               ReLU, dropout 0.5             4096
    fc8     1000                               softmax (here: in the loss)   1000

60,965,224 parameters. The two groups are the two GPUs of the paper, which met only at conv3 and from fc6 on.

Where the paper leaves a gap:
- It names no padding of conv1, and 224 pixels without any give 54 x 54 maps, not its 55 x 55. This net pads by 2,
  so it shares the 224-pixel crops of the nets after it; the other reading, 227 pixels without padding, gives the same
  maps, parameters and multiply-adds.
- `init: he` by default: He's for the convolutions, N(0, 0.01^2) for the linear layers, biases of 0. The paper's
  (`init: paper`), N(0, 0.01^2) for all, with biases of 1 in conv2, 4, 5, fc6 and fc7, shrinks the image to nothing
  beside the biases: on the digits the logits vary by 3e-5 from image to image at the start, and after 120 steps the
  loss is still that of guessing. A million photographs for 90 epochs get it out of there; a small data set does not.
- An average pool to 6 x 6 stands between pool5 and fc6. It is the identity at 224 pixels and lets other sizes through.

`alexnet_owt` is the net that torchvision calls AlexNet, and its weights load: Krizhevsky, "One weird trick for
parallelizing convolutional neural networks", 2014. 64, 192, 384, 256 and 256 filters without groups or response norm,
61,100,840 parameters. It is initialised as `init: he`.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from cnnbench.models.layers import Conv2d, Linear, Net, convolved, he_normal, normal

Init = Literal["he", "paper"]

# Stage of each layer, by the number at the end of its name.
STAGES = dict(zip("12345678", ("stem", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "head"), strict=True))


def response_norm() -> nn.LocalResponseNorm:
    """b = a / (2 + 1e-4 * sum of a^2 over 5 channels) ^ 0.75, as printed: torch divides alpha by 5, so 5e-4 here."""
    return nn.LocalResponseNorm(size=5, alpha=5e-4, beta=0.75, k=2)


class AlexNet(Net):
    """The net above. `lrn`, `overlap_pool` (3x3/2 against 2x2/2), `groups` and `dropout` are the paper's ablations."""

    image_size = 224

    def __init__(self, *, num_classes: int = 1000, in_channels: int = 3, lrn: bool = True, overlap_pool: bool = True,
                 groups: int = 2, dropout: float = 0.5, init: Init = "he") -> None:  # fmt: skip
        super().__init__()
        norm = response_norm if lrn else nn.Identity
        pool = 3 if overlap_pool else 2
        self.conv1 = Conv2d(in_channels, 96, 11, stride=4, padding=2)
        self.relu1, self.norm1, self.pool1 = nn.ReLU(), norm(), nn.MaxPool2d(pool, stride=2)
        self.conv2 = Conv2d(96, 256, 5, padding=2, groups=groups)
        self.relu2, self.norm2, self.pool2 = nn.ReLU(), norm(), nn.MaxPool2d(pool, stride=2)
        self.conv3, self.relu3 = Conv2d(256, 384, 3, padding=1), nn.ReLU()
        self.conv4, self.relu4 = Conv2d(384, 384, 3, padding=1, groups=groups), nn.ReLU()
        self.conv5, self.relu5 = Conv2d(384, 256, 3, padding=1, groups=groups), nn.ReLU()
        self.pool5, self.fit5 = nn.MaxPool2d(pool, stride=2), nn.AdaptiveAvgPool2d(6)
        self.fc6, self.relu6, self.drop6 = Linear(256 * 6 * 6, 4096), nn.ReLU(), nn.Dropout(dropout)
        self.fc7, self.relu7, self.drop7 = Linear(4096, 4096), nn.ReLU(), nn.Dropout(dropout)
        self.fc8 = Linear(4096, num_classes)
        if init == "he":
            he_normal(self, linear_std=0.01)
        else:
            normal(self, std=0.01)
            for layer in (self.conv2, self.conv4, self.conv5, self.fc6, self.fc7):
                assert layer.bias is not None
                nn.init.ones_(layer.bias)  # "provides the ReLUs with positive inputs"

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        stages: dict[str, list[nn.Module]] = {stage: [] for stage in STAGES.values()}
        for name, layer in self.named_children():
            stages[STAGES[name[-1]]].append(layer)
        return stages

    def forward(self, x: Tensor) -> Tensor:
        x = self.fit5(self.maps(x))  # 256 x 6 x 6
        x = self.drop6(self.relu6(self.fc6(x.flatten(1))))  # 9216 -> 4096
        x = self.drop7(self.relu7(self.fc7(x)))  # 4096
        logits: Tensor = self.fc8(x)
        return logits

    def dense(self, x: Tensor) -> Tensor:
        return convolved(self.maps(x), [self.fc6, self.relu6, self.fc7, self.relu7, self.fc8], 6)

    def maps(self, x: Tensor) -> Tensor:
        """Maps after the convolutional layers."""
        x = self.norm1(self.relu1(self.conv1(x)))  # 3 x 224 x 224 -> 96 x 55 x 55
        x = self.pool1(x)  # 96 x 27 x 27
        x = self.norm2(self.relu2(self.conv2(x)))  # 256 x 27 x 27
        x = self.pool2(x)  # 256 x 13 x 13
        x = self.relu3(self.conv3(x))  # 384 x 13 x 13
        x = self.relu4(self.conv4(x))  # 384 x 13 x 13
        x = self.relu5(self.conv5(x))  # 256 x 13 x 13
        maps: Tensor = self.pool5(x)  # 256 x 6 x 6
        return maps


class AlexNetOWT(Net):
    """torchvision's net, under torchvision's parameter names."""

    image_size = 224

    def __init__(self, *, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            Conv2d(in_channels, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), Linear(256 * 6 * 6, 4096), nn.ReLU(),
            nn.Dropout(dropout), Linear(4096, 4096), nn.ReLU(),
            Linear(4096, num_classes),
        )  # fmt: skip
        he_normal(self, linear_std=0.01)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        features, classifier = list(self.features), list(self.classifier)
        return {
            "stem": features[:3],
            "conv2": features[3:6],
            "conv3": features[6:8],
            "conv4": features[8:10],
            "conv5": features[10:],
            "fc6": [self.avgpool, *classifier[:3]],
            "fc7": classifier[3:6],
            "head": classifier[6:],
        }

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)  # 3 x 224 x 224 -> 64 x 27 -> 192 x 13 -> 384 x 13 -> 256 x 13 -> 256 x 6 x 6
        x = self.avgpool(x).flatten(1)  # 9216
        logits: Tensor = self.classifier(x)  # 4096 -> 4096 -> classes
        return logits

    def dense(self, x: Tensor) -> Tensor:
        return convolved(self.features(x), self.classifier, 6)


MODELS: dict[str, Callable[..., Net]] = {"alexnet": AlexNet, "alexnet_owt": AlexNetOWT}
