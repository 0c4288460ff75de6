"""Transfer from the command line: each strategy, what it leaves behind, what it says, what it refuses."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cnnbench import models
from cnnbench.tasks.classification import BALANCED, TOP1
from cnnbench.transfer import choose
from cnnbench.transfer.trial import summary_of_folds
from cnnbench.weights import checkpoint, sources
from tests.helpers.data import class_tree
from tests.helpers.paths import SHARED
from tests.helpers.runs import Ran

pytestmark = pytest.mark.usefixtures("no_pictures")

SQUEEZENET = SHARED / "data/weights/squeezenet1_0-deepcompression-imagenet.safetensors"
PHOTOGRAPHS = SHARED / "data/hymenoptera_data.tar"
SMALL = ("device=cpu", "precision=fp32", "data.fraction=0.1", "data.image_size=16")


def result(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "result.json").read_text())
    return found


# The command


@pytest.mark.parametrize("strategy", ["svm", "deep_features", "head", "partial", "full", "scratch"])
@pytest.mark.usefixtures("pictures")
def test_every_strategy_leaves_a_net_that_evaluate_takes(
    strategy: str, cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    few = () if strategy in ("svm", "deep_features") else ("epochs=1",)
    layer = ("transfer.layer=layer2",) if strategy == "deep_features" else ()
    ran = cnnbench("finetune", f"transfer={strategy}", *SMALL, *few, *layer, "run.dir=run", "transfer.c=[0.001]")
    assert ran.code == 0, ran.err
    found = result(tmp_path / "run")
    assert found["strategy"] == strategy
    assert found["train_n"] == 143
    for name in ("config.yaml", "metrics.jsonl", "confusion_matrix.png", "val_predictions.png", "checkpoints/last.pt"):
        assert (tmp_path / "run" / name).exists(), name
    again = cnnbench("finetune", f"transfer={strategy}", *SMALL, *few, *layer, "run.dir=run", "transfer.c=[0.001]")
    assert again.code == 0, again.err
    assert "already done" in again.out
    judged = cnnbench("evaluate", "weights=run", "precision=fp32", "device=cpu", "format=json")
    assert judged.code == 0, judged.err
    assert json.loads(judged.out)["top1_error"] == pytest.approx(found["top1_error"])


def test_a_net_that_was_cut_is_transferred_again_and_drawn(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    deep = (*SMALL, "transfer=deep_features", "transfer.c=[0.001]")
    for weights, layer in (("zoo:resnet20-cifar10", "layer2"), ("layer2", "layer1")):
        ran = cnnbench("finetune", *deep, f"weights={weights}", f"transfer.layer={layer}", f"run.dir={layer}")
        assert ran.code == 0, ran.err
    judged = cnnbench("evaluate", "weights=layer1", "precision=fp32", "device=cpu", "format=json")
    assert json.loads(judged.out)["top1_error"] == pytest.approx(result(tmp_path / "layer1")["top1_error"])
    assert result(tmp_path / "layer1")["params"] == 464 + 14_016 + 1024 * 10 + 10
    assert cnnbench("finetune", *SMALL, "weights=layer2", "transfer.run=false").code == 0
    assert cnnbench("visualize", "weights=layer2", "what=maps,patches", "run.dir=drawn").code == 0


def test_without_an_argument_it_measures_advises_and_transfers(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    ran = cnnbench("finetune", *SMALL, "transfer.c=[0.001]")
    assert ran.code == 0, ran.err
    assert "images per class (a lot from 500 on)" in ran.out
    assert "cnnbench finetune device=cpu" in ran.out  # the command that the advice stands for
    found = result(next((tmp_path / "outputs/finetune").iterdir()))
    assert found["weights"] == "zoo:resnet20-cifar10"
    assert found["advice"]["strategy"] == found["strategy"]
    assert found["top1_error"] < 30
    unread = ("data.root=photos", "transfer.run=false", "format=json", "run.root=other")
    advised = cnnbench("finetune", *SMALL, *unread)
    assert advised.err.count("data.root=photos has no effect") == 1
    assert json.loads(advised.out)["strategy"] == found["strategy"]
    assert not (tmp_path / "other/finetune").exists()


def test_much_data_that_may_be_similar_or_not_are_tried_both_ways(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a second time nothing runs again: the same strategy, by the same trial."""
    monkeypatch.setattr(choose, "is_open", lambda gain: True)
    args = ("finetune", *SMALL, "transfer.many=2", "transfer.c=[0.001]", "epochs=1", "run.dir=run")
    ran = cnnbench(*args)
    assert ran.code == 0, ran.err
    trials = {name: result(tmp_path / "run-tried" / name) for name in ("partial", "full")}
    assert [(one["train_n"], one["n"], one["strategy"]) for one in trials.values()] == [
        (113, 30, "partial"), (113, 30, "full")]  # fmt: skip
    errors = {name: one["top1_error"] for name, one in trials.items()}
    found = result(tmp_path / "run")
    assert found["advice"]["tried"] == errors and found["strategy"] == min(errors, key=errors.__getitem__)
    assert found["train_n"] == 143 and f"wrong on held-out images: transfer={found['strategy']}" in ran.out
    again = cnnbench(*args)
    assert again.code == 0 and again.out.count("already done") == 3
    advised = cnnbench("finetune", *SMALL, "transfer.many=2", "transfer.run=false", "format=json")
    assert json.loads(advised.out)["strategy"] == "auto"


