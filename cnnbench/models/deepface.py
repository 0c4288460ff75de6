"""DeepFace. Taigman, Yang, Ranzato and Wolf, "DeepFace: Closing the Gap to Human-Level Performance", CVPR 2014.

    layer  filters                     output           parameters
    C1     32 of 11x11                 32 x 142 x 142       11,648
    M2     max pool 3x3/2              32 x 71 x 71
    C3     16 of 9x9                   16 x 63 x 63         41,488
    L4     16 of 9x9, not shared       16 x 55 x 55     62,774,800
    L5     16 of 7x7/2, not shared     16 x 25 x 25      7,850,000
    L6     16 of 5x5, not shared       16 x 21 x 21      2,829,456
    F7     4096, dropout 0.5           4096             28,905,472
    F8     4030 people                 4030             16,510,910

118,923,774 parameters. In a locally connected layer each position of the map has its own filters: on aligned faces the
same position always shows the same part. These layers hold most of the parameters and need little computation.

Not in the paper, or not as it is there:
- The paper has C3's filters as 9x9x16, though 32 maps come in. Here they see all 32; `c3_groups: 2` is the literal
  reading, with 118,903,038 parameters.
- M2 rounds up (142 -> 71). The biases of L4 to L6 are not shared either.
- Other image sizes are an argument, `image_size`: the locally connected layers are made for one size. The 3D alignment
  of the faces is no part of the net.
- `init: he` by default, with N(0, 0.01^2) for the linear layers. The paper's N(0, 0.01^2) for all with biases of 0.5
  (`init: paper`) lets the biases drown the image.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from cnnbench.models.layers import Conv2d, Linear, LocallyConnected2d, Net, he_normal, normal

Init = Literal["he", "paper"]
SMALLEST = 72  # side of the images at which the map of L6 has one position


class DeepFace(Net):
    """The net above."""

    def __init__(self, *, num_classes: int = 4030, in_channels: int = 3, image_size: int = 152, c3_groups: int = 1,
                 dropout: float = 0.5, init: Init = "he") -> None:  # fmt: skip
        super().__init__()
        if image_size < SMALLEST:
            raise ValueError(f"image_size must be at least {SMALLEST}, not {image_size}")
        self.image_size = image_size
        after_c3 = (image_size - 10) // 2 - 8
        self.C1, self.relu1 = Conv2d(in_channels, 32, 11), nn.ReLU()
        self.M2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.C3, self.relu3 = Conv2d(32, 16, 9, groups=c3_groups), nn.ReLU()
        self.L4, self.relu4 = LocallyConnected2d(16, 16, after_c3, 9), nn.ReLU()
        self.L5, self.relu5 = LocallyConnected2d(16, 16, self.L4.out_size, 7, stride=2), nn.ReLU()
        self.L6, self.relu6 = LocallyConnected2d(16, 16, self.L5.out_size, 5), nn.ReLU()
        self.F7, self.relu7 = Linear(16 * self.L6.out_size**2, 4096), nn.ReLU()
        self.dropout, self.F8 = nn.Dropout(dropout), Linear(4096, num_classes)
        if init == "he":
            he_normal(self, linear_std=0.01)
        else:
            normal(self, std=0.01, bias=0.5)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {
            "stem": [self.C1, self.relu1, self.M2],
            "C3": [self.C3, self.relu3],
            "L4": [self.L4, self.relu4],
            "L5": [self.L5, self.relu5],
            "L6": [self.L6, self.relu6],
            "F7": [self.F7, self.relu7, self.dropout],
            "head": [self.F8],
        }

    def forward(self, x: Tensor) -> Tensor:
        x = self.M2(self.relu1(self.C1(x)))  # 3 x 152 x 152 -> 32 x 142 x 142 -> 32 x 71 x 71
        x = self.relu3(self.C3(x))  # 16 x 63 x 63
        x = self.relu4(self.L4(x))  # 16 x 55 x 55
        x = self.relu5(self.L5(x))  # 16 x 25 x 25
        x = self.relu6(self.L6(x))  # 16 x 21 x 21
        x = self.dropout(self.relu7(self.F7(x.flatten(1))))  # 7056 -> 4096
        logits: Tensor = self.F8(x)
        return logits


MODELS: dict[str, Callable[..., Net]] = {"deepface": DeepFace}
