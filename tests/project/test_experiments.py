"""conf/experiment: each file is an experiment that runs, and says what it claims; scripts/reproduce runs them."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cnnbench import models
from cnnbench.config import arguments, compose, expand
from cnnbench.config.sections import conf_dir
from tests.helpers.runs import Ran

NAMES = sorted(file.stem for file in (conf_dir() / "experiment").glob("*.yaml"))
CLASSES = {"digits": 10, "cifar10": 10, "imagenet": 1000, "camvid": 11, "voc": 21, "coco": 80, "people": 279,
           "spoken_digits": 10}  # fmt: skip


@pytest.fixture
def reproduce(script: Callable[[str], Any]) -> Any:
    return script("reproduce")


def jobs(command: list[str]) -> Iterator[Any]:
    """The typed configuration of each job of a command line, for the first seed of the sweep."""
    name, args = command[0], arguments.hydra_arguments(command[0], command[1:])
    swept = [text.split(",")[0] if text.startswith("seed=") else text for text in expand.swept_by_experiment(args)]
    if "-m" in args:
        yield from expand.combinations(name, [*args, *swept])
    else:
        yield compose.typed_config(name, compose.compose(name, args), [])


@pytest.mark.parametrize("name", NAMES)
def test_the_header_says_what_it_is_about(name: str, reproduce: Any) -> None:
    experiment = reproduce.experiments()[name]
    assert set(experiment.header) >= {"Claim", "Command", "Minutes", "Expected", "Measured"}
    assert re.search(r"\d{4}", experiment.title) or "lecture" in experiment.title, "a source"
    assert experiment.minutes or experiment.header["Minutes"] == "not on a processor"
    assert f"experiment={name}" in experiment.command
    sweeps = bool(expand.swept_by_experiment([f"experiment={name}"]))
    assert sweeps == ("-m" in experiment.command)
    for line in re.findall(r"`cnnbench (.+?)`", (conf_dir() / "experiment" / f"{name}.yaml").read_text()):
        command, *args = line.replace("'", "").replace("RUN", "x").split()
        quoted = arguments.hydra_arguments(command, [arg.replace('"', "") for arg in args])
        assert expand.combinations(command, quoted) or compose.compose(command, quoted)


@pytest.mark.parametrize("name", NAMES)
def test_every_job_of_an_experiment_composes_and_its_net_exists(name: str, reproduce: Any) -> None:
    """What the sweep runs over are keys of the schema, their values are accepted, and the images are large enough."""
    configs = list(jobs(reproduce.experiments()[name].command))
    keys = ("model", "head", "batch_size", "transfer", "augment", "freeze", "weights_skip", "optim")
    different = {str(([getattr(cfg, key, None) for key in keys], cfg.data.fraction, cfg.data.fold)) for cfg in configs}
    assert len(different) == len(configs), "a key of the sweep that changes nothing"
    for cfg in configs:
        if cfg.model:
            model = dict(cfg.model)
            channels = model.pop("in_channels") or models.own_channels(**model)
            with torch.device("meta"):
                built = models.build_for(model, outputs=CLASSES.get(cfg.data.name, 0), in_channels=channels)
            models.check_image_size(built, cfg.data.image_size or built.image_size)


def test_an_experiment_brings_its_sweep(cnnbench: Callable[..., Ran], no_pictures: None, tmp_path: Path) -> None:
    """The command line has the last word over it; done once, it is not done again."""
    args = ("train", "-m", "experiment=shortcuts", "seed=0,1", "model.shortcut=A", "model=resnet8", "epochs=1",
            "data.image_size=8", "data.fraction=0.1")  # fmt: skip
    ran = cnnbench(*args)
    assert ran.code == 0, ran.err
    (sweep,) = (tmp_path / "outputs/train").iterdir()
    assert sweep.name.startswith("sweep-") and "experiment_shortcuts" in sweep.name
    runs = sorted(path for path in sweep.iterdir() if (path / "result.json").exists())
    assert [re.search(r"seed_\d", run.name).group() for run in runs] == ["seed_0", "seed_1"]
    before = [(run / "metrics.jsonl").stat().st_mtime_ns for run in runs]
    assert cnnbench(*args).code == 0
    assert [(run / "metrics.jsonl").stat().st_mtime_ns for run in runs] == before


def test_its_own_keys_tell_the_jobs_of_an_experiment_apart() -> None:
    swept = expand.swept_by_experiment(["experiment=batch_size", "seed=7"])
    assert swept == ["batch_size=16,64,128,256,512"]
    assert expand.swept_by_experiment(["model=resnet8"]) == []


def test_two_experiments_at_once_are_refused(cnnbench: Callable[..., Ran]) -> None:
    ran = cnnbench("train", "-m", "experiment=lrn,shortcuts")
    assert (ran.code, "one experiment at a time" in ran.err) == (2, True)
    assert "unknown experiment 'lnr'. Did you mean 'lrn'?" in cnnbench("train", "-m", "experiment=lnr").err


def test_a_users_own_experiment_sweeps_too(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\nhydra: {sweeper: {params: {epochs: '1,2'}}}\n")
    assert expand.swept_by_experiment(["--config-dir", str(tmp_path), "experiment=mine"]) == ["epochs=1,2"]


def test_reproduce_says_how_long_it_takes_and_fails_where_one_fails(
    reproduce: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    asked: list[tuple[str, ...]] = []

    def run(*args: str) -> int:
        asked.append(args)
        return {"lrn": 1, "dropout": 130}.get(next((a[11:] for a in args if a.startswith("experiment=")), ""), 0)

    monkeypatch.setattr(reproduce, "cnnbench", run)
    sweep = tmp_path / "train/sweep-experiment_lrn-seed_0"
    sweep.mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["reproduce", "lrn", "shortcuts", "seed=0", "--root", str(tmp_path)])
    assert reproduce.main() == 1
    assert [args[0] for args in asked] == ["train", "train", "report"]
    assert asked[0][1:] == ("-m", "experiment=lrn", "seed=0", f"run.root={tmp_path}")
    assert asked[2][1:] == (str(sweep),)
    said = capsys.readouterr().err
    assert re.search(r"2 experiments, about \d+ minutes", said) and "failed: lrn" in said
    assert f"About {reproduce.experiments()['shortcuts'].minutes} minutes." in said
    monkeypatch.setattr(sys, "argv", ["reproduce", "dropout", "lrn"])
    asked.clear()
    assert (reproduce.main(), len(asked)) == (130, 1), "whoever stops one experiment stops the rest"


def test_reproduce_without_names_fits_in_an_hour(reproduce: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    chosen: list[Any] = []
    monkeypatch.setattr(reproduce, "reproduce", lambda experiments, *_: chosen.extend(experiments) or 0)
    monkeypatch.setattr(sys, "argv", ["reproduce"])
    assert reproduce.main() == 0
    assert len(chosen) >= 10 and sum(experiment.minutes for experiment in chosen) <= 60
    monkeypatch.setattr(sys, "argv", ["reproduce", "lnr"])
    with pytest.raises(SystemExit, match="2"):
        reproduce.main()
    assert "Did you mean 'lrn'?" in capsys.readouterr().err


def test_reproduce_runs_a_claim_and_prints_its_verdict(
    reproduce: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(reproduce, "cnnbench", lambda *args: asked.append(args) or 0)
    monkeypatch.delenv("CNNBENCH_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["reproduce", "--claim", "dropout", "--root", str(tmp_path)])
    assert reproduce.main() == 0
    assert asked == [("train", "-m", "experiment=dropout", "seed=0,1,2,3,4,5,6,7,8,9,10,11", f"run.root={tmp_path}"),
                     ("report", "claims", str(tmp_path), "claim=dropout")]  # fmt: skip
    asked.clear()
    monkeypatch.setattr(sys, "argv", ["reproduce", "--all", "--root", str(tmp_path)])
    assert reproduce.main() == 0
    said = capsys.readouterr().err
    assert "left out: cifar10_94 needs CIFAR-10" in said and re.search(r"\d+ claims, about \d+ minutes", said)
    lines = [args for args in asked if args[0] != "report"]
    assert len(lines) == len(set(lines)) > 3, "a command of several claims runs once"
    assert not any("cifar10" in arg for args in lines for arg in args) and asked[-1][:2] == ("report", "claims")
    monkeypatch.setattr(sys, "argv", ["reproduce", "--claim", "dropot"])
    with pytest.raises(SystemExit, match="2"):
        reproduce.main()
    assert "Did you mean 'dropout'?" in capsys.readouterr().err
