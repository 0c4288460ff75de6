"""Settings without effect are named; those of every experiment and of a usual line are not."""

from collections.abc import Callable
from typing import Any

import pytest

from cnnbench.config import effects, expand
from cnnbench.config.arguments import hydra_arguments
from cnnbench.config.commands import SCHEMAS
from cnnbench.config.schema_keys import leaves
from cnnbench.utils.errors import UserError


def configured(compose: Callable[..., Any], line: str) -> Any:
    command, *args = line.split()
    cfg = compose(*hydra_arguments(command, args), command=command)
    cfg.run.overrides = args
    return cfg


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("finetune transfer=svm epochs=3 optim.lr=1 augment=none",
         "augment=none, epochs=3, optim.lr=1 have no effect with transfer=svm: only with transfer=auto, head, partial, "
         "full or scratch"),
        ("finetune transfer=head transfer.stages=2", "transfer.stages=2 has no effect with transfer=head"),
        ("train optim=adamw optim.nesterov=true",
         "optim.nesterov=true has no effect with optim=adamw: only with optim=sgd or muon"),
        ("train schedule.peak=0.5", "schedule.peak=0.5 has no effect with schedule=multistep"),
        ("train lr_find=true ema=0.9", "ema=0.9 has no effect with lr_find=true: only with lr_find=false"),
        ("train weights_skip=[fc]", "weights_skip=[fc] has no effect without weights="),
        ("train data.sound.bands=32", "data.sound.bands=32 has no effect with data=digits"),
        ("finetune data.root=photos",
         "data.root=photos has no effect with data=digits: its images are in no files; for your own photographs give "
         "data=folder"),
        ("finetune data=folder data.root=photos", None),
        ("finetune data=python data.file=mydata.py data.name=digits", None),
        ("train optim=adamw optim.nesterov=false epochs=3 schedule=onecycle schedule.peak=0.5", None),
        ("finetune transfer=svm epochs=0", None),
        ("finetune weights_skip=[fc] unfreeze_at={2:all}", None),
        ("train", None),
    ],
)  # fmt: skip
def test_what_nothing_reads_is_said(compose: Callable[..., Any], line: str, told: str | None) -> None:
    found = list(effects.idle(configured(compose, line)))
    assert found == [] if told is None else len(found) == 1 and found[0].startswith(told)


def test_what_a_sweep_compares_is_not_said() -> None:
    jobs = expand.combinations("finetune", hydra_arguments("finetune", ["-m", "transfer=svm,full", "epochs=3"]))
    assert len(jobs) == 2
    for job in jobs:
        job.sweep.keys = ["transfer"]
        assert list(effects.idle(job)) == []


def test_a_command_that_trains_nothing_refuses_what_is_about_training(compose: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"data.fraction=0.1 changes nothing here: it is a part of the training images"):
        effects.refuse("evaluate", configured(compose, "evaluate weights=x data.fraction=0.1"))
    with pytest.raises(UserError, match=r"data.sampler=balanced changes nothing here"):
        effects.refuse("benchmark", configured(compose, "benchmark data.sampler=balanced"))
    effects.refuse("evaluate", configured(compose, "evaluate weights=x data.fraction=0.1 split=train"))
    effects.refuse("visualize", configured(compose, "visualize what=batch data.sampler=balanced"))


def test_each_rule_names_keys_that_there_are() -> None:
    every = {key for schema in SCHEMAS.values() for key in leaves(schema)}
    for names, other, *_ in [*effects.ONLY_WITH, *effects.NEVER_WITH, *effects.ONLY_WHERE_GIVEN]:
        assert other in every
        assert all(any(key == name or key.startswith(f"{name}.") for key in every) for name in names.split()), names
