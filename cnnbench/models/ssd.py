"""SSD. Liu, Anguelov, Erhan, Szegedy, Reed, Fu and Berg, "SSD: Single Shot MultiBox Detector", 2016.

A classifier's maps, and further ones that convolutions with stride 2 add, score at each place a few default boxes:
each class or none, and four offsets from that box to the object's (section 2.1).

    ssd300   map         38     19     10      5      3      1        8,732 default boxes
             of      conv4_3    fc7  conv8_2 conv9_2 conv10_2 conv11_2
             boxes        4      6      6      6      4      4        26,285,486 parameters, VOC's 20 classes
             side     .07 .15    .33    .51    .69    .87   1.05      35,641,826 parameters, 90 (COCO's numbers)

`ssd300` is torchvision's, whose modules it is made of, on our VGG-16: fc6 dilated, conv4_3 scaled to a norm of 20.
`ssd` is the same on the last maps of any classifier `backbone`: those of its `maps` coarsest sides, then `extras` more.
With `pyramid`, every map has so many channels and adds what the coarser ones say (Lin et al. 2017, "Feature Pyramid
Networks"), as the finest map of a small net knows little of objects.

A net answers with (N, classes + 1 + 8, boxes): scores of each class and of none; four offsets, as torchvision encodes
them; and the corners of the default box that they are from, in pixels of the net's input.

Not in the paper, or not as it is there:
- fc6 and fc7 begin as torchvision's, at random, and are not cut out of VGG-16's linear layers.
- Of `ssd`, the boxes' sides go from `smallest` to `largest` of the image's in equal steps, with 6 boxes at each place.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from cnnbench.models.fcn import begun_by_pools, classifier, own_nets, taps_of, unrolled
from cnnbench.models.layers import BOXES, WEIGHTED, Conv2d, Net, he_normal
from cnnbench.models.truncated import extractor
from cnnbench.models.vgg import COLUMNS, feature_layers
from cnnbench.utils.fast_start import import_torchvision
from cnnbench.utils.format import plural

STEPS = (8, 16, 32, 64, 100, 300)  # pixels between the default boxes of each map of SSD300
SCALES = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
RATIOS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
GROUPS = 16  # of channels that are normalised together
EXTRA = (64, 128)  # channels of a further map of `ssd`, before and after its convolution with stride 2


class SSD(Net):
    """Scores and offsets for the default boxes of the maps that `backbone` gives. The stage `head` is all that the
    classifier of the backbone has not.

    channels: of each map; ratios: aspects of each map's boxes; scales: their sides, over that of the image, and one
    more; steps: pixels between them, by default as many as the map has places.
    """

    answers, image_size = BOXES, 300

    def __init__(self, backbone: nn.Module, channels: Sequence[int], ratios: Sequence[Sequence[int]],
                 scales: Sequence[float], steps: Sequence[int] | None, num_classes: int) -> None:  # fmt: skip
        super().__init__()
        import_torchvision()
        from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
        from torchvision.models.detection.ssd import SSDHead

        self.backbone = backbone
        self._generator = [DefaultBoxGenerator([[*one] for one in ratios], scales=[*scales], steps=steps and [*steps])]
        self.head = SSDHead([*channels], self._generator[0].num_anchors_per_location(), 1 + num_classes)
        self._known: dict[tuple[object, ...], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        maps = list(self.backbone(x).values())
        found = self.head(maps)
        boxes = self.default_boxes(x, maps).expand(x.shape[0], -1, -1)  # not len(): a traced net takes any number
        scores = found["cls_logits"].roll(-1, dims=2)  # torchvision's first class is none
        return torch.cat([scores, found["bbox_regression"], boxes], dim=2).transpose(1, 2)

    @property
    def scoring(self) -> nn.Conv2d:
        layer: nn.Conv2d = self.head.classification_head.module_list[-1]
        return layer

    @property
    def class_layers(self) -> list[nn.Module]:
        return [self.head.classification_head]

    def outputs_of(self, rows: int) -> int:
        return rows // self._generator[0].num_anchors_per_location()[-1] - 1

    def default_boxes(self, x: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Corners of the default boxes (boxes, 4), in pixels. They are computed once for images of one size."""
        sides = [one.shape[-2:] for one in maps]
        key = (x.device, *x.shape[-2:])
        if x.is_meta or torch.compiler.is_exporting() or key not in self._known:
            height, width = x.shape[-2:]
            found = self._generator[0]._grid_default_boxes(sides, [height, width]).to(x.device)
            half, size = found[:, 2:] / 2, torch.tensor([width, height], device=x.device)
            boxes = torch.cat([(found[:, :2] - half) * size, (found[:, :2] + half) * size], dim=1)
            if x.is_meta or torch.compiler.is_exporting():
                return boxes
            self._known = {key: boxes}
        return self._known[key]


