"""Nets for pixels: their sizes, that they take images of any size, and that they begin from a classifier's weights."""

import copy

import pytest
import torch
import torchvision
from torch.nn import functional as F

from cnnbench.analysis.complexity import count_complexity
from cnnbench.data.model_spec import InputSpec, ModelSpec
from cnnbench.models import build, check_answers, check_image_size
from cnnbench.models.layers import CLASS, MASK
from cnnbench.models.torchvision_nets import segmenters
from cnnbench.models.unet import mirrored
from cnnbench.utils.errors import UserError
from cnnbench.weights.merge import check_variant, merge
from cnnbench.weights.sources import Weights, usual

PARAMETERS = {
    ("fcn32s", 21): 134_346_581, ("fcn16s", 21): 134_357_354, ("fcn8s", 21): 134_362_751,
    ("fcn32s", 11): 134_305_611, ("fcn16s", 11): 134_311_254, ("fcn8s", 11): 134_314_081,
}  # fmt: skip


def parameters(net):
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(("name", "classes"), PARAMETERS)
def test_fcn_has_the_parameters_of_the_paper(name, classes):
    with torch.device("meta"):
        assert parameters(build(name, num_classes=classes)) == PARAMETERS[name, classes]


@pytest.mark.parametrize("size", [224, 320, 65])
def test_fcn_on_vgg_takes_images_of_any_size(size):
    with torch.device("meta"):
        check_image_size(build("fcn8s", num_classes=21), size)


def test_unet_has_the_size_of_figure_1():
    with torch.device("meta"):
        net = build("unet", num_classes=2, in_channels=1)
    found = count_complexity(net, 388, 1)  # 572 with the mirrored border
    assert (found.params, found.macs) == (31_030_658, 150_428_424_448)
    assert list(net.stages) == ["stem", "down1", "down2", "down3", "down4", "up3", "up2", "up1", "up0", "head"]


@pytest.mark.parametrize("padding", ["mirror", "same"])
def test_unet_answers_at_the_size_of_any_image(padding):
    torch.manual_seed(0)
    net = build("unet", num_classes=3, in_channels=1, width=2, padding=padding).eval()
    for size in ((388, 20), (1, 37), (40, 33)):
        assert net(torch.randn(1, 1, *size)).shape == (1, 3, *size)


def test_a_line_is_mirrored_as_numpy_does():
    import numpy as np

    for side in (2, 3, 7):
        expected = np.pad(np.arange(side), (20, 13), mode="reflect")
        assert mirrored(torch.arange(-20, side + 13), side).tolist() == expected.tolist()


def test_unets_answer_inside_is_that_of_the_image_without_a_border():
    """Where nothing beyond the edges is seen, mirroring changes nothing: convolutions have no padding."""
    torch.manual_seed(0)
    net = build("unet", num_classes=2, in_channels=1, width=2, dropout=0.0).double().eval()
    image = torch.randn(1, 1, 20 + 2 * 96, 20 + 2 * 96, dtype=torch.float64)
    whole, middle = net(image), net(image[..., 96:-96, 96:-96])
    again = net(F.pad(image, (16, 16, 16, 16)))  # zeros far from the middle
    assert torch.allclose(whole[..., 96:-96, 96:-96], again[..., 112:-112, 112:-112])
    assert not torch.allclose(whole[..., 96:-96, 96:-96], middle)


BACKBONES = {"resnet20": [32, 16], "alexnet": [384, 96], "squeezenet1_0": [512, 256], "mobilenet_v3_small": [48, 24],
             "googlenet": [480, 192]}  # fmt: skip


@pytest.mark.parametrize("backbone", BACKBONES)
def test_any_classifier_with_maps_is_a_backbone(backbone):
    torch.manual_seed(0)
    net = build("fcn8s", num_classes=5, backbone=backbone).eval()
    assert [skip.in_channels for skip in net.skips] == BACKBONES[backbone]
    images = torch.randn(2, 3, 130, 117)
    with torch.no_grad():
        scores = net(images)
        assert scores.shape == (2, 5, 130, 117) and not scores.any()  # the classes begin at zero
        assert torch.equal(copy.deepcopy(net)(images), scores)
    held = [id(parameter) for stage in net.stages.values() for part in stage for parameter in part.parameters()]
    assert len(held) == len(set(held)) and set(held) == {id(parameter) for parameter in net.parameters()}
    called = []
    for name, stage in net.stages.items():
        stage[-1].register_forward_hook(lambda *_, name=name: called.append(name))
    net(images)
    assert called == list(net.stages)  # in forward order, by the modules that the stages name


@pytest.mark.parametrize(("backbone", "said"), [
    ("deepface", "not for images of any size"), ("swin_t", "not for images of any size"), ("fcn8s", "is no classifier"),
    ("vit_b_16", "has maps of 1 size, and needs 3"), ("resnet", "Did you mean"),
])  # fmt: skip
def test_a_backbone_that_will_not_do_is_refused(backbone, said):
    with pytest.raises(UserError, match="fcn8s") as refused, torch.device("meta"):
        build("fcn8s", num_classes=5, backbone=backbone)
    assert said in str(refused.value)


