"""SphereFace. Liu, Wen, Yu, Li, Raj and Song, "SphereFace: Deep Hypersphere Embedding for Face Recognition", CVPR 2017.

    layers of     4       10         20         36         64
    stage 1    64/2     64/2   64/2 + 1   64/2 + 2   64/2 + 3
    stage 2   128/2  128/2 + 1  128/2 + 2  128/2 + 4  128/2 + 8
    stage 3   256/2  256/2 + 2  256/2 + 4  256/2 + 8  256/2 + 16
    stage 4   512/2    512/2  512/2 + 1  512/2 + 2  512/2 + 3
    FC1         512      512        512        512        512

64/2: a 3x3 convolution with stride 2; + 1: one residual unit of two 3x3 convolutions. A PReLU with a slope for each
channel follows each convolution; there is no BatchNorm, and the embedding of FC1 has no activation. The 20 layers have
22,670,656 parameters without the last layer, for images of 112 x 96.

Not in the paper, or not as it is there:
- Images are square, by default 112 x 112; `image_size` is an argument, since FC1 is made for one size.
- `width` is a factor on all channels of the maps, `embedding` the length of FC1: small nets for small sets.
- `bn` puts a BatchNorm behind each convolution, in place of its bias: with it, a training of minutes gets somewhere.
- The last layer is a plain one, `fc`; the paper's angular softmax is not here (`head=cosface` and `arcface` are).
- Weights as in He et al. (2015), FC1 and `fc` by N(0, 0.01^2). The authors' first convolutions of stages are drawn by
  Xavier's rule, those of residual units by N(0, 0.01^2).
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from cnnbench.models.layers import Conv2d, Linear, Net, he_normal

CHANNELS = (64, 128, 256, 512)
UNITS = {  # residual units of each stage
    "sphereface4": (0, 0, 0, 0),
    "sphereface10": (0, 1, 2, 0),
    "sphereface20": (1, 2, 4, 1),
    "sphereface36": (2, 4, 8, 2),
    "sphereface64": (3, 8, 16, 3),
}


class SphereFace(Net):
    """The nets above: (N, in_channels, S, S) -> (N, num_classes)."""

    def __init__(self, units: tuple[int, ...], *, num_classes: int = 10572, in_channels: int = 3,
                 image_size: int = 112, width: float = 1.0, embedding: int = 512, bn: bool = False
                 ) -> None:  # fmt: skip
        super().__init__()
        if image_size < 2 ** len(CHANNELS):
            raise ValueError(f"image_size must be at least {2 ** len(CHANNELS)}, not {image_size}")
        self.image_size, side = image_size, image_size
        channels = in_channels
        self.maps = nn.ModuleList()
        for full, count in zip(CHANNELS, units, strict=True):
            wide = max(1, round(width * full))
            self.maps.append(nn.Sequential(convolution(channels, wide, 2, bn), *(Unit(wide, bn) for _ in range(count))))
            channels, side = wide, (side + 1) // 2
        self.embedding = Linear(channels * side * side, embedding)
        self.fc = Linear(embedding, num_classes)
        he_normal(self, linear_std=0.01)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        stem, *others = self.maps
        layers = {f"layer{number}": [maps] for number, maps in enumerate(others, start=2)}
        return {"stem": [stem], **layers, "embedding": [self.embedding], "head": [self.fc]}

    def forward(self, x: Tensor) -> Tensor:
        for maps in self.maps:
            x = maps(x)  # 64 x 56 x 56 -> 128 x 28 x 28 -> 256 x 14 x 14 -> 512 x 7 x 7
        if x.shape[2] * x.shape[3] * x.shape[1] != self.embedding.in_features:
            raise ValueError(f"FC1 is made for images of {self.image_size} pixels: give model.image_size")
        logits: Tensor = self.fc(self.embedding(x.flatten(1)))
        return logits


class Unit(nn.Module):
    """Residual unit of two convolutions: x + f(x), with an activation behind each convolution, none behind the sum."""

    def __init__(self, channels: int, bn: bool) -> None:
        super().__init__()
        self.first, self.second = convolution(channels, channels, 1, bn), convolution(channels, channels, 1, bn)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(self.first(x))
        return out


def convolution(channels: int, out: int, stride: int, bn: bool) -> nn.Sequential:
    norm = [nn.BatchNorm2d(out)] if bn else []
    return nn.Sequential(Conv2d(channels, out, 3, stride, 1, bias=not bn), *norm, nn.PReLU(out))


MODELS: dict[str, Callable[..., Net]] = {name: partial(SphereFace, units) for name, units in UNITS.items()}
