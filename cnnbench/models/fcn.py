"""FCN. Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation", 2015.

A classifier becomes a net for pixels: its linear layers are convolutions, a 1x1 convolution scores the classes at each
place of the last map, and the scores are enlarged to the image (section 4). Skips add the scores of finer maps first.

    net      scores of       enlarged    parameters, 21 classes    11 classes
    fcn32s   fc7             32 x        134,346,581               134,305,611
    fcn16s   fc7, pool4      2 x, 16 x   134,357,354               134,311,254
    fcn8s    + pool3         2 x,  8 x   134,362,751               134,314,081

The table is for the paper's net, VGG-16, without its bilinear kernels. `backbone` is any other classifier that has
maps; the names of the nets stay: 32s is its coarsest map, 16s and 8s add those of the next one and two finer strides,
whichever these are. What a stage ends with is scored, the last of each stride. Of torchvision's nets, whose stages
are derived, a max pool begins a stage; VGG's ends one, as pool3 and pool4 do in the paper.

Not in the paper, or not as it is there:
- fc6, 7x7, is padded by 3. The authors' files pad the whole image by 100 pixels instead, and crop the answer.
- Scores are enlarged by bilinear interpolation to exactly the size of what they are added to. The authors' nets have
  transposed convolutions there, which begin as the same; the last one was fixed, training the others changed little.
- A skip's scores are not scaled down (by 1e-2 and 1e-4, in the authors' nets that train all at once): like the others
  they begin at zero, so the net begins as the FCN-32s.
- From an ImageNet classifier one begins by `cnnbench finetune`: its weights load, its head does not.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.models.layers import CLASS, MASK, WEIGHTED, Conv2d, LocallyConnected2d, Net, run_on_meta
from cnnbench.models.truncated import extractor
from cnnbench.utils.format import plural

MADE_NUMBERS = nn.AdaptiveAvgPool2d | nn.Flatten  # of all places of a map


class Tap(NamedTuple):
    """Map of a classifier that can be scored: the layer that gives it, its channels and its side."""

    layer: nn.Module
    channels: int
    side: int


class FCN(Net):
    """A score for each class at each pixel, from the coarsest map of the net `backbone` and from `skips` finer ones."""

    answers, any_size = MASK, True

    def __init__(self, skips: int, *, num_classes: int = 21, in_channels: int = 3, backbone: str = "vgg16") -> None:
        super().__init__()
        net = classifier(backbone, in_channels)
        self.image_size = net.image_size
        stages = {name: unrolled(layers) for name, layers in list(net.stages.items())[:-1]}
        if backbone not in own_nets():
            stages = begun_by_pools(stages)
        layers = [layer for stage in stages.values() for layer in stage]
        taps, linear = taps_of(net, stages), layers[_first_without_maps(layers) :]
        if len(taps) <= skips:
            raise ValueError(f"the backbone {backbone} has maps of {plural(len(taps), 'size')}, and needs {skips + 1}")
        used, coarsest = taps[-1 - skips :], taps[-1]
        names = {layer: name for name, layer in net.named_modules()}
        convolved = as_convolutions(linear, coarsest.channels)
        self._fc_names = {
            names[layer]: f"fc.{number}" for number, layer in enumerate(convolved) if list(layer.parameters())
        }
        kinds = {type(layer) for layer in layers if layer not in linear}
        self.backbone = extractor(net, {str(tap.side): tap.layer for tap in used}, [*WEIGHTED, *kinds])
        self.fc = nn.Sequential(*convolved.values())
        channels = next((one.out_channels for one in reversed(self.fc) if isinstance(one, Conv2d)), coarsest.channels)
        self.skips = nn.ModuleList(Conv2d(tap.channels, num_classes, 1) for tap in reversed(used[:-1]))
        self.score = Conv2d(channels, num_classes, 1)
        for layer in (*self.skips, self.score):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        kept = {name: [convolved.get(layer, layer) for layer in stage if layer in convolved or layer not in linear]
                for name, stage in stages.items()}  # fmt: skip
        self._stages = {name: stage for name, stage in kept.items() if stage}

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {**self._stages, "head": [self.skips, self.score]}

    @property
    def backbone_names(self) -> dict[str, str]:
        return {**self._fc_names, **{name: f"backbone.{name}" for name, _ in self.backbone.named_children()}}

    def forward(self, x: Tensor) -> Tensor:
        *finer, coarsest = self.backbone(x).values()
        scores = self.score(self.fc(coarsest))
        for skip, maps in zip(self.skips, reversed(finer), strict=True):
            scores = enlarged(scores, maps) + skip(maps)
        return enlarged(scores, x)


def own_nets() -> list[str]:
    from cnnbench import models  # only here: it has these nets too

    return models.known_nets(models.SOURCES[0])


def classifier(name: str, in_channels: int) -> Net:
    """Classifier of ours of this name, else torchvision's."""
    from cnnbench import models

    source = models.source_of(name)
    if models.answers(name, source) != CLASS:
        raise ValueError(f"the backbone {name} is no classifier")
    net = models.build(name, source=source, in_channels=in_channels)
    if net.map_dims != (2, 3) or any(isinstance(layer, LocallyConnected2d) for layer in net.modules()):
        raise ValueError(f"the backbone {name} is not for images of any size")
    return net


