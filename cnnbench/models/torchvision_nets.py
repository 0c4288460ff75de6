"""torchvision's classifiers and segmentation nets by name, to compare modern nets with the classical ones.

Parameter names, initialisation and function are torchvision's own, so its weights load. What a Net adds is derived:
`stages` from the order of the children, `image_size` from the images that the published weights were made for.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.models.layers import MASK, Net, convolved
from cnnbench.utils.errors import UserError, unknown
from cnnbench.utils.fast_start import import_torchvision

import_torchvision()
import torchvision  # noqa: E402

from cnnbench.models import torchvision_detectors, torchvision_rcnn  # noqa: E402
from cnnbench.models.torchvision_detectors import SIDES  # noqa: E402

AUX_WEIGHTS = {"googlenet": 0.3, "inception_v3": 0.4}
SEGMENTED = 520  # shorter side of the images that the segmentation nets were evaluated on
SEGMENTATION_AUX_WEIGHT = 0.5  # in torchvision's own training
AUX_IMAGE_SIZES = {"inception_v3": 299}


def available_nets() -> list[str]:
    """Names of torchvision's classifiers, segmentation nets and detectors of boxes."""
    return [*classifiers(), *segmenters(), *SIDES, *torchvision_rcnn.NAMES]


def classifiers() -> list[str]:
    return list(torchvision.models.list_models(module=torchvision.models))


def segmenters() -> list[str]:
    return list(torchvision.models.list_models(module=torchvision.models.segmentation))


def backbone_of(name: str) -> str | None:
    """Name of the classifier on which a segmentation net or a detector is built; None for a classifier."""
    if name in torchvision_rcnn.NAMES:
        return name.partition("_")[2].partition("_fpn")[0].removesuffix("_320")
    return name.partition("_")[2] if name in segmenters() else None


def net_builder(name: str | None) -> Callable[..., Net]:
    """Builder of the net `name`. UserError with the choices for an unknown name."""
    if name is None:
        raise UserError(
            f"model=torchvision needs a name, as in model.name=squeezenet1_0\nchoices: {', '.join(available_nets())}"
        )
    if name.startswith(("maskrcnn_", "keypointrcnn_")):
        raise UserError(
            f"model.name={name}: it also learns masks or keypoints of each object, which no data set here has; "
            "take fasterrcnn_resnet50_fpn, which is the same net for boxes alone"
        )
    if name not in available_nets() and name in torchvision.models.list_models():
        raise UserError(
            f"model.name={name}: torchvision has it, but it is quantized, or for videos or for optical flow; "
            "what is trained here are classifiers, segmentation nets and detectors of images"
        )
    if name not in available_nets():
        raise unknown("torchvision model", name, available_nets())
    if name in torchvision_rcnn.NAMES:
        return partial(torchvision_rcnn.build_detector, name)
    if name in SIDES:
        return partial(torchvision_detectors.build_detector, name)
    build = build_segmenter if name in segmenters() else build_net
    return partial(build, name)


def build_net(name: str, *, num_classes: int = 1000, in_channels: int = 3, final_relu: bool = True) -> Net:
    """Classifier `name`. For other in_channels its first convolution is replaced by one that torch initialises.

    final_relu=False leaves out the ReLU behind SqueezeNet's last layer: its logits are then linear in its features.
    """
    net = _make(name, num_classes)
    if isinstance(net, torchvision.models.SqueezeNet) and not final_relu:
        net.classifier[2] = nn.Identity()
    if in_channels != 3:
        _replace_first_convolution(net, in_channels)
    if name in AUX_IMAGE_SIZES:
        net.AuxLogits.__class__ = SkippingAuxiliary
    size = getattr(net, "image_size", None) or _image_size(name)
    # Only the class of the object changes, so no parameter is renamed.
    net.__class__ = type(type(net).__name__, (TorchvisionNet, type(net)), {})
    assert isinstance(net, TorchvisionNet)
    net.image_size = size
    net.map_dims = (1, 2) if isinstance(net, torchvision.models.SwinTransformer) else (2, 3)
    net.aux_weight, net.aux_image_size = AUX_WEIGHTS.get(name, 0.0), AUX_IMAGE_SIZES.get(name, 0)
    return net


def _make(name: str, num_classes: int) -> nn.Module:
    # Without this argument these two nets warn that its default will change.
    arguments: dict[str, Any] = {"init_weights": True} if name in AUX_WEIGHTS else {}
    try:
        return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **arguments)
    except NotImplementedError:  # RegNets compute their widths with tensors: not possible on the meta device
        device = torch.get_default_device()
        with torch.device("cpu"):
            return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **arguments).to(device)


