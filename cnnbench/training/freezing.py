"""Freezing of a net by stages or by name, thawing by epoch, and the train and eval modes that go with it."""

import re
from typing import Any

from torch import Tensor, nn

from cnnbench.config.sections import Format
from cnnbench.models.layers import Net
from cnnbench.output.tables import render
from cnnbench.utils.errors import UserError, unknown
from cnnbench.weights.merge import named_stages


def freeze(model: Net, what: Any, skip: Any = None) -> list[str]:
    """Freeze parts of the model; the names of the stages that no longer train at all.

    what: "none", "backbone" (all but the head), "until:layer3" (every stage before layer3), "loaded" (every stage
    before the head but those that `skip`, as in weights_skip=, leaves as initialised), a stage or a list of them, or
    "re:PATTERN" (the parameters in whose names the pattern occurs). Frozen parameters need no gradient, and
    `train_mode()` keeps frozen modules in eval mode, so that the running statistics of BatchNorm stand still too.
    """
    if isinstance(what, str) and what.startswith("re:"):
        _freeze_matching(model, what.removeprefix("re:"))
    else:
        for name in _names(list(model.stages), what, skip):
            for module in model.stages[name]:
                module.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"freeze={what} leaves nothing to train")
    return [name for name, part in model.stages.items() if is_frozen(part)]


def _names(stages: list[str], what: Any, skip: Any = None) -> list[str]:
    if what in (None, "none", []):
        return []
    if what == "backbone":
        return stages[:-1]
    if what == "loaded":
        anew = named_stages(stages, skip or [])
        return [name for name in stages[:-1] if name not in anew]
    if isinstance(what, str) and what.startswith("until:"):
        stage = what.removeprefix("until:")
        if stage not in stages:
            raise unknown("stage", stage, stages)
        return stages[: stages.index(stage)]
    names = [what] if isinstance(what, str) else what
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"freeze={what}: give none, backbone, until:STAGE, loaded, re:PATTERN or a list of stages")
    for name in names:
        if name not in stages:
            raise unknown("stage", name, ["none", "backbone", "until:STAGE", "loaded", "re:PATTERN", *stages])
    return [name for name in stages if name in names]


def _freeze_matching(model: Net, pattern: str) -> None:
    try:
        found = [parameter for name, parameter in model.named_parameters() if re.search(pattern, name)]
    except re.error as error:
        raise UserError(f"freeze=re:{pattern} is no regular expression: {error}") from None
    if not found:
        raise UserError(f"freeze=re:{pattern} matches no parameter; names look like {next(iter(model.state_dict()))}")
    for parameter in found:
        parameter.requires_grad_(False)


def is_frozen(part: list[nn.Module]) -> bool:
    """Whether the part has parameters, none of which trains."""
    parameters = [parameter for module in part for parameter in module.parameters()]
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def trains_wholly(model: nn.Module) -> bool:
    """Whether each of its parameters trains."""
    return all(parameter.requires_grad for parameter in model.parameters())


def train_mode(model: Net) -> None:
    """`model.train()`, except that what is frozen stays in eval mode: whole stages, and single modules within one."""
    model.train()
    for part in [*model.stages.values(), *([module] for module in model.modules())]:
        if is_frozen(part):
            for module in part:
                module.eval()


# Thawing


def thaw_plan(model: Net, when: Any) -> dict[int, list[str]]:
    """`unfreeze_at` checked: the stages that begin to train once so many epochs are done."""
    if when in (None, {}):
        return {}
    stages = list(model.stages)
    if not isinstance(when, dict) or not all(type(epoch) is int and epoch >= 1 for epoch in when):
        raise UserError(f"unfreeze_at={when}: give epochs and stages, as in 'unfreeze_at={{5: layer4, 8: all}}'")
    plan = {}
    for epoch in sorted(when):
        what = when[epoch]
        names = stages if what == "all" else [what] if isinstance(what, str) else what
        if not isinstance(names, list):
            raise UserError(f"unfreeze_at: {epoch}: {what} is no stage or list of stages")
        for name in names:
            if name not in stages:
                raise unknown("stage", name, ["all", *stages])
        plan[epoch] = [name for name in stages if name in names]
    return plan


def thaw(model: Net, names: list[str]) -> list[Tensor]:
    """Let stages train; the parameters that did not before."""
    inside = [parameter for name in names for module in model.stages[name] for parameter in module.parameters()]
    frozen: list[Tensor] = [parameter for parameter in inside if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    return frozen


def table(model: Net, plan: dict[int, list[str]]) -> str:
    """A line per stage: its parameters, how many of them train, and when the rest begins to."""
    rows = []
    for name, part in model.stages.items():
        parameters = list({id(p): p for module in part for p in module.parameters()}.values())
        total = sum(parameter.numel() for parameter in parameters)
        trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        later = next((epoch for epoch, names in plan.items() if name in names), None)
        state = "trains" if trained == total > 0 else "frozen" if trained == 0 and total else "partly" if total else "-"
        if later is not None and trained < total:
            state += f", trains after epoch {later}"
        rows.append({"stage": name, "parameters": total, "trained": trained, "state": state})
    return render(rows, Format.table)
