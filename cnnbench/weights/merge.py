"""Weights of one net into another: a checked merge, which names all that it leaves out, and a new head."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cnnbench import models
from cnnbench.models.layers import Net
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural
from cnnbench.weights.finite import check_finite
from cnnbench.weights.sources import TWINS, Weights

SHOWN = 4  # differences shown before the rest is only counted


@dataclass(frozen=True)
class MergeReport:
    """Report of a merge: names of the net's tensors loaded, those left as initialised with the reason, and names in the
    file that nothing took."""

    source: str
    loaded: list[str]
    fresh: dict[str, str]
    unused: list[str]

    def text(self) -> str:
        lines = [f"weights: {len(self.loaded)} of {plural(len(self.loaded) + len(self.fresh), 'tensor')} "
                 f"from {self.source}"]  # fmt: skip
        for reason in dict.fromkeys(self.fresh.values()):
            names = [name for name, why in self.fresh.items() if why == reason]
            lines.append(f"  initialised anew: {_some(names)} ({reason})")
        if self.unused:
            lines.append(f"  not used: {_some(self.unused)}")
        return "\n".join(lines)


def merge(
    model: Net,
    weights: Weights,
    rename: Mapping[str, str] | None = None,
    skip: Iterable[str] | None = None,
    *,
    new_head: bool = False,
) -> MergeReport:
    """Load weights into the model by name, and say what became of each.

    rename: beginnings of names in the file, whole or up to a dot, and what they are called here. skip: beginnings of
    names, or stages, that keep the model's own initialisation. The head is left as initialised where its shapes differ
    (other classes), or where new_head says that its classes are others although as many. Auxiliary heads that the model
    has not are passed over. Any other difference is a UserError, and nothing is loaded then.
    """
    wanted = model.state_dict()
    check_names(rename, skip)
    state = renamed(weights, rename or {})
    skipped = _skipped(model, state, list(skip or []))
    head = _names_in(model, ["head"])
    auxiliary = ("aux1.", "aux2.", "AuxLogits.", *(f"{name}." for name in model.auxiliary))
    loaded: dict[str, Tensor] = {}
    fresh: dict[str, str] = {}
    wrong: list[str] = []
    for name, own in wanted.items():
        theirs = state.get(name)
        if name in skipped:
            fresh[name] = "weights_skip"
        elif name in head and new_head:
            fresh[name] = "new classes"
        elif theirs is None and name.endswith("num_batches_tracked"):
            fresh[name] = "older files do not count batches"
        elif theirs is None and name.startswith(auxiliary):
            fresh[name] = "the file has no auxiliary heads"
        elif theirs is None:
            wrong.append(f"{name} {tuple(own.shape)} is missing in the file")
        elif theirs.shape == own.shape:
            loaded[name] = theirs
        elif name in head:
            fresh[name] = f"{theirs.shape[0]} classes there, {own.shape[0]} here"
        else:
            wrong.append(f"{name} is {tuple(theirs.shape)} in the file, {tuple(own.shape)} in the net")
    surplus = [name for name in state if name not in wanted and name not in skipped]
    unused = [name for name in surplus if name.startswith(auxiliary)]
    wrong += [f"{name} {tuple(state[name].shape)} is only in the file" for name in surplus if name not in unused]
    if wrong:
        raise UserError(_difference(model, weights, wrong))
    check_finite(loaded, weights.source)
    model.load_state_dict(loaded, strict=False)
    return MergeReport(weights.source, list(loaded), fresh, unused)


# Arguments that change how a net is trained or begins, not what its weights mean.
WITHOUT_EFFECT = ("dropout", "dropout_aux", "init", "zero_init_residual", "aux", "final_relu", "in_channels", "cut")


def check_variant(model: dict[str, Any], weights: Weights) -> None:
    """UserError where the weights are of another net or variant, be its names and shapes the same."""
    if weights.spec is None:
        return
    theirs = weights.spec.model
    if _function(theirs) != _function(model):
        raise UserError(f"{weights.source} is of {theirs['name']}, not of {model['name']}: give model={theirs['name']}")
    for key in theirs.keys() & model.keys() - {"name", "source", *WITHOUT_EFFECT}:
        if theirs[key] != model[key]:
            raise UserError(
                f"{weights.source} is of {theirs['name']} with {key}={theirs[key]}, not {model[key]}: "
                f"give model.{key}={theirs[key]}"
            )


def _function(model: dict[str, Any]) -> str:
    """A name for what the net computes: torchvision's where it has the net, under whichever name it goes here."""
    if model.get("source") == "torchvision":
        return f"torchvision {model['name']}"
    return f"torchvision {TWINS[model['name']]}" if model["name"] in TWINS else str(model["name"])


def check_names(rename: Any, skip: Any) -> None:
    """UserError where these are not names."""
    pairs = [*rename.keys(), *rename.values()] if isinstance(rename, Mapping) else [rename]
    if rename is not None and not all(isinstance(name, str) for name in pairs):
        raise UserError(f"weights_rename={rename}: give pairs of names, as in 'weights_rename={{linear: fc}}'")
    if skip is not None and not (isinstance(skip, list) and all(isinstance(name, str) for name in skip)):
        raise UserError(f"weights_skip={skip}: give a list of names, as in 'weights_skip=[fc]'")


def _difference(model: Net, weights: Weights, wrong: list[str]) -> str:
    more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return (
        f"{weights.source} does not fit {model.name}: {'; '.join(wrong[:SHOWN])}{more}\n"
        "another net, or other names for it? Name what differs: 'weights_rename={their: our}', 'weights_skip=[name]'"
    )


def renamed(weights: Weights, rename: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors of the weights under our names. UserError for a beginning that no name has."""
    state = weights.state
    for old, new in rename.items():
        hits = [name for name in state if name == old or name.startswith(f"{old}.")]
        if not hits:
            raise UserError(f"weights_rename: no name in {weights.source} is or begins with '{old}', as {_some(state)}")
        state = {f"{new}{name[len(old) :]}" if name in hits else name: value for name, value in state.items()}
    return state


def _skipped(model: Net, state: Mapping[str, Tensor], skip: list[str]) -> set[str]:
    """All names, of the net and of the file, that `skip` covers."""
    found = set()
    for entry in skip:
        stage = _names_in(model, [entry]) if entry in model.stages else set()
        hits = {name for name in [*model.state_dict(), *state] if name == entry or name.startswith(f"{entry}.")}
        if not hits and not stage:
            raise UserError(f"weights_skip: nothing is called '{entry}', neither in the file nor in {model.name}")
        found |= hits | stage
    return found


def _names_in(model: Net, stages: list[str]) -> set[str]:
    """Names of the parameters and buffers in these stages."""
    inside = {id(tensor) for stage in stages for module in model.stages[stage]
              for tensor in [*module.parameters(), *module.buffers()]}  # fmt: skip
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name for name, tensor in tensors if id(tensor) in inside}


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def for_new_classes(model: dict[str, Any]) -> dict[str, Any]:
    """Name and arguments of the net as one takes it for other classes: without a ReLU behind its logits, which would
    keep a linear classifier from saying no."""
    if models.has_argument(model["name"], "final_relu", model.get("source", "cnnbench")):
        return {**model, "final_relu": False}
    return model
