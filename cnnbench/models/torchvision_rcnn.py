"""torchvision's detectors with losses of their own kinds: Faster R-CNN, RetinaNet and FCOS. Names, initialisation,
function and losses are torchvision's.

They answer with the boxes that they find, (N, 6, rows): class, score and corners in pixels of the net's input, the
likeliest first; rows that are not used have the class -1 and the score 0. With targets (a dict for each image: `boxes`
(n, 4), `labels` (n,), 1 for the first class) they answer with the pair of that and the loss of each image (N,), the sum
of torchvision's losses of this image alone.

Not as in torchvision:
- Images come resized and normalised, as for all nets, where torchvision's nets do so themselves.
- Boxes are kept from a score of LEAST on, as validations need them.
- RetinaNet and FCOS score the class 0, which stands for nothing, as well; boxes of it are left out.
- Behind its backbone Faster R-CNN computes in float32, one image at a time in training, so that an image's loss does
  not depend on its batch. BatchNorm in the box head (`_v2`) normalises over the proposals of one image.
- The backbone's BatchNorm is not frozen: `freeze=` does that.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from cnnbench.models.layers import BOXES, Net

LEAST = 0.001  # score from which on a box is kept
NAMES = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
)
Targets = list[dict[str, Tensor]]
Maps = dict[str, Tensor]


class TorchvisionDetector(Net):
    """Methods of `Net` for these detectors, on top of their own class."""

    answers, needs_targets = BOXES, True
    backbone: Any

    def forward(self, x: Tensor, targets: Targets | None = None) -> Tensor | tuple[Tensor, Tensor]:
        maps: Maps = self.backbone(x)
        if x.is_meta:
            return self.on_meta(maps)
        if targets is None and self.training:  # only what a step takes is asked for
            nothing = {"boxes": x.new_zeros(0, 4), "labels": x.new_zeros(0, dtype=torch.int64)}
            targets = [nothing] * len(x)
        found = x.new_zeros(len(x), 6, 0) if self.training else packed(self.found(x, maps))
        return found if targets is None else (found, self.losses(x, maps, targets))

    def found(self, x: Tensor, maps: Maps) -> list[dict[str, Tensor]]:
        """Boxes of each image, as torchvision has them."""
        raise NotImplementedError

    def losses(self, x: Tensor, maps: Maps, targets: Targets) -> Tensor:
        """Loss of each image (N,)."""
        raise NotImplementedError

    def on_meta(self, maps: Maps) -> Tensor:
        """Run all layers for shapes alone, as of an image with as many proposals as there may be."""
        raise NotImplementedError

    @property
    def parts_of_head(self) -> list[nn.Module]:
        raise NotImplementedError

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        """Stages: one for each child of the backbone's body with weights, the first is `stem`; the head begins with the
        feature pyramid."""
        stages: dict[str, list[nn.Module]] = {"stem": []}
        current, begun = "stem", False
        for name, part in self.backbone.body.named_children():
            if sum(value.ndim == 4 for value in part.parameters()):
                current, begun = (f"{self._inside}{name}", True) if begun else (current, True)
            stages.setdefault(current, []).append(part)
        return {**stages, "head": [self.backbone.fpn, *self.parts_of_head]}

    @property
    def backbone_names(self) -> dict[str, str]:
        return {f"{self._inside}{name}": f"backbone.body.{name}" for name, _ in self.backbone.body.named_children()}

    @property
    def _inside(self) -> str:
        """The MobileNets' body is what is in `features` of the classifier."""
        return "" if "layer1" in self.backbone.body else "features."


class OneStage(TorchvisionDetector):
    """RetinaNet and FCOS: each place of each map scores the classes."""

    head: Any
    anchor_generator: Any

    def _asked(self, x: Tensor, maps: Maps) -> tuple[Maps, list[Tensor], list[int]]:
        """Outputs of the head (N, boxes, …), anchors of each image (boxes, 4), and places of each map."""
        levels = list(maps.values())
        outputs = {name: value.float() for name, value in self.head(levels).items()}
        anchors = self.anchor_generator(ImageList(x, sizes(x)), [level.float() for level in levels])
        return outputs, anchors, [level.shape[2] * level.shape[3] for level in levels]

    def found(self, x: Tensor, maps: Maps) -> list[dict[str, Tensor]]:
        outputs, anchors, places = self._asked(x, maps)
        each = outputs["cls_logits"].shape[1] // sum(places)
        counts = [each * count for count in places]
        split = {name: list(value.split(counts, dim=1)) for name, value in outputs.items()}
        boxes = [list(one.split(counts)) for one in anchors]
        found: list[dict[str, Tensor]] = self.postprocess_detections(split, boxes, sizes(x))  # type: ignore[operator]
        return found

    def losses(self, x: Tensor, maps: Maps, targets: Targets) -> Tensor:
        outputs, anchors, places = self._asked(x, maps)
        more = (places,) if "bbox_ctrness" in outputs else ()
        found = []
        for number, (target, boxes) in enumerate(zip(targets, anchors, strict=True)):
            own = {name: value[number : number + 1] for name, value in outputs.items()}
            found.append(total(self.compute_loss([target], own, [boxes], *more)))  # type: ignore[operator]
        return torch.stack(found)

    def on_meta(self, maps: Maps) -> Tensor:
        outputs = self.head(list(maps.values()))
        return torch.empty(len(outputs["cls_logits"]), 6, 1, device="meta")

    @property
    def parts_of_head(self) -> list[nn.Module]:
        return [self.head]

    @property
    def scoring(self) -> nn.Conv2d:
        layer: nn.Conv2d = self.head.classification_head.cls_logits
        return layer

    @property
    def class_layers(self) -> list[nn.Module]:
        return [self.scoring]

    def outputs_of(self, rows: int) -> int:
        return rows // int(self.anchor_generator.num_anchors_per_location()[0]) - 1


