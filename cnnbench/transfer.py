"""Weights from elsewhere, and parts of a net that do not train."""

from typing import Any

from torch import Tensor

from cnnbench.errors import UserError, unknown
from cnnbench.models.layers import Net


def freeze(model: Net, what: Any) -> list[str]:
    """Freeze stages of the model; the names of those frozen.

    what: "none", "backbone" (all but the head), "until:layer3" (every stage before layer3), or a list of stages.
    Frozen parameters need no gradient, and `train_mode()` keeps frozen stages in eval mode, so that the running
    statistics of BatchNorm stand still too.
    """
    stages = model.stages
    frozen = _frozen_names(list(stages), what)
    for name in frozen:
        for module in stages[name]:
            module.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"freeze={what} leaves nothing to train")
    return frozen


def _frozen_names(stages: list[str], what: Any) -> list[str]:
    if what in (None, "none", []):
        return []
    if what == "backbone":
        return stages[:-1]
    if isinstance(what, str) and what.startswith("until:"):
        stage = what.removeprefix("until:")
        if stage not in stages:
            raise unknown("stage", stage, stages)
        return stages[: stages.index(stage)]
    names = [what] if isinstance(what, str) else what
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"freeze={what}: give none, backbone, until:STAGE or a list of stages")
    for name in names:
        if name not in stages:
            raise unknown("stage", name, ["none", "backbone", "until:STAGE", *stages])
    return [name for name in stages if name in names]


def train_mode(model: Net) -> None:
    """`model.train()`, except that what is frozen stays in eval mode."""
    model.train()
    for stage in model.stages.values():
        for module in stage:
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()


def load_weights(model: Net, state: dict[str, Tensor], source: str) -> list[str]:
    """Load weights by name. Only a head for another number of classes may differ: it is left as initialised.

    Returns the names that were left. Raises UserError naming what does not fit.
    """
    wanted = model.state_dict()
    head = {name for name, parameter in model.named_parameters() if _in_head(model, parameter)}
    wrong = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    missing, surplus = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    left = sorted(name for name in wrong if name in head)
    if missing or surplus or len(wrong) > len(left):
        lines = [
            *(f"missing {name}" for name in sorted(missing)),
            *(f"unexpected {name}" for name in sorted(surplus)),
            *(
                f"{name} is {tuple(state[name].shape)}, not {tuple(wanted[name].shape)}"
                for name in wrong
                if name not in left
            ),
        ]
        more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
        raise UserError(f"{source} holds weights of another net: {'; '.join(lines[:3])}{more}")
    model.load_state_dict({name: value for name, value in state.items() if name not in left}, strict=False)
    return left


def _in_head(model: Net, parameter: Tensor) -> bool:
    head = list(model.stages.values())[-1]
    return any(parameter is other for module in head for other in module.parameters())
