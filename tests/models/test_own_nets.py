"""Nets of a user's own: built, seen through, refused; and whose file is trusted."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from cnnbench import models
from cnnbench.models import own_files, own_nets
from cnnbench.models.adapted import adapted
from cnnbench.models.layers import output_layer
from cnnbench.utils.errors import UserError
from tests.helpers.own_nets import forget, write_net

MORE = """
import torch
from os import system
from torch import nn
from torchvision.models import resnet18


class LeNet(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh())
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(1600, 84), nn.Tanh(), nn.Linear(84, num_classes))

    def forward(self, x):
        return self.classifier(self.features(x))


class Wrapped(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.backbone = resnet18()
        self.backbone.fc = nn.Identity()
        self.scale = nn.Parameter(torch.ones(1))
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x):
        return self.fc(self.backbone(x)) * self.scale


class Auxiliary(nn.Module):
    def __init__(self, num_classes=10, in_chans=3):
        super().__init__()
        self.head = nn.Linear(8, num_classes)  # the order is not that of the run
        self.aux = nn.Linear(8, num_classes)
        self.relu = nn.ReLU()
        self.a, self.b = nn.Conv2d(in_chans, 8, 3), nn.Conv2d(8, 8, 3)

    def forward(self, x):
        x = self.relu(self.b(self.relu(self.a(x)))).mean((2, 3))
        return (self.head(x), self.aux(x)) if self.training else self.head(x)


class Named(LeNet):
    image_size = 28

    def __init__(self, num_classes=10, stages=None):
        super().__init__(num_classes)
        self.classifier[1] = nn.Linear(1024, 84)
        self.stages = stages or {"one": ["features"], "head": [self.classifier]}


class Twelve(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 12)

    def forward(self, x):
        return self.fc(x.flatten(1))


class Reads(Twelve):
    def forward(self, x):
        return self.fc(x.flatten(1)) if x.mean() > 0 else self.fc(x.flatten(1) + 1)


class Looks(LeNet):
    def forward(self, x):
        return super().forward(x + 1 if x.shape[2] > 40 else x)


class Maps(nn.Conv2d):
    def __init__(self, num_classes=10):
        super().__init__(3, num_classes, 3)


def build(num_classes, in_channels=3, **more):
    rates = [rate.item() for rate in torch.linspace(0, 1, 3)]  # as those of a stochastic depth, not on the meta device
    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.Flatten(), nn.Linear(4 * 36, num_classes))


def number():
    return 3
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    forget(monkeypatch)
    return str(write_net(tmp_path, "more.py", MORE))


def own(file: str, name: str, **arguments):
    return models.build(name, source="python", file=file, **arguments)


def test_a_net_keeps_its_weights_and_answers(tmp_path):
    path = write_net(tmp_path)
    net = own(str(path), "Net", num_classes=7, in_channels=1, args={"width": 4}).eval()
    images = torch.rand(2, 1, 12, 12)
    torch.testing.assert_close(net(images), net.net(images))
    assert type(net.net).__name__ == "Net" and net.name == "Net" and net(images).shape == (2, 7)
    assert list(net.stages) == ["stem", "stages.0", "stages.1", "stages.2", "head"]
    assert models.own_channels("Net", "python", file=str(path)) == 3
    assert output_layer(net) is net.net.dense and net.image_size == 224 and net.any_size
    again = own(str(path), "Net", num_classes=7, in_channels=1, args={"width": 4})
    assert type(again.net) is type(net.net)  # its code ran once


def test_stages_follow_the_run_and_hold_every_parameter_once(file):
    expected = {
        "LeNet": (32, False, ["stem", "features.3", "classifier.1", "head"], {"in_channels": 1}),
        "Wrapped": (224, True, ["stem", *(f"backbone.layer{n}" for n in (1, 2, 3, 4)), "head"], {}),
        "Auxiliary": (224, True, ["stem", "b", "head"], {"in_channels": 1}),
        "Named": (28, False, ["one", "head"], {"in_channels": 1}),
        "build": (8, False, ["stem", "head"], {}),
    }
    for name, (size, any_size, stages, more) in expected.items():
        net = own(file, name, num_classes=5, **more)
        assert (net.image_size, net.any_size, list(net.stages)) == (size, any_size, stages), name
        held = [id(p) for parts in net.stages.values() for part in parts for p in part.parameters()]
        assert sorted(held) == sorted(map(id, net.parameters())), name
        assert output_layer(net).weight.shape[0] == 5 and net.class_layers == [output_layer(net)]
    assert models.own_channels("LeNet", "python", file=file) == 1
    assert output_layer(own(file, "LeNet")).weight.shape[0] == 1000
    with torch.device("meta"):
        assert next(own(file, "build", num_classes=5).parameters()).is_meta
    auxiliary = own(file, "Auxiliary", num_classes=5)
    assert list(auxiliary.auxiliary) == ["net.aux"]
    assert [len(auxiliary.train()(torch.rand(2, 3, 9, 9))), auxiliary.eval()(torch.rand(2, 3, 9, 9)).ndim] == [2, 2]