def test_freezing_by_hand_is_full_fine_tuning_of_the_rest(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    ran = cnnbench("finetune", *SMALL, "freeze=backbone", "epochs=1", "run.dir=run", "transfer.c=[0.001]")
    assert ran.code == 0, ran.err
    assert "transfer=full with it" in ran.out
    assert "frozen" in ran.out
    trained = checkpoint.load(tmp_path / "run/checkpoints/last.pt")["model"]
    given = sources.load("zoo:resnet20-cifar10").state
    same = {name for name in given if torch.equal(given[name], trained[name])}
    assert given.keys() - same == {"fc.weight", "fc.bias"}


def test_folds_give_an_error_with_its_spread(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    ran = cnnbench("finetune", *SMALL, "transfer=svm", "folds=3", "run.dir=run", "transfer.c=[0.001]", "format=json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)["cross_validation"]
    assert len(found["folds"]) == 3
    assert found["n"] == 143
    each = [result(tmp_path / "run-folds" / f"fold{number}") for number in (1, 2, 3)]
    assert sum(fold["n"] for fold in each) == 143
    assert found["top1_error"] == pytest.approx(np.mean([fold["top1_error"] for fold in each]))
    assert found["std"] == pytest.approx(np.std([fold["top1_error"] for fold in each], ddof=1))
    assert found["top5_error"] == pytest.approx(np.mean([fold["top5_error"] for fold in each]))
    refused = cnnbench("finetune", *SMALL, "transfer=svm", "folds=50")
    assert refused.code == 2
    assert "folds=50 needs at least 50 images in every class" in refused.err


def test_folds_with_unequal_classes_give_the_balanced_error_too() -> None:
    metrics = [vars(TOP1), vars(BALANCED)]
    folds = [{"metrics": metrics[:1], "top1_error": 10.0, "balanced_error": 40.0},
             {"metrics": metrics, "top1_error": 20.0, "balanced_error": 50.0}]  # fmt: skip
    text, found = summary_of_folds(folds, TOP1)
    assert text == "top-1 error 15.00 ± 7.07 %, balanced error 45.00 ± 7.07 %"
    assert found["folds"] == [10.0, 20.0] and found["balanced_error"] == 45.0
    assert found["std"] == found["balanced_error_std"] == pytest.approx(50**0.5)


def test_a_sweep_over_strategies_and_amounts_draws_its_picture(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    ran = cnnbench("finetune", "-m", "transfer=svm,scratch", "data.fraction=0.05,0.1", "epochs=1", "device=cpu",
                   "precision=fp32", "data.image_size=16", "transfer.c=[0.001]")  # fmt: skip
    assert ran.code == 0, ran.err
    assert "train_n" in ran.out
    (picture,) = (tmp_path / "outputs/finetune").glob("sweep-*/transfer.png")
    assert picture.stat().st_size > 10_000


# Mistakes


def tree(tmp_path: Path, train: dict[str, int], val: dict[str, int]) -> str:
    class_tree(tmp_path / "photos/train", train)
    class_tree(tmp_path / "photos/val", val, seed=1)
    return f"data.root={tmp_path / 'photos'}"


@pytest.mark.parametrize(("args", "message"), [
    (("weights=zoo:resnet21",), "unknown weights in the zoo 'resnet21'"),
    (("weights=nowhere.pt",), "there is no file nowhere.pt"),
    (("model=resnet8", "weights=zoo:resnet20-cifar10"), "is of resnet20, not of resnet8: give model=resnet20"),
    (("model=resnet20", "model.shortcut=B", "weights=zoo:resnet20-cifar10"), "with shortcut=A"),
    (("model=alexnet", "data.image_size=224"), "alexnet_owt has"),
    (("transfer=svm", "transfer.run=false"), "gives advice"),
    (("transfer=head", "freeze=none"), "transfer=head trains only the head"),
    (("transfer=deep_features", "transfer.layer=layer9"), "unknown stage 'layer9'"),
    (("transfer=full", "freeze=until:layer9"), "unknown stage 'layer9'"),
    (("transfer=svn",), "unknown transfer 'svn'"),
    (("model=torchvision", "model.name=foo"), "unknown torchvision model 'foo'"),
    (("model=torchvision",), "model.name has no value"),
    (("weights_rename=[a]", "transfer=svm"), "give pairs of names"),
])  # fmt: skip
def test_mistakes_are_one_clear_sentence_and_leave_nothing(
    args: tuple[str, ...], message: str, cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    ran = cnnbench("finetune", "device=cpu", "precision=fp32", "data.fraction=0.02", "transfer.cache=false", *args)
    assert ran.code == 2
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "outputs").exists()


def test_a_tensor_file_needs_to_be_told_its_net(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    torch.save(models.build("resnet8").state_dict(), tmp_path / "bare.pt")
    ran = cnnbench("finetune", "weights=bare.pt")
    assert ran.code == 2
    assert "say of which net they are, as in model=resnet34" in ran.err


def test_photographs_few_in_number_and_classes_that_differ(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    common = ("finetune", "data=folder", "transfer=svm", "device=cpu", "precision=fp32", "data.workers=0")
    few = cnnbench(*common, tree(tmp_path / "a", {"ant": 3, "bee": 9}, {"ant": 2, "bee": 2}), "run.dir=few")
    assert few.code == 0, few.err
    other = cnnbench(*common, tree(tmp_path / "b", {"ant": 3, "bee": 4}, {"ant": 2, "wasp": 2}))
    assert other.code == 2
    assert "different classes" in other.err
    one = cnnbench(*common, tree(tmp_path / "c", {"ant": 3}, {"ant": 2}))
    assert one.code == 2
    assert "one class only" in one.err


@pytest.mark.skipif(not SQUEEZENET.exists(), reason="the shared weights are not there")
def test_ants_and_bees_with_squeezenet(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    """A plain scikit-learn script gets 5.9 % on these 153 photographs."""
    import tarfile

    with tarfile.open(PHOTOGRAPHS) as archive:
        archive.extractall(tmp_path, filter="data")
    net = ("model=torchvision", "model.name=squeezenet1_0", f"weights={SQUEEZENET}")
    photographs = ("data=folder", f"data.root={tmp_path / 'hymenoptera_data'}")
    ran = cnnbench("finetune", *net, *photographs, "transfer=svm", "device=cpu", "format=json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["n"] == 153
    assert found["top1_error"] <= 8


def test_predict_answers_with_the_new_classes(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    root = tree(tmp_path, {"ant": 4, "bee": 4}, {"ant": 2, "bee": 2})
    common = ("device=cpu", "precision=fp32")
    tuned = cnnbench("finetune", "data=folder", root, "transfer=svm", *common, "data.workers=0", "run.dir=run")
    assert tuned.code == 0, tuned.err
    ran = cnnbench("predict", str(tmp_path / "photos/val/bee/0.jpg"), "weights=run", *common, "format=json")
    assert ran.code == 0, ran.err
    (answer,) = json.loads(ran.out)
    assert {guess["class"] for guess in answer["predictions"]} == {"ant", "bee"}


def test_no_command_imports_torchvision_or_a_compiler_before_it_needs_them() -> None:
    """They take seconds, which a mistake in the command line would wait for."""
    commands = ", ".join(f"cnnbench.commands.{name}" for name in ("train", "finetune", "evaluate", "predict"))
    code = (
        f"import sys, {commands}; print([n for n in ('torchvision', 'torch._dynamo', 'sklearn') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_each_net_of_the_zoo_has_its_card_and_is_small() -> None:
    assert sources.zoo_names() == ["resnet20-cifar10"]
    for name in sources.zoo_names():
        file = sources.zoo_file(name)
        assert file.stat().st_size < 1.2e6
        card = file.with_suffix(".md").read_text()
        assert all(word in card for word in ("test error", "command", "seed", "licence", name))
        assert sources.build(sources.load(f"zoo:{name}")).name == "resnet20"
