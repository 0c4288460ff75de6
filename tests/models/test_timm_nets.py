"""timm's nets, where timm is installed; what is said where it is not."""

import sys

import pytest
import torch

from cnnbench import models
from cnnbench.models.layers import output_layer
from cnnbench.models.timm_nets import images_of
from cnnbench.utils.errors import UserError
from cnnbench.weights import load, merge, sources
from tests.helpers.runs import SMALL

KNOWN = {"source": "timm", "name": "resnet10t"}


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"model=timm needs timm: pip install 'cnnbench\[timm\]'"):
        models.build(**KNOWN)


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="timm is not installed")


def test_stages_and_images_are_found(timm):
    expected = {
        "resnet10t": ["stem", "layer1", "layer2", "layer3", "layer4", "head"],
        "convnext_atto": ["stem", *(f"stages.{n}" for n in range(4)), "head"],
        "vit_tiny_patch16_224": ["stem", *(f"blocks.{n}" for n in range(12)), "head"],
    }
    for name, stages in expected.items():
        with torch.device("meta"):
            net = models.build(name, source="timm", num_classes=7)
        assert list(net.stages) == stages and output_layer(net).out_features == 7, name
        held = [id(p) for parts in net.stages.values() for part in parts for p in part.parameters()]
        assert sorted(held) == sorted(map(id, net.parameters())), name
    about = images_of("resnet10t")
    assert about["image_size"] == 176 and about["mean"] == [0.485, 0.456, 0.406] and about["crop_ratio"] == 0.875


def test_one_sentence_for_what_timm_does_not_take(timm):
    for more, words in (
        ({"name": "resnet10x"}, "unknown net of timm 'resnet10x'. Did you mean 'resnet10t'"),
        ({"name": "resnet10t.nobody"}, "unknown weights of resnet10t in timm 'nobody'"),
        ({"name": "hf-hub:somebody/net"}, "unknown net of timm"),
        ({"args": {"pretrained": True}}, r"model.args.pretrained: weights are given by weights="),
        ({"args": {"checkpoint_path": "x.pt"}}, r"model.args.checkpoint_path: weights are given"),
        ({"args": {"wide": 3}}, "timm cannot build resnet10t: TypeError"),
    ):
        with pytest.raises(UserError, match=words):
            models.build(**{**KNOWN, **more})


def test_published_weights_come_from_the_cache_alone(timm, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(UserError, match="are in no cache"):
        sources.load("imagenet", dict(KNOWN))
    torch.manual_seed(0)
    net = timm.create_model("resnet10t", num_classes=1000)
    folder = tmp_path / "hf/hub/models--timm--resnet10t.c3_in1k/snapshots/abc"
    folder.mkdir(parents=True)
    save_file(net.state_dict(), folder / "model.safetensors")
    weights = sources.load("imagenet", dict(KNOWN))
    ours, images = sources.build(weights), torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(ours(images), net.eval()(images))
    assert (
        weights.spec.labels[0] == "tench"
        and weights.spec.input.interpolation == images_of("resnet10t")["interpolation"]
    )
    other = models.build(**KNOWN, num_classes=5)
    assert "1000 classes there, 5 here" in merge.merge(other, weights).text()

    torch.save(net.state_dict(), tmp_path / "own.pt")
    prepare = load.PrepareConfig(**dict.fromkeys(load.PrepareConfig.__dataclass_fields__))
    loaded, spec, notes = load.ready(sources.load(str(tmp_path / "own.pt"), dict(KNOWN)), dict(KNOWN), prepare)
    torch.testing.assert_close(loaded(images), net(images))
    assert spec.input == weights.spec.input and "images: prepared as timm says of resnet10t" in notes


def test_trained_and_used(timm, cnnbench, no_pictures):
    small = [one for one in SMALL if "image_size" not in one]
    net = ("model=timm", "model.name=resnet10t", "data.image_size=32")
    told = cnnbench("train", *net, *small, "data.fraction=0.1", "epochs=1", "run.dir=r")
    assert told.code == 0, told.err
    for line in (
        ("evaluate", "weights=r", "device=cpu"),
        ("export", "weights=r", "format=safetensors", "out=r.safetensors"),
        ("finetune", "weights=r", "transfer=head", *small, "epochs=1", "run.dir=f"),
    ):
        told = cnnbench(*line)
        assert told.code == 0, told.err