def unrolled(layers: Sequence[nn.Module]) -> list[nn.Module]:
    """Modules with those inside of sequences in their place."""
    return [one for layer in layers for one in (unrolled(list(layer)) if type(layer) is nn.Sequential else [layer])]


def begun_by_pools(stages: dict[str, list[nn.Module]]) -> dict[str, list[nn.Module]]:
    """Stages with the max pools that they end with at the beginning of the next ones."""
    found, waiting = {}, list[nn.Module]()
    for name, layers in stages.items():
        kept = [*waiting, *layers]
        count = next((n for n, layer in enumerate(reversed(kept)) if not isinstance(layer, nn.MaxPool2d)), len(kept))
        found[name], waiting = kept[: len(kept) - count], kept[len(kept) - count :]
    return found


def taps_of(net: Net, stages: dict[str, list[nn.Module]]) -> list[Tap]:
    """For each side that maps have: the last of them that a stage ends with. The coarsest comes last."""
    found: dict[str, Tap] = {}

    def look(stage: str, layer: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            found[stage] = Tap(layer, output.shape[1], output.shape[3])

    handles = [layer.register_forward_hook(partial(look, name)) for name, stage in stages.items()
               for layer in stage[: _first_without_maps(stage)]]  # fmt: skip
    run_on_meta(net, net.image_size)
    for handle in handles:
        handle.remove()
    return sorted({tap.side: tap for tap in found.values()}.values(), key=lambda tap: -tap.side)


def _first_without_maps(layers: list[nn.Module]) -> int:
    """Number of layers before the first one that makes numbers of the maps: it pools all of them, or is linear."""
    kinds = MADE_NUMBERS | nn.Linear
    return next((number for number, layer in enumerate(layers) if isinstance(layer, kinds)), len(layers))


def as_convolutions(layers: list[nn.Module], channels: int) -> dict[nn.Module, nn.Module]:
    """Layers behind maps of so many channels, each as one for every place of the maps: the convolution of the same
    weights for a linear layer. Those that make numbers of maps are left out."""
    found: dict[nn.Module, nn.Module] = {}
    for layer in layers:
        if isinstance(layer, nn.Linear):
            side = math.isqrt(layer.in_features // channels)
            conv = Conv2d(channels, layer.out_features, side, padding=side // 2)
            conv.weight = nn.Parameter(layer.weight.detach().unflatten(1, (channels, side, side)))
            conv.bias = layer.bias
            found[layer], channels = conv, layer.out_features
        elif not isinstance(layer, MADE_NUMBERS):
            found[layer] = layer
    return found


def enlarged(scores: Tensor, like: Tensor) -> Tensor:
    """Scores (N, classes, h, w) with the height and width of a map or image."""
    return F.interpolate(scores, like.shape[-2:], mode="bilinear", align_corners=False)


MODELS: dict[str, Callable[..., Net]] = {
    "fcn32s": partial(FCN, 0),
    "fcn16s": partial(FCN, 1),
    "fcn8s": partial(FCN, 2),
}
