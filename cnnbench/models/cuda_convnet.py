"""cuda-convnet's net for CIFAR-10: four layers and a classifier, by Alex Krizhevsky, 2011 (layers-conv-local-11pct).

    layer  filters                     followed by                      output at 32 pixels   parameters
    1      64 of 5x5                   ReLU, response norm, 3x3/2 pool  64 x 16 x 16               4,864
    2      64 of 5x5                   ReLU, response norm, 3x3/2 pool  64 x  8 x  8             102,464
    3      32 of 3x3, not shared       ReLU                             32 x  8 x  8           1,181,696
    4      32 of 3x3, not shared       ReLU                             32 x  8 x  8             591,872
    fc     classes                     softmax (here: in the loss)      10                        20,490

1,901,386 parameters. AlexNet's paper (2012) measured its parts on four-layer nets for CIFAR-10: figure 1, ReLUs against
tanh; section 3.3, response norm, 11 against 13 % test error. The settings are these comparisons, and those between:

- `activation`: relu or tanh.
- `upper`: what the layers from the third on are. `local`: each place has filters of its own. `shared`: convolutions.
  `full`: each unit sees the whole map. All have as many units.
- `filters`: of each layer; a shorter list is a net of fewer layers. One layer alone pools twice, so that the classifier
  sees maps of 8 x 8 places in any case.
- `groups`: as in AlexNet on two GPUs, the halves of the layers 2 and 4 see their own half alone and meet in layer 3.

Not as there:
- It is given squares of 24 of the 32 pixels, and judged by ten of them; here it has all 32. For other sizes
  `image_size`: the layers that are not shared are made for one.
- `init: he` by default. His, by hand: N(0, s^2) with s = 0.0001, 0.01, 0.04, 0.04 and 0.01 (`init: paper`).
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from cnnbench.models.layers import Conv2d, Linear, LocallyConnected2d, Net, he_normal, normal

Activation = Literal["relu", "tanh"]
Upper = Literal["local", "shared", "full"]
Init = Literal["he", "paper"]

FILTERS = (64, 64, 32, 32)
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
POOLED = 2  # layers with a pool: later ones keep the size of their maps
STDS = (0.0001, 0.01, 0.04, 0.04)  # of the layers; 0.01 for the classifier


def pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)  # halves the side


def upper_layer(kind: Upper, in_channels: int, filters: int, side: int, groups: int) -> nn.Module:
    """Layer of 3x3 filters whose maps keep their side; `full`: with as many units, each of which sees all."""
    if kind == "shared":
        return Conv2d(in_channels, filters, 3, padding=1, groups=groups)
    if kind == "local":
        return nn.Sequential(nn.ZeroPad2d(1), LocallyConnected2d(in_channels, filters, side + 2, 3))
    places = side * side
    units = Linear(in_channels * places, filters * places)
    return nn.Sequential(nn.Flatten(), units, nn.Unflatten(1, (filters, side, side)))


class CudaConvnet(Net):
    """The net above: layer1, layer2, … and fc."""

    def __init__(self, *, num_classes: int = 10, in_channels: int = 3, filters: list[int] = [*FILTERS],  # noqa: B006
                 upper: Upper = "local", activation: Activation = "relu", lrn: bool = True, groups: int = 1,
                 image_size: int = 32, init: Init = "he") -> None:  # fmt: skip
        super().__init__()
        check(filters, upper, groups)
        self.image_size, side = image_size, image_size
        for number, width in enumerate(filters, start=1):
            split = groups if number % 2 == 0 else 1
            if number <= POOLED:
                layers: list[nn.Module] = [Conv2d(in_channels, width, 5, padding=2, groups=split)]
            else:
                layers = [upper_layer(upper, in_channels, width, side, split)]
            layers.append(ACTIVATIONS[activation]())
            if number <= POOLED:
                layers += [nn.LocalResponseNorm(5, alpha=1e-3, k=1)] if lrn else []
                pools = POOLED if len(filters) == 1 else 1
                layers += [pool() for _ in range(pools)]
                side = -(-side // 2**pools)
            self.add_module(f"layer{number}", nn.Sequential(*layers))
            in_channels = width
        self.fc = Linear(in_channels * side * side, num_classes)
        self._begin(init)

    def _begin(self, init: Init) -> None:
        he_normal(self)
        if init == "paper":
            for layer, std in zip(self.children(), STDS, strict=False):
                normal(layer, std=std)
            normal(self.fc, std=0.01)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {{"layer1": "stem", "fc": "head"}.get(name, name): [layer] for name, layer in self.named_children()}

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self.named_children():  # 64 x 16 x 16, 64 x 8 x 8, 32 x 8 x 8, 32 x 8 x 8, classes
            x = layer(x.flatten(1) if name == "fc" else x)
        return x


def check(filters: list[int], upper: Upper, groups: int) -> None:
    """ValueError for filters that are no numbers, and for groups in layers that have none."""
    if not filters or not all(type(number) is int and number >= 1 for number in filters):
        raise ValueError(f"filters must be a list of whole numbers from 1 on, as [64,64,32,32], not {filters}")
    if groups > 1 and upper != "shared" and len(filters) > POOLED + 1:
        raise ValueError(f"groups={groups} are of convolutions: give upper=shared")


MODELS: dict[str, Callable[..., Net]] = {"cuda_convnet": CudaConvnet}
