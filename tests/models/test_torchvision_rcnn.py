"""Faster R-CNN, RetinaNet and FCOS beside torchvision's own: the same names, boxes and losses with the same weights."""

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from cnnbench.config.sections import PrepareConfig
from cnnbench.models import backbone_of, build, needs_targets
from cnnbench.models.layers import BOXES, output_layer, run_on_meta
from cnnbench.models.torchvision_nets import net_builder
from cnnbench.models.torchvision_rcnn import LEAST, NAMES, rows_of
from cnnbench.tasks.detection.decode import KEPT, detections
from cnnbench.tasks.detection.decode import LEAST as VALIDATED
from cnnbench.utils.errors import UserError
from cnnbench.weights.load import named_classes, ready
from cnnbench.weights.merge import merge
from cnnbench.weights.sources import Weights

SIDE, CLASSES = 96, 3
KINDS = ["fasterrcnn_mobilenet_v3_large_320_fpn", "retinanet_resnet50_fpn", "fcos_resnet50_fpn"]
PREPARE = PrepareConfig(
    image_size=SIDE, crop_ratio=None, interpolation=None, mean=None, std=None, classes=["a", "b", "c"]
)
TARGETS = [{"boxes": torch.tensor([[8.0, 8, 50, 60], [30, 40, 90, 88]]), "labels": torch.tensor([1, 3])},
           {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}]  # fmt: skip


class Given(nn.Module):
    """In place of torchvision's own preparation: images that are prepared."""

    def forward(self, images: list[Tensor], targets: object = None) -> tuple[ImageList, object]:
        return ImageList(torch.stack(images), [(SIDE, SIDE)] * len(images)), targets

    def postprocess(self, result: object, *_: object) -> object:
        return result


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """The net and torchvision's, with the same weights."""
    torch.manual_seed(0)
    ours = build(request.param, source="torchvision", num_classes=CLASSES)
    with torch.device("meta"):
        theirs = torchvision.models.detection.__dict__[request.param](
            weights=None, weights_backbone=None, num_classes=CLASSES + 1
        )
    for name, value in [*ours.named_parameters()]:
        if "cls_" in name and value.ndim > 1:
            nn.init.normal_(value, std=0.05)  # scores that differ
    theirs = theirs.to_empty(device="cpu")
    theirs.load_state_dict(ours.state_dict())
    for module in theirs.modules():  # to_empty() loses what lies in no state dict
        if hasattr(module, "cell_anchors"):
            module.cell_anchors = [ours_cell.clone() for ours_cell in anchors_of(ours).cell_anchors]
    theirs.transform = Given()
    (theirs.roi_heads if hasattr(theirs, "roi_heads") else theirs).score_thresh = LEAST
    return ours, theirs


def anchors_of(net: nn.Module) -> nn.Module:
    return net.rpn.anchor_generator if hasattr(net, "rpn") else net.anchor_generator


@torch.no_grad()
def test_boxes_and_losses_are_torchvisions(pair: tuple[nn.Module, nn.Module]) -> None:
    ours, theirs = (net.eval() for net in pair)
    images = torch.randn(2, 3, SIDE, SIDE)
    found, expected = ours(images), theirs(list(images))
    kept = detections(found, SIDE)
    for columns, rows, one in zip(found, kept, expected, strict=True):
        known = rows_of(one)
        assert len(known) > 20 and len(set(known[:, 0].tolist())) > 1
        assert torch.equal(columns.T[: len(known)], known)
        assert torch.equal(rows[: len(known)], known[:KEPT]) and (rows[len(known) :, 0] == -1).all()
        sure = detections(found, SIDE, least=float(known[4, 1]))
        assert (sure[:, :, 1] > 0).sum(1).min() <= 4

    again, losses = ours(images, TARGETS)
    assert torch.equal(again, found) and torch.equal(ours(images, TARGETS)[1], losses)  # the same proposals each time
    assert torch.equal(ours(images.flip(0), TARGETS[::-1])[1][1], losses[0]) or hasattr(ours, "rpn")
    for part in ("rpn", "roi_heads"):
        assert not hasattr(ours, part) or not getattr(ours, part).training
    for number in range(2):
        torch.manual_seed(0)
        for part in [theirs, *(getattr(theirs, name) for name in ("rpn", "roi_heads") if hasattr(theirs, name))]:
            part.training = True  # not their layers: BatchNorm stays
        own = theirs([images[number]], [TARGETS[number]])
        theirs.eval()
        alone = ours(images[number : number + 1], TARGETS[number : number + 1])[1]
        assert torch.equal(alone[0], torch.stack([*own.values()]).sum()), own
        assert hasattr(ours, "rpn") or torch.allclose(alone[0], losses[number])  # the batch does not matter