class SSD300(SSD):
    """SSD300 on VGG-16, with torchvision's names."""

    def __init__(self, *, num_classes: int = 20, in_channels: int = 3) -> None:
        import_torchvision()
        from torchvision.models.detection.ssd import SSDFeatureExtractorVGG

        layers = nn.Sequential(*feature_layers(COLUMNS["D"], in_channels, bn=False))
        he_normal(layers)
        backbone = SSDFeatureExtractorVGG(layers, highres=False)
        super().__init__(backbone, (512, 1024, 512, 256, 256, 256), RATIOS, SCALES, STEPS, num_classes)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        backbone, names = self.backbone, iter(("stem", "conv2", "conv3", "conv4"))
        stages, part = dict[str, list[nn.Module]](), list[nn.Module]()
        for layer in backbone.features:  # type: ignore[union-attr]
            part.append(layer)
            if isinstance(layer, nn.MaxPool2d):
                stages[next(names)], part = part, []
        scale = nn.ParameterList([backbone.scale_weight])
        conv5, *more = backbone.extra  # type: ignore[misc]
        return {**stages, next(names): part, "conv5": list(conv5)[:-1],
                "head": [scale, conv5[-1], *more, self.head]}  # fmt: skip

    @property
    def backbone_names(self) -> dict[str, str]:
        """VGG-16's convolutions up to conv4_3 are in `features`; those of conv5 begin `extra`."""
        begun = len(self.backbone.features)  # type: ignore[arg-type]
        conv5 = range(begun, begun + len(self.backbone.extra[0]) - 1)  # type: ignore[index]
        return {**{f"features.{n}": f"backbone.features.{n}" for n in range(begun)},
                **{f"features.{n}": f"backbone.extra.0.{n - begun}" for n in conv5}}  # fmt: skip


class Maps(nn.Module):
    """Maps of a classifier's `body`, further ones by `extra`, and all of them through `pyramid`, where there is one."""

    def __init__(self, body: nn.Module, extra: nn.ModuleList, pyramid: nn.Module | None) -> None:
        super().__init__()
        self.body, self.extra, self.pyramid = body, extra, pyramid

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = dict(self.body(x))
        x = maps[next(reversed(maps))]
        for number, block in enumerate(self.extra):
            x = block(x)
            maps[f"extra{number}"] = x
        found: dict[str, Tensor] = maps if self.pyramid is None else self.pyramid(maps)
        return found


class SmallSSD(SSD):
    """SSD on any classifier of ours, or of torchvision's."""

    def __init__(self, *, num_classes: int = 20, in_channels: int = 3, backbone: str = "squeezenet1_0", maps: int = 2,
                 extras: int = 2, pyramid: int = 128, smallest: float = 0.1, largest: float = 0.8) -> None:  # fmt: skip
        net = classifier(backbone, in_channels)
        stages = {name: unrolled(layers) for name, layers in list(net.stages.items())[:-1]}
        if backbone not in own_nets():
            stages = begun_by_pools(stages)
        taps = taps_of(net, stages)
        if len(taps) < maps:
            raise ValueError(f"the backbone {backbone} has maps of {plural(len(taps), 'size')}, and needs {maps}")
        if not 0 < smallest < largest <= 1:
            raise ValueError(f"smallest={smallest:g} and largest={largest:g} must lie in 0 to 1, the smaller one first")
        used = taps[-maps:]
        kinds = {type(layer) for stage in stages.values() for layer in stage}
        kept, last = {}, used[-1].layer
        for name, layers in stages.items():
            kept[name] = layers[: layers.index(last) + 1] if last in layers else layers
            if last in layers:
                break
        body = extractor(net, {str(tap.side): tap.layer for tap in used}, [*WEIGHTED, *kinds])
        channels = [*(tap.channels for tap in used), *(EXTRA[1] for _ in range(extras))]
        extra = nn.ModuleList(further(before) for before in channels[maps - 1 : -1])
        count = len(channels)
        scales = [smallest + (largest - smallest) * k / max(1, count - 1) for k in range(count)]
        super().__init__(
            Maps(body, extra, top_down(channels, pyramid) if pyramid > 1 else None),
            [pyramid] * count if pyramid > 1 else channels,
            [(2, 3)] * count,
            [*scales, 1.0],
            None,
            num_classes,
        )
        self._stages = kept

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        added = [part for part in (self.backbone.extra, self.backbone.pyramid) if part is not None]
        return {**self._stages, "head": [*added, self.head]}

    @property
    def backbone_names(self) -> dict[str, str]:
        return {name: f"backbone.body.{name}" for name, _ in self.backbone.body.named_children()}  # type: ignore[union-attr]


def further(channels: int) -> nn.Module:
    """Block that gives a map of half the side."""
    inner, outer = EXTRA
    layers = [Conv2d(channels, inner, 1), nn.ReLU(), Conv2d(inner, outer, 3, stride=2, padding=1), nn.ReLU()]
    for layer in layers:
        if isinstance(layer, Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers)


def top_down(channels: Sequence[int], width: int) -> nn.Module:
    """Pyramid of maps with `width` channels each, normalised: those of a classifier without BatchNorm are large."""
    if width % GROUPS:
        raise ValueError(f"pyramid={width} must be a multiple of {GROUPS}, or 1 for none")
    import_torchvision()
    from torchvision.ops import FeaturePyramidNetwork

    return FeaturePyramidNetwork([*channels], width, norm_layer=partial(nn.GroupNorm, GROUPS))


MODELS: dict[str, Callable[..., Net]] = {"ssd300": SSD300, "ssd": SmallSSD}
