"""torchvision's one-stage detectors of SSD's kind by name: their names, initialisation and function are its own.

They answer as `ssd.py` says. torchvision's others have losses and answers of their own kinds (`torchvision_rcnn.py`).
"""

from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from cnnbench.models.layers import BOXES, Net

SIDES = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}


class TorchvisionSSD(Net):
    """Methods of `Net` for torchvision's SSDs, on top of their own class."""

    answers = BOXES
    backbone: Any
    head: Any
    anchor_generator: Any

    def forward(self, x: Tensor) -> Tensor:
        maps = list(self.backbone(x).values())
        found = self.head(maps)
        (boxes,) = self.anchor_generator(ImageList(x, [(x.shape[2], x.shape[3])]), maps)
        scores = found["cls_logits"].roll(-1, dims=2)  # torchvision's first class is none
        return torch.cat([scores, found["bbox_regression"], boxes.expand(x.shape[0], -1, -1)], dim=2).transpose(1, 2)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        """Stages: one for each child of the backbone's features with weights, the first is `stem`; the head begins with
        the further maps."""
        own = list(self.backbone.parameters(recurse=False))
        head = [*([nn.ParameterList(own)] if own else []), self.backbone.extra, self.head]
        parts = [*self.backbone.features.children()]
        return {"stem" if n == 0 else f"features.{n}": [part] for n, part in enumerate(parts)
                if n == 0 or list(part.parameters())} | {"head": head}  # fmt: skip

    @property
    def scoring(self) -> nn.Conv2d:
        layers = [layer for layer in self.head.classification_head.modules() if isinstance(layer, nn.Conv2d)]
        return layers[-1]

    @property
    def class_layers(self) -> list[nn.Module]:
        return [self.head.classification_head]

    def outputs_of(self, rows: int) -> int:
        return rows // int(self.anchor_generator.num_anchors_per_location()[-1]) - 1


def build_detector(name: str, *, num_classes: int = 90, in_channels: int = 3, final_relu: bool = True
                   ) -> TorchvisionSSD:  # fmt: skip
    """Detector `name`. num_classes: without that of no object, which torchvision counts. final_relu: without effect."""
    net = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=num_classes + 1)
    if in_channels != 3:
        raise ValueError("torchvision's detectors take images in colour")
    net.__class__ = type(type(net).__name__, (TorchvisionSSD, type(net)), {})
    assert isinstance(net, TorchvisionSSD)
    net.image_size = SIDES[name]
    return net
