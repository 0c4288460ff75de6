"""A net of a user's own from the command line: trained, resumed, used elsewhere, and not run by what others send."""

import json
import shutil

import pytest
import torch

from cnnbench.cli import main
from cnnbench.tasks.predictor import load
from cnnbench.utils.errors import UserError
from tests.helpers.own_nets import forget, write_net
from tests.helpers.runs import SMALL, assert_same_run, interrupt_after, weights

OWN = ("model=python", "model.file=mynet.py", "model.name=Net")

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forget(monkeypatch)
    write_net(tmp_path)
    return tmp_path


def run(*args):
    return main.main([str(arg) for arg in args])


def test_trained_cut_resumed_used_and_refused(cnnbench, here, monkeypatch):
    train = ("train", *OWN, "model.args.width=6", "model.args.depth=2", *SMALL, "epochs=2")
    assert cnnbench(*train, "run.dir=whole").code == 0
    with monkeypatch.context() as patched:
        interrupt_after(patched, 8)
        assert cnnbench(*train, "run.dir=cut").code == 130
    write_net(here / "moved", text=(here / "mynet.py").read_text())
    again = (*train[:2], "model.file=moved/mynet.py", *train[3:])
    assert cnnbench(*again, "run.dir=cut").code == 0  # elsewhere, but the same
    assert_same_run(here / "whole", here / "cut")
    assert weights(here / "whole")["net.dense.weight"].shape == (10, 6)

    forget(monkeypatch)
    monkeypatch.chdir(here / "moved")
    evaluated = cnnbench("evaluate", "weights=../whole", "device=cpu", "format=json")
    assert evaluated.code == 0, evaluated.err
    told, result = json.loads(evaluated.out), json.loads((here / "whole/result.json").read_text())
    assert told["top1_error"] == result["top1_error"] and told["arguments"]["args"] == {"width": 6, "depth": 2}
    assert cnnbench("export", "weights=../whole", "format=safetensors", "out=a.safetensors").code == 0
    assert cnnbench("visualize", "weights=../whole", "what=maps", "device=cpu", "run.dir=v").code == 0
    tuned = cnnbench("finetune", "weights=../whole", "transfer=head", *SMALL, "epochs=1", "run.dir=f")
    assert tuned.code == 0, tuned.err

    write_net(here, text=(here / "mynet.py").read_text().replace("0.1", "0.2"))
    monkeypatch.chdir(here)
    for line, words in (
        (("evaluate", "weights=whole"), "mynet.py has changed since Net was trained with it"),
        (("predict", "mynet.py", "weights=whole"), "mynet.py has changed since"),
        (("finetune", "weights=moved/a.safetensors"), "mynet.py has changed since"),
        (("train", "--config", "whole/config.yaml"), "mynet.py has changed since"),
        ((*train, "run.dir=whole"), "it has changed since:"),
        (("evaluate", "weights=whole", *OWN[:2], "model.name=Nat"), "is of Net, not of Nat: give model.name=Net"),
    ):
        forget(monkeypatch)
        told = cnnbench(*line)
        assert told.code == 2 and words in told.err, (line, told.err)
        assert len(told.err.splitlines()) <= 4
    forget(monkeypatch)
    told = cnnbench("evaluate", "weights=whole", *OWN[:2], "device=cpu", "format=json")
    assert told.code == 0 and "is not as it was" in told.err
    images = torch.zeros(2, 1, 8, 8)
    assert len(load("whole", model={"source": "python", "file": "moved/mynet.py"}, device="cpu").predict(images)) == 2
    forget(monkeypatch)
    with pytest.raises(UserError, match="has changed"):
        load("whole")


def test_no_saved_configuration_runs_code_that_it_does_not_pin(cnnbench, here):
    assert cnnbench("train", *OWN, *SMALL, "epochs=1", "run.dir=r").code == 0
    saved = (here / "r/config.yaml").read_text()
    pinned = next(line for line in saved.splitlines() if "sha256" in line)
    (here / "free.yaml").write_text(saved.replace(pinned, "  sha256: null"))
    told = cnnbench("train", "--config", "free.yaml")
    assert told.code == 2 and "without its SHA-256: give the file again" in told.err
    assert cnnbench("train", "--config", "free.yaml", "model.file=mynet.py", "run.dir=r2").code == 0
    shutil.rmtree(here / "r2")


def test_weights_of_the_users_own_script(cnnbench, here):
    from cnnbench import create_model

    net = create_model("Net", 10, source="python", file="mynet.py", in_channels=1)
    torch.save({"state_dict": {f"module.{name}": value for name, value in net.net.state_dict().items()}}, "state.pt")
    told = cnnbench("train", *OWN, *SMALL, "epochs=1", "weights=state.pt", "run.dir=r")
    assert told.code == 0 and "weights: 25 of 25 tensors from state.pt" in told.out, told.out + told.err
    ready = load("state.pt", model={"name": "Net", "source": "python", "file": "mynet.py"}, mean=[0.5], std=[0.5],
                 image_size=8, classes=list("0123456789"), device="cpu")  # fmt: skip
    assert torch.equal(ready.model.net.dense.weight, net.net.dense.weight)


def test_summary_and_tasks_that_it_does_not_suit(cnnbench, here):
    told = cnnbench("summary", *OWN, "model.args={width: 4}", "num_classes=7", "format=json")
    [row] = json.loads(told.out)
    assert row["settings"] == ["width=4", "num_classes=7"] and row["layers"][0]["name"] == "net.name"
    assert row["params"] == sum(p.numel() for p in models_net().parameters())
    for line, words in (
        (("train", *OWN, "task=colorization", "data=synthetic"), "answers with a class for each image, but task="),
        (("finetune", *OWN, "data=digits"), "nobody published weights for Net, a net of your own"),
        (("train", "model=python"), "needs a file and a name in it"),
    ):
        told = cnnbench(*line)
        assert told.code == 2 and words in told.err, told.err


def models_net():
    from cnnbench import create_model

    return create_model("Net", 7, source="python", file="mynet.py", args={"width": 4})