class TorchvisionNet(Net):
    """Methods of `Net` for torchvision's nets, on top of their own class."""

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs = super().forward(x)
        if not isinstance(outputs, tuple):
            return outputs
        logits = tuple(output for output in outputs if output is not None)  # a namedtuple as a plain one
        return logits if len(logits) > 1 else logits[0]

    def dense(self, x: Tensor) -> Tensor:
        pool = getattr(self, "avgpool", None)
        side = pool.output_size if isinstance(pool, nn.AdaptiveAvgPool2d) else 1
        side = side[0] if isinstance(side, tuple) else side
        if side is None or side == 1:
            return super().dense(x)
        return convolved(self.features(x), self.classifier, side)  # type: ignore[operator,arg-type]

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        """Stages by name: one for each child with a convolution or linear layer; other children join the stage before.

        Sequences of unlike layers count as their children. The first stage is `stem`, and `head` begins with the last
        convolution or linear layer.
        """
        auxiliary = list(self.auxiliary.values())
        parts = [(name, part) for name, part in _parts(self, "") if not any(part is head for head in auxiliary)]
        last = max(number for number, (_, part) in enumerate(parts) if _has_weights(part))
        own = list(self.parameters(recurse=False))
        stages: dict[str, list[nn.Module]] = {"stem": [nn.ParameterList(own)] if own else []}
        current, begun = "stem", False
        for number, (name, part) in enumerate(parts):
            if number == last:
                current = "head"
            elif _has_weights(part) and begun:
                current = name
            begun = begun or _has_weights(part)
            stages.setdefault(current, []).append(part)
        stages["head"] = [*auxiliary, *stages["head"]]
        return stages

    @property
    def auxiliary(self) -> dict[str, nn.Module]:
        found = {name: getattr(self, name, None) for name in ("aux1", "aux2", "AuxLogits")}
        return {name: head for name, head in found.items() if head is not None}


class TorchvisionSegmenter(Net):
    """Methods of `Net` for torchvision's segmentation nets, on top of their own class."""

    answers, any_size = MASK, True

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        scores = super().forward(x)
        return (scores["out"], scores["aux"]) if self.training and "aux" in scores else scores["out"]

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        """Stages: one for each child of the backbone with weights, the first is `stem`; the head is the classifiers."""
        stages: dict[str, list[nn.Module]] = {"stem": []}
        current, begun = "stem", False
        for name, part in self.backbone.named_children():  # type: ignore[union-attr]
            if _has_weights(part):
                current, begun = (name, True) if begun else (current, True)
            stages.setdefault(current, []).append(part)
        return {**stages, "head": [*self.auxiliary.values(), self.classifier]}  # type: ignore[list-item]

    @property
    def auxiliary(self) -> dict[str, nn.Module]:
        head = getattr(self, "aux_classifier", None)
        return {} if head is None else {"aux_classifier": head}

    @property
    def backbone_names(self) -> dict[str, str]:
        """LRASPP and the MobileNets take the children of `features` for the backbone; the ResNets are as they are."""
        names = [name for name, _ in self.backbone.named_children()]  # type: ignore[union-attr]
        inside = "" if "layer1" in names else "features."
        return {f"{inside}{name}": f"backbone.{name}" for name in names}


def build_segmenter(name: str, *, num_classes: int = 21, in_channels: int = 3, final_relu: bool = True
                    ) -> TorchvisionSegmenter:  # fmt: skip
    """Segmentation net `name`, with its auxiliary head where its published weights have one. final_relu: without
    effect, as for most classifiers."""
    auxiliary = {} if name.startswith("lraspp") else {"aux_loss": True}
    net = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=num_classes, **auxiliary)
    if in_channels != 3:
        _replace_first_convolution(net, in_channels)
    net.__class__ = type(type(net).__name__, (TorchvisionSegmenter, type(net)), {})
    assert isinstance(net, TorchvisionSegmenter)
    net.image_size, net.aux_weight = SEGMENTED, SEGMENTATION_AUX_WEIGHT
    return net


class SkippingAuxiliary(torchvision.models.inception.InceptionAux):
    """Auxiliary classifier of inception_v3 that returns None where its map is too small for its convolution."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) if min(x.shape[-2:]) >= 17 else None


def _parts(module: nn.Module, prefix: str) -> list[tuple[str, nn.Module]]:
    """Named children in order; a sequence of unlike layers is replaced by its own children."""
    parts: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        unlike = len({type(grandchild) for grandchild in child.children()}) > 1
        if isinstance(child, nn.Sequential) and not prefix and unlike:
            parts += _parts(child, f"{name}.")
        else:
            parts.append((f"{prefix}{name}", child))
    return parts


def _has_weights(part: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d | nn.Linear) for module in part.modules())


def _image_size(name: str) -> int:
    """Side of the crops at which the recommended weights were evaluated; 224 where there are none."""
    weights = [*torchvision.models.get_model_weights(name)]
    recommended = getattr(torchvision.models.get_model_weights(name), "DEFAULT", None)
    size: int = recommended.transforms.keywords["crop_size"] if weights and recommended else 224
    return size


def _replace_first_convolution(net: nn.Module, in_channels: int) -> None:
    name, old = next((name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d))
    parent, _, key = name.rpartition(".")
    new = nn.Conv2d(in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=old.bias is not None)  # type: ignore[arg-type]
    setattr(net.get_submodule(parent), key, new)