def test_a_step_reaches_every_weight(pair: tuple[nn.Module, nn.Module]) -> None:
    net = pair[0].train()
    found, losses = net(torch.randn(2, 3, SIDE, SIDE), TARGETS)
    losses.mean().backward()
    assert found.shape == (2, 6, 0) and losses.shape == (2,) and losses.isfinite().all()
    assert all(value.grad is not None for value in net.parameters())
    net.zero_grad(set_to_none=True)
    owned = [id(value) for stage in net.stages.values() for part in stage for value in part.parameters()]
    assert len(owned) == len(set(owned)) == len(list(net.parameters()))
    assert next(iter(net.stages)) == "stem" and list(net.stages)[-1] == "head"


def test_weights_go_over_by_name(pair: tuple[nn.Module, nn.Module]) -> None:
    net, theirs = pair
    assert net.outputs_of(output_layer(net).weight.shape[0]) == CLASSES and LEAST == VALIDATED
    with torch.device("meta"):
        other = build(net.name, source="torchvision", num_classes=5)
    report = merge(other.to_empty(device="cpu"), Weights(source="file", state=theirs.state_dict(), spec=None))
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in report.fresh} <= {"cls_score", "bbox_pred",
                                                                                    "cls_logits"}  # fmt: skip
    below = backbone_of({"name": net.name, "source": "torchvision"})
    assert below is not None
    with torch.device("meta"):
        classifier = build(**below).to_empty(device="cpu")
    for value in classifier.state_dict().values():
        value.fill_(1)
    report = merge(net, Weights(source="file", state=dict(classifier.state_dict()), spec=None))
    assert set(report.loaded) == {name for name in net.state_dict() if name.startswith("backbone.body.")}


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_its_published_size(name: str) -> None:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    with torch.device("meta"):
        net = build(name, source="torchvision")
    frozen = sum(value.numel() for key, value in net.named_buffers() if "running" in key)
    published = weights.meta["num_params"]  # of a net whose BatchNorm may count as parameters
    assert published - frozen <= sum(value.numel() for value in net.parameters()) <= published + frozen
    assert net.image_size == (320 if "320" in name else 800) and needs_targets(name, "torchvision")
    if name != "fasterrcnn_resnet50_fpn_v2":
        run_on_meta(net, net.image_size)


@pytest.mark.parametrize("name", ["maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn"])
def test_masks_and_keypoints_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: it also learns masks or keypoints.*take fasterrcnn_resnet50_fpn"):
        net_builder(name)


def test_a_bare_file_is_known_to_be_of_a_detector(pair: tuple[nn.Module, nn.Module]) -> None:
    bare = Weights(source="file", state=pair[1].state_dict(), spec=None)
    model = {"name": pair[0].name, "source": "torchvision"}
    net, spec, _ = ready(bare, model, PREPARE)
    assert (spec.task, spec.labels, spec.input.crop_ratio) == ("detection", ["a", "b", "c"], 1.0)
    assert not net.training and torch.equal(net.scoring.weight, pair[1].state_dict()[weight_of(net)])
    names, note = named_classes(90, ["bicycle", "toothbrush"], "file", BOXES)
    assert (names[0], names[1], names[11], names[89]) == ("person", "bicycle", "no category 12", "toothbrush")
    assert "COCO's 90 numbers" in note and len(set(names)) == 90


def weight_of(net: nn.Module) -> str:
    return next(name for name, value in net.named_parameters() if value is net.scoring.weight)