class TwoStage(TorchvisionDetector):
    """Faster R-CNN: boxes are proposed, and what is inside them is classified."""

    rpn: Any
    roi_heads: Any

    def found(self, x: Tensor, maps: Maps) -> list[dict[str, Tensor]]:
        with torch.autocast(x.device.type, enabled=False):
            maps = {name: value.float() for name, value in maps.items()}
            proposals, _ = self.rpn(ImageList(x, sizes(x)), maps)
            found: list[dict[str, Tensor]] = self.roi_heads(maps, proposals, sizes(x))[0]
        return found

    def losses(self, x: Tensor, maps: Maps, targets: Targets) -> Tensor:
        with torch.autocast(x.device.type, enabled=False), self._sampling(x):
            maps = {name: value.float() for name, value in maps.items()}
            return torch.stack([self._loss_of(x[number : number + 1],
                                              {name: value[number : number + 1] for name, value in maps.items()}, one)
                                for number, one in enumerate(targets)])  # fmt: skip

    def _loss_of(self, x: Tensor, maps: Maps, target: dict[str, Tensor]) -> Tensor:
        proposals, first = self.rpn(ImageList(x, sizes(x)), maps, [target])
        _, second = self.roi_heads(maps, proposals, sizes(x), [target])
        return total({**first, **second})

    @contextmanager
    def _sampling(self, x: Tensor) -> Iterator[None]:
        """Proposals are sampled as in training; outside of it always the same ones, and nothing else changes."""
        parts = self.rpn, self.roi_heads
        with torch.random.fork_rng([x.device] if x.is_cuda else [], enabled=not self.training):
            if not self.training:
                torch.manual_seed(0)
            for part in parts:
                part.training = True  # of the part alone, not of its layers
            try:
                yield
            finally:
                for part in parts:
                    part.training = self.training

    def on_meta(self, maps: Maps) -> Tensor:
        levels, proposals = list(maps.values()), self.rpn.post_nms_top_n()
        self.rpn.head(levels)
        side = self.roi_heads.box_roi_pool.output_size
        inside = torch.empty(proposals, levels[0].shape[1], *side, device="meta")
        self.roi_heads.box_predictor(self.roi_heads.box_head(inside))
        return torch.empty(len(levels[0]), 6, 1, device="meta")

    @property
    def parts_of_head(self) -> list[nn.Module]:
        return [self.rpn, self.roi_heads]

    @property
    def scoring(self) -> nn.Linear:
        layer: nn.Linear = self.roi_heads.box_predictor.cls_score
        return layer

    @property
    def class_layers(self) -> list[nn.Module]:
        return [self.roi_heads.box_predictor]

    def outputs_of(self, rows: int) -> int:
        return rows - 1


def sizes(x: Tensor) -> list[tuple[int, int]]:
    return [(x.shape[2], x.shape[3])] * len(x)


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([loss.float() for loss in losses.values()]).sum()


def packed(found: list[dict[str, Tensor]]) -> Tensor:
    """Boxes of all images in one tensor (N, 6, rows)."""
    rows = [rows_of(one) for one in found]
    together = rows[0].new_zeros(len(rows), 6, max(len(one) for one in rows))
    together[:, 0] = -1
    for table, one in zip(together, rows, strict=True):
        table[:, : len(one)] = one.T
    return together


def rows_of(found: dict[str, Tensor]) -> Tensor:
    """Boxes (n, 6) of one image: class from 0 on, score, corners."""
    label = found["labels"][:, None].to(found["boxes"].dtype) - 1
    rows = torch.cat([label, found["scores"][:, None], found["boxes"]], dim=1)
    return rows[found["labels"] > 0]


def build_detector(name: str, *, num_classes: int = 90, in_channels: int = 3, final_relu: bool = True
                   ) -> TorchvisionDetector:  # fmt: skip
    """Detector `name`. num_classes: without that of no object, which torchvision counts. final_relu: without effect."""
    net = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=num_classes + 1)
    if in_channels != 3:
        raise ValueError("torchvision's detectors take images in colour")
    kind = TwoStage if hasattr(net, "roi_heads") else OneStage
    net.__class__ = type(type(net).__name__, (kind, type(net)), {})
    assert isinstance(net, TorchvisionDetector)
    net.image_size = int(net.transform.min_size[-1])  # type: ignore[union-attr,index]
    del net.transform
    (net.roi_heads if isinstance(net, TwoStage) else net).score_thresh = LEAST
    return net
