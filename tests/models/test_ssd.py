"""SSD beside torchvision's: the same names, numbers and answers; and on other classifiers."""

import pytest
import torch
import torchvision
from torchvision.models.detection.image_list import ImageList

from cnnbench.models import build, check_answers, smallest_image
from cnnbench.models.layers import output_layer
from cnnbench.utils.errors import UserError
from cnnbench.weights.merge import merge
from cnnbench.weights.sources import Weights


def theirs(classes):
    return torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=classes + 1)


@pytest.mark.parametrize(("classes", "parameters"), [(90, 35_641_826), (20, 26_285_486)])
def test_ssd300_has_torchvisions_names_and_the_papers_size(classes, parameters):
    with torch.device("meta"):
        ours, other = build("ssd300", num_classes=classes), theirs(classes)
    shapes = [[(name, value.shape) for name, value in net.state_dict().items()] for net in (ours, other)]
    assert shapes[0] == shapes[1] and sum(value.numel() for value in ours.parameters()) == parameters
    owned = [id(value) for stage in ours.stages.values() for part in stage for value in part.parameters()]
    assert len(owned) == len(set(owned)) == len(list(ours.parameters()))


@torch.no_grad()
def test_ssd300_answers_as_torchvisions_with_its_weights():
    torch.manual_seed(0)
    with torch.device("meta"):
        ours, other = build("ssd300", num_classes=2), theirs(2)
    ours, other = ours.to_empty(device="cpu").eval(), other.to_empty(device="cpu").eval()
    for value in other.parameters():  # to draw weights as the nets do takes most of a minute
        value.copy_(torch.randn(9973).mul_(0.03).repeat(value.numel() // 9973 + 1)[: value.numel()].view_as(value))
    ours.load_state_dict(other.state_dict())
    images = torch.randn(1, 3, 300, 300)
    maps = list(other.backbone(images).values())
    found, boxes = other.head(maps), other.anchor_generator(ImageList(images, [(300, 300)]), maps)[0]
    answer = ours(images)[0].T
    assert answer.shape == (8732, 3 + 8)
    assert torch.equal(answer[:, :3], found["cls_logits"][0][:, [1, 2, 0]])  # theirs begin with "none"
    assert torch.equal(answer[:, 3:7], found["bbox_regression"][0]) and torch.equal(answer[:, 7:], boxes)


@pytest.mark.parametrize("backbone", ["resnet8", "squeezenet1_0"])
def test_ssd_stands_on_any_classifier_and_begins_from_its_weights(backbone):
    net = build("ssd", num_classes=3, backbone=backbone, pyramid=16)
    source = "torchvision" if backbone.startswith("squeeze") else "cnnbench"
    below = build(backbone, source=source)
    report = merge(net, Weights(source="file", state=dict(below.state_dict()), spec=None))
    assert set(report.loaded) == {name for name in net.state_dict() if name.startswith("backbone.body.")}
    name = report.loaded[0].removeprefix("backbone.body.")
    assert torch.equal(net.state_dict()[report.loaded[0]], below.state_dict()[name])
    assert net(torch.randn(1, 3, 96, 96)).shape[1] == 3 + 1 + 8
    assert smallest_image(net) <= 96 and net.outputs_of(output_layer(net).weight.shape[0]) == 3


def test_weights_of_a_detector_keep_all_but_the_scores_for_other_classes():
    before, after = build("ssd", num_classes=3, backbone="resnet8"), build("ssd", num_classes=5, backbone="resnet8")
    report = merge(after, Weights(source="file", state=dict(before.state_dict()), spec=None), new_head=True)
    assert all("classification_head" in name for name in report.fresh) and report.fresh


def test_what_does_not_fit_is_refused():
    wrong = [({"backbone": "ssd300"}, "is no classifier"), ({"backbone": "resnet8", "maps": 9}, "needs 9"),
             ({"smallest": 0.9}, "the smaller one first"), ({"pyramid": 20}, "a multiple of 16")]  # fmt: skip
    for arguments, text in wrong:
        with pytest.raises(UserError, match=text), torch.device("meta"):
            build("ssd", num_classes=2, **arguments)
    with pytest.raises(UserError, match=r"take ssd300, ssd$"):
        check_answers({"name": "resnet8"}, build("ssd", backbone="resnet8").answers, "detection")


@pytest.mark.parametrize("name", ["ssd300_vgg16", "ssdlite320_mobilenet_v3_large"])
@torch.no_grad()
def test_torchvisions_own_ssds_answer_as_ours(name):
    with torch.device("meta"):
        theirs = torchvision.models.detection.__dict__[name](weights=None, weights_backbone=None, num_classes=4)
        net = build(name, source="torchvision", num_classes=3)
    assert [*net.state_dict()] == [*theirs.state_dict()] and net.outputs_of(output_layer(net).weight.shape[0]) == 3
    owned = [id(value) for stage in net.stages.values() for part in stage for value in part.parameters()]
    assert len(owned) == len(set(owned)) == len(list(net.parameters()))
    if name.startswith("ssdlite"):
        net, theirs = build(name, source="torchvision", num_classes=3).eval(), None
        images = torch.randn(1, 3, 320, 320)
        maps = list(net.backbone(images).values())
        assert net(images).shape == (1, 12, 3234)
        assert torch.equal(net(images)[0, :3].T, net.head(maps)["cls_logits"][0][:, 1:])