def test_one_sentence_for_each_net_that_cannot_be(file):
    for name, arguments, words in (
        ("LeNt", {}, "unknown net in more.py 'LeNt'. Did you mean 'LeNet'"),
        ("system", {}, "neither a torch.nn.Module class nor a function of this file"),
        ("resnet18", {}, "neither a torch.nn.Module class nor a function of this file"),
        ("number", {}, "number of more.py made a int, not a torch.nn.Module"),
        ("LeNet", {"args": {"width": 3}}, "cannot be built with .*unexpected keyword argument 'width'"),
        ("LeNet", {"num_classes": 5, "in_channels": 3}, "takes images of 1 channel, not of 3"),
        ("Twelve", {"num_classes": 5, "in_channels": 1}, "has 12 outputs where 5 are needed"),
        (
            "Twelve",
            {"in_channels": 1, "image_size": 9},
            "takes no image of 1 channel and 9 x 9 pixels: .*more.py, line",
        ),
        ("Reads", {"in_channels": 1}, "reads the values of a tensor while it runs"),
        ("Maps", {}, "answers to one image with 1 x 10 x 222 x 222, not with logits"),
        ("Named", {"in_channels": 1, "args": {"stages": {"stem": ["features"]}}}, "must be called head"),
        ("Named", {"in_channels": 1, "args": {"stages": {"head": ["features"]}}}, "classifier.1.weight is in none"),
        ("Named", {"in_channels": 1, "args": {"stages": {"head": ["body"]}}}, "name body, which is no part of it"),
        ("Twelve", {"image_size": 0}, "image_size must be at least 1"),
        ("Twelve", {"args": 3}, "args must be a dictionary, not 3"),
    ):
        with pytest.raises(UserError, match=words):
            own(file, name, **arguments)
    assert list(own(file, "LeNet", in_channels=1, num_classes=3, cut="stem").stages) == ["stem", "head"]
    with pytest.raises(UserError, match=r"Looks cannot be cut: torch\.fx does not follow its forward"):
        own(file, "Looks", in_channels=1, num_classes=3, cut="stem")
    with pytest.raises(UserError, match="neither a convolution nor a linear layer"):
        adapted(nn.Sequential(nn.ReLU()), "Nothing", channels=3, outputs=None)


def test_a_file_that_does_not_run(tmp_path):
    for text, words in (
        ("import nothing_of_this_name", r"does not run: ModuleNotFoundError: .*mynet.py, line 1"),
        ("class Net(:", "does not run: SyntaxError"),
        ("import sys\nsys.exit(3)", "does not run: SystemExit: 3"),
        ("x = 1", "unknown net in mynet.py 'Net'.\nchoices: none"),
    ):
        with pytest.raises(UserError, match=words):
            own(str(write_net(tmp_path, text=text)), "Net")
    with pytest.raises(UserError, match="cannot read it: No such file"):
        own(str(tmp_path / "other.py"), "Net")
    with pytest.raises(UserError, match="needs a file and a name in it"):
        models.build("Net", source="python")
    with pytest.raises(UserError, match=r"Python finds no module nothing\.here"):
        models.build("nothing.here:Net", source="python")


def test_only_what_the_user_named_or_what_is_as_it_was_runs(tmp_path, monkeypatch, capsys):
    forget(monkeypatch)
    path = write_net(tmp_path)
    known = own_nets.identified({"name": "Net", "source": "python", "file": str(path)})
    assert len(known["sha256"]) == 64 and Path(known["file"]).is_absolute()
    forget(monkeypatch)
    assert models.build(**known).name == "Net"  # it stands where it stood, as it was
    path.write_text(path.read_text() + "# other\n")
    with pytest.raises(UserError, match="has changed since Net was trained with it"):
        models.build(**known)
    own_nets.give({"source": "python", "file": str(path)})
    assert models.build(**known).name == "Net"
    assert "its content is another" in capsys.readouterr().err
    forget(monkeypatch)
    path.rename(tmp_path / "moved.py")
    with pytest.raises(UserError, match=r"which is not there: give the file again: model=python model\.file=mynet\.py"):
        models.build(**known)
    with pytest.raises(UserError, match="without its SHA-256"):
        own_nets.check_pinned({"name": "Net", "source": "python", "file": str(path), "sha256": None}, "x.pt")


def test_installed_code_runs_only_where_it_is_named(monkeypatch):
    forget(monkeypatch)
    entry = {"name": "torchvision.models.resnet:resnet18", "source": "python"}
    known = own_nets.identified(entry)
    assert list(models.build(**known, num_classes=3).stages)[1:] == ["layer1", "layer2", "layer3", "layer4", "head"]
    forget(monkeypatch)
    with pytest.raises(UserError, match="an installed file, which no checkpoint may run by itself: name it again"):
        models.build(**known)
    import subprocess

    stdlib = own_nets.identified({"name": "run", "source": "python", "file": subprocess.__file__})
    forget(monkeypatch)
    with pytest.raises(UserError, match="an installed file"):
        models.build(**{**stdlib, "args": {"args": "true"}})


def test_a_package_is_found_without_running_it(tmp_path, monkeypatch):
    forget(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = write_net(tmp_path / "a_package_of_mine", "nets.py")
    (tmp_path / "a_package_of_mine" / "__init__.py").write_text("raise SystemExit('it ran')")
    assert own_files.place_of("a_package_of_mine.nets:Net") == path
    (tmp_path / "a_package_of_mine" / "__init__.py").write_text("")
    net = models.build("a_package_of_mine.nets:Net", source="python", num_classes=4)
    assert output_layer(net).out_features == 4