def test_the_skips_add_scores_of_finer_maps():
    """fcn16s is fcn32s with one more term: the paper's figure 3, step by step."""
    torch.manual_seed(0)
    net = build("fcn16s", num_classes=3, backbone="resnet8").eval()
    for layer in (net.score, *net.skips):
        torch.nn.init.normal_(layer.weight)
    image = torch.randn(1, 3, 32, 44)
    fine, coarse = net.backbone(image).values()
    scores = F.interpolate(net.score(coarse), fine.shape[-2:], mode="bilinear") + net.skips[0](fine)
    torch.testing.assert_close(net(image), F.interpolate(scores, image.shape[-2:], mode="bilinear"))


def test_the_linear_layers_of_a_classifier_are_convolutions():
    """At the middle of an image of the native size fc7 sees what the classifier does: no padding of fc6."""
    torch.manual_seed(0)
    classifier = build("alexnet_owt", num_classes=4).eval()
    net = build("fcn32s", num_classes=4, backbone="alexnet_owt").eval()
    report = merge(net, Weights(source="file", state=classifier.state_dict(), spec=None))
    assert report.unused == ["classifier.6.weight", "classifier.6.bias"]
    assert list(report.fresh) == ["score.weight", "score.bias"]
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        features = classifier.classifier[:6](classifier.features(image).flatten(1))
        (coarsest,) = net.backbone(image).values()
        torch.testing.assert_close(net.fc(coarsest)[..., 3, 3], features, rtol=1e-4, atol=1e-5)


def test_weights_of_a_backbone_are_told_from_those_of_the_net():
    net, other = build("fcn8s", num_classes=3, backbone="resnet8"), build("resnet8", num_classes=10)
    own = {name: value.clone() for name, value in net.state_dict().items()}
    assert not merge(net, Weights(source="file", state=own, spec=None)).fresh
    report = merge(net, Weights(source="file", state=other.state_dict(), spec=None))
    assert torch.equal(net.backbone.layer3.get_submodule("0").conv1.weight, other.layer3[0].conv1.weight)
    assert {name.partition(".")[0] for name in report.fresh} == {"skips", "score"}
    with pytest.raises(UserError, match=r"missing in the file: backbone\.conv1\.weight"):
        merge(net, Weights(source="file", state=build("nin_cifar").state_dict(), spec=None))
    assert usual({"name": "fcn8s", "backbone": "resnet20"}) == "zoo:resnet20-cifar10"


def test_the_weights_backbone_must_be_the_nets():
    from cnnbench.weights.sources import load

    zoo = load("zoo:resnet20-cifar10")
    check_variant({"name": "fcn8s", "backbone": "resnet20"}, zoo)
    with pytest.raises(UserError, match="is of resnet20, not of fcn8s"):
        check_variant({"name": "fcn8s", "backbone": "resnet32"}, zoo)


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"])
def test_segmentation_nets_of_torchvision_are_torchvisions_own(name):
    torch.manual_seed(0)
    auxiliary = {} if name.startswith("lraspp") else {"aux_loss": True}
    theirs = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=4, **auxiliary)
    net = build(name, source="torchvision", num_classes=4)
    net.load_state_dict(theirs.state_dict(), strict=True)
    image = torch.randn(2, 3, 48, 65)
    with torch.no_grad():
        assert torch.equal(net.eval()(image), theirs.eval()(image)["out"])
        outputs = net.train()(image)
    assert [one.shape for one in (outputs if auxiliary else [outputs])] == [(2, 4, 48, 65)] * (1 + bool(auxiliary))
    assert next(iter(net.stages)) == "stem" and list(net.stages)[-1] == "head"
    held = [id(parameter) for stage in net.stages.values() for part in stage for parameter in part.parameters()]
    assert len(held) == len(set(held)) and set(held) == {id(parameter) for parameter in net.parameters()}


@pytest.mark.parametrize("name", segmenters())
def test_segmentation_nets_of_torchvision_have_the_published_size(name):
    with torch.device("meta"):
        net = build(name, source="torchvision", num_classes=21)
    assert parameters(net) == torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]


def test_fcn_resnet50_begins_from_a_resnet50():
    classifier = build("resnet50")
    net = build("fcn_resnet50", source="torchvision", num_classes=3)
    report = merge(net, Weights(source="file", state=classifier.state_dict(), spec=None))
    assert {name.partition(".")[0] for name in report.fresh} == {"classifier", "aux_classifier"}
    assert torch.equal(net.backbone.conv1.weight, classifier.conv1.weight)
    spec = ModelSpec(
        model={"name": "resnet50"}, labels=[], input=InputSpec(image_size=8, in_channels=3, mean=[], std=[])
    )
    check_variant({"name": "fcn_resnet50", "source": "torchvision"}, Weights(source="run", state={}, spec=spec))


def test_nets_say_what_they_answer_with():
    assert (build("unet", width=1).answers, build("resnet8").answers) == (MASK, CLASS)
    with pytest.raises(UserError, match="fcn_resnet50") as refused:
        check_answers({"name": "resnet18", "source": "torchvision"}, MASK, "segmentation")
    assert "resnet18 answers with a class for each image" in str(refused.value)
    with pytest.raises(UserError, match=r"take fcn32s, fcn16s, fcn8s, unet$"):
        check_answers({"name": "resnet8"}, MASK, "segmentation")
    with pytest.raises(UserError, match="at least 21 x 21 pixels, not 16 x 16"):
        check_image_size(build("fcn8s", num_classes=2, backbone="squeezenet1_0"), 16)
