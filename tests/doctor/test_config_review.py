"""`cnnbench doctor config`: what is unusual in a configuration is said, with what to type, before anything runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnbench.config import expand
from cnnbench.config.commands import FinetuneConfig, TrainConfig
from cnnbench.utils.errors import UserError
from tests.helpers.data import class_tree
from tests.helpers.runs import Ran

CPU = ("device=cpu", "precision=fp32")


@pytest.fixture
def read(cnnbench: Callable[..., Ran]) -> Callable[..., list[dict]]:
    def read(*args: str, code: int = 0, command: str | None = None) -> list[dict]:
        ran = cnnbench("doctor", "config", *([command] if command else []), *args, *CPU, "format=json")
        assert ran.code == code, ran.err
        assert not Path("outputs").exists()  # nothing runs, nothing is left
        return json.loads(ran.out)

    return read


def bad(findings: list[dict]) -> list[dict]:
    return [finding for finding in findings if finding["status"] != "ok"]


@pytest.mark.parametrize("model", ["resnet8", "resnet20", "nin_cifar", "googlenet", "alexnet", "vgg11"])
def test_a_recipe_as_it_is_has_nothing_unusual(read: Callable[..., list[dict]], model: str) -> None:
    findings = read(f"model={model}")
    assert bad(findings) == []
    assert findings[-1]["check"] == "cost"
    assert any("the same as the recipe's" in finding["detail"] for finding in findings)


def test_the_recipe_is_that_of_the_same_net_and_data() -> None:
    for model, data, lr in (("resnet20", "cifar10", 0.1), ("vgg16", "imagenet", 0.01), ("googlenet", "digits", 0.03)):
        arguments = [f"model={model}", f"data={data}", "epochs=3", "optim.lr=0.7", "model.in_channels=3"]
        ((mine, theirs),) = expand.configs_with_recipes(arguments)
        assert (mine.epochs, mine.optim.lr) == (3, 0.7)
        assert (theirs.model, theirs.data, theirs.optim.lr) == (mine.model, mine.data, lr)
        assert theirs.epochs == {"cifar10": 164, "imagenet": 90, "digits": 15}[data]


def test_a_large_lr_is_named_with_the_factor_and_what_to_type(read: Callable[..., list[dict]]) -> None:
    (finding,) = bad(read("optim.lr=0.1", "optim.lr_batch=null", "batch_size=32"))
    assert finding["detail"] == "lr 0.1 at batch 32 is 4x the recipe's (0.1 at 128)"
    assert finding["advice"].startswith("optim.lr=0.025")
    typed = finding["advice"].split(",")[0]
    assert bad(read(typed, "optim.lr_batch=null", "batch_size=32")) == []


def test_lr_that_scales_with_the_batch_is_as_usual(read: Callable[..., list[dict]]) -> None:
    findings = read("batch_size=32")
    assert bad(findings) == []
    assert any("lr 0.025 at batch 32, scaled from 0.1 at 128: the same" in finding["detail"] for finding in findings)


@pytest.mark.parametrize(
    ("args", "check", "advice"),
    [
        (["epochs=2"], "length", "epochs=15"),
        (["optim.weight_decay=0"], "weight decay", "optim.weight_decay=0.0001"),
        (["optim.weight_decay=0.005"], "weight decay", "optim.weight_decay=0.0001"),
        (["augment=none"], "augmentation", "augment="),
        (["augment.padding=0"], "augmentation", "augment.padding=4"),
        (["augment.flip=true"], "augmentation", "augment.flip=false"),
        (["augment.cutout=32"], "augmentation", "augment.cutout=16"),
        (["augment.crop=none"], "augmentation", "augment.crop=pad"),
        (["data.image_size=16"], "image size", "data.image_size=32"),
        (["freeze=backbone"], "frozen", "weights="),
        (["accumulate=32"], "BatchNorm", "batch_size=256"),
        (["compile=true"], "compile", "compile=false"),
        (["ema=0.9999"], "ema", "ema=0.94"),
        (["batch_size=1438"], "batch", "batch_size=143"),
        (["schedule.warmup_epochs=15"], "schedule", "schedule.warmup_epochs=1.5"),
        (["model=googlenet", "schedule.warmup_epochs=0"], "schedule", "schedule.warmup_epochs=1"),
        (["schedule=constant"], "schedule", "schedule=cosine"),
        (["schedule=plateau", "schedule.patience=15"], "schedule", "schedule.patience=3"),
        (["swa=0.5", "schedule=cosine"], "swa", "schedule=constant"),
        (["optim=adamw", "optim.lr=0.1"], "learning rate", "optim.lr=0.001"),
        (["model=googlenet", "data.image_size=64"], "auxiliary heads", "data.image_size=79"),
    ],
)
def test_what_is_unusual_is_found(read: Callable[..., list[dict]], args: list[str], check: str, advice: str) -> None:
    found = [finding for finding in bad(read(*args)) if finding["check"] == check]
    assert found, bad(read(*args))
    assert any(advice in finding["advice"] for finding in found)


def test_gradients_that_bf16_gets_wrong_are_found(cnnbench: Callable[..., Ran]) -> None:
    command = ("doctor", "config", "model=googlenet", "data.image_size=48", "device=cpu", "format=json")
    for precision, advice in (("bf16", ["precision=fp32"]), ("fp32", [])):
        findings = json.loads(cnnbench(*command, f"precision={precision}").out)
        assert [finding["advice"] for finding in findings if finding["check"] == "gradients"] == advice


def test_what_cannot_work_is_a_problem_and_exit_code_1(read: Callable[..., list[dict]]) -> None:
    (finding,) = bad(read("data=cifar10", code=1))
    assert finding["status"] == "problem"
    assert "data.download=true" in finding["detail"]
    (missing, finding) = bad(read("model=alexnet", "data=imagenet", "optim.lr=0.1", code=1))[:2]
    assert "assume 1,281,167 training images" in missing["advice"]
    assert finding["detail"] == "lr 0.1 at batch 128 is 10x the recipe's (0.01 at 128)"
    (finding,) = bad(read("data=folder", "data.root=nowhere", code=1))
    assert finding["status"] == "problem"
    (finding,) = bad(read("model=alexnet", "data.image_size=16", code=1))
    assert "63 x 63" in finding["detail"]


@pytest.mark.parametrize("val", [{"ant": 10, "bee": 2}, {"ant": 5, "bee": 5}])
def test_counts_by_class_are_read_out_and_unequal_ones_are_a_warning(
    read: Callable[..., list[dict]], tmp_path: Path, val: dict[str, int]
) -> None:
    class_tree(tmp_path / "photos" / "train", {"ant": 25, "bee": 8})
    class_tree(tmp_path / "photos" / "val", val, seed=1)
    given = ("model=resnet8", "data=folder", f"data.root={tmp_path / 'photos'}")
    counts, warning = (finding for finding in read(*given) if finding["check"] == "classes")
    ants, bees = val.values()
    assert counts["detail"] == f"training images ant: 25, bee: 8; val images ant: {ants}, bee: {bees}"
    said = "classes are unequal, in training images ant: 25, bee: 8"
    always = "; a net that always says ant errs on only 16.7 % of the val images: look at the balanced error"
    assert warning["detail"] == said + (always if bees == 2 else "")
    assert warning["advice"] == "loss.class_weights=balanced, or data.sampler=balanced"
    for setting in ("loss.class_weights=balanced", "data.sampler=balanced"):
        assert [one["advice"] for one in read(*given, setting) if one["check"] == "classes"][1:] == [""]
    both = read(*given, "loss.class_weights=balanced", "data.sampler=balanced")
    assert "together twice" in [one["detail"] for one in both if one["check"] == "classes"][-1]


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_a_sampler_beside_a_fitted_head_is_one_warning(
    read: Callable[..., list[dict]], tmp_path: Path, weights: str
) -> None:
    class_tree(tmp_path / "photos" / "train", {"ant": 25, "bee": 8})
    class_tree(tmp_path / "photos" / "val", {"ant": 2, "bee": 2}, seed=1)
    found = read("model=resnet20", "weights=zoo:resnet20-cifar10", "data=folder", f"data.root={tmp_path / 'photos'}",
                 "transfer=svm", "data.sampler=balanced", f"loss.class_weights={weights}",
                 command="finetune")  # fmt: skip
    said = [one for one in found if "sampler" in one["detail"] or "twice" in one["detail"]]
    assert [one["advice"] for one in said] == ["loss.class_weights=balanced" if weights == "none" else ""]


def test_the_cost_is_that_of_the_training(read: Callable[..., list[dict]]) -> None:
    cost = read("epochs=10")[-1]
    assert "120 steps, 14,380 images" in cost["detail"]  # 12 steps of 128 hold the 1,438 images, the last one fewer
    assert f"{3 * 11_944_576 * 14_380 / 1e9:.3g} giga" in cost["detail"]
    limited = read("max_steps=7", "batch_size=100")[-1]
    assert "7 steps, 700 images" in limited["detail"]


def test_finetune_is_read_by_its_own_settings(read: Callable[..., list[dict]], tmp_path: Path) -> None:
    findings = read("finetune", "transfer=head")
    assert any("parameters train" in finding["detail"] and finding["status"] == "ok" for finding in findings)
    class_tree(tmp_path / "photos" / "train", {"ant": 12, "bee": 12})
    class_tree(tmp_path / "photos" / "val", {"ant": 2, "bee": 2})
    findings = read("finetune", "model=resnet18", "data=folder", f"data.root={tmp_path / 'photos'}", "transfer=svm")
    assert "features of all images once" in findings[-1]["detail"]
    assert "24 training and 4" in findings[0]["detail"]


def test_a_sweep_is_read_job_by_job_and_a_mistake_is_a_mistake(cnnbench: Callable[..., Ran]) -> None:
    ran = cnnbench("doctor", "config", "-m", "seed=0,1", "optim.lr=0.1,5", *CPU)
    assert ran.code == 0
    assert ran.out.count("50x the recipe's") == 2
    assert ran.out.count("the same as the recipe's") == 2
    assert "seed=1 optim.lr=5" in ran.out
    ran = cnnbench("doctor", "config", "modle=resnet8")
    assert ran.code == 2
    assert "Did you mean 'model'?" in ran.err
    assert cnnbench("doctor", "config", "--help").code == 0


def test_the_command_that_is_read_may_be_named_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train").mkdir()
    settings = ["model=resnet8", "data=digits", "--config-dir", "train"]
    for line in (["finetune", *settings], [*settings, "finetune"], [settings[0], "finetune", *settings[1:]]):
        assert type(expand.configs_with_recipes(line)[0][0]) is FinetuneConfig
    assert type(expand.configs_with_recipes(settings)[0][0]) is TrainConfig
    with pytest.raises(UserError, match="'finetune' is not of the form key=value"):
        expand.configs_with_recipes(["train", *settings, "finetune"])


def test_an_experiment_is_a_recipe_and_its_sweep_is_read() -> None:
    pairs = expand.configs_with_recipes(["-m", "experiment=degradation", "seed=0", "optim.lr=1"])
    assert {mine.model["name"] for mine, _ in pairs} >= {"plain20", "plain56", "resnet56"}
    assert all(mine.model == theirs.model and mine.optim.lr == 1 and theirs.optim.lr < 1 for mine, theirs in pairs)


def test_a_saved_configuration_can_be_read(cnnbench: Callable[..., Ran], no_pictures: None) -> None:
    assert cnnbench("train", "max_steps=1", "data.fraction=0.1", "optim.lr=3", "run.dir=x", *CPU).code == 0
    ran = cnnbench("doctor", "config", "--config", "x/config.yaml")
    assert ran.code == 0
    assert "30x the recipe's (0.1 at 128)" in ran.out
