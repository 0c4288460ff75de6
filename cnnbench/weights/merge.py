"""Weights of one net into another: a checked merge, which names all that it leaves out, and a new head."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cnnbench import models
from cnnbench.models import own_nets
from cnnbench.models.layers import Net
from cnnbench.utils.errors import UserError, unknown
from cnnbench.utils.format import plural, some
from cnnbench.weights.finite import check_finite
from cnnbench.weights.sources import TWINS, Weights
from cnnbench.weights.tensors import common_prefix
from cnnbench.weights.validation import differences

FROM = "from:"  # a stage and all after it


@dataclass(frozen=True)
class MergeReport:
    """Report of a merge: names of the net's tensors loaded, those left as initialised with the reason, and names in the
    file that nothing took."""

    source: str
    loaded: list[str]
    fresh: dict[str, str]
    unused: list[str]
    notes: list[str]  # what was taken of the file, and what its names begin with

    def text(self) -> str:
        lines = [*self.notes, f"weights: {len(self.loaded)} of {plural(len(self.loaded) + len(self.fresh), 'tensor')} "
                 f"from {self.source}"]  # fmt: skip
        for reason in dict.fromkeys(self.fresh.values()):
            names = [name for name, why in self.fresh.items() if why == reason]
            lines.append(f"  initialised anew: {some(names)} ({reason})")
        if self.unused:
            lines.append(f"  not used: {some(self.unused)}")
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
    names, or stages, that keep the model's own initialisation; "from:layer3" is layer3 and all after it. The head is
    left as initialised where its shapes differ (other classes), or where new_head says that its classes are others
    although as many. Auxiliary heads that the model has not are passed over. Of a classifier the model takes all but
    the head, where it is built on one. Any other difference is a UserError, and nothing is loaded then.
    """
    wanted = model.state_dict()
    check_names(rename, skip)
    rename, skip = rename or {}, named_stages(list(model.stages), skip or [])
    given = named_as_here(model, weights, rename, skip)
    if below := from_backbone(model, given):
        given, new_head = below, True
    state, auxiliary = given.state, auxiliary_names(model)
    head = _names_in(model, ["head"]) if below else _names_of(model, model.class_layers)
    skipped = _skipped(model, [*state, *given.beside], skip)
    loaded: dict[str, Tensor] = {}
    fresh: dict[str, str] = {}
    missing, other = list[str](), list[str]()
    for name, own in wanted.items():
        theirs = state.get(name)
        if name in skipped:
            fresh[name] = "weights_skip"
        elif name in head and new_head:
            fresh[name] = "the weights are of the backbone" if below else "new classes"
        elif theirs is None and name.endswith("num_batches_tracked"):
            fresh[name] = "older files do not count batches"
        elif theirs is None and name.startswith(auxiliary):
            fresh[name] = "the file has no auxiliary heads"
        elif theirs is None:
            missing.append(f"{name} {tuple(own.shape)}")
        elif not differences({name: own}, {name: theirs}):
            loaded[name] = theirs
        elif name in head and theirs.is_floating_point():
            fresh[name] = f"{theirs.shape[0]} classes there, {own.shape[0]} here"
        else:
            other += differences({name: own}, {name: theirs})
    surplus = [name for name in state if name not in wanted and name not in skipped]
    unused = [name for name in surplus if name.startswith(auxiliary)]
    extra = [f"{name} {tuple(state[name].shape)}" for name in surplus if name not in unused]
    if missing:  # what lies beside the net may be the missing layer under another name
        extra += [f"{name} {tuple(given.beside[name].shape)}" for name in given.beside]
    if missing or other or extra:
        raise UserError(_difference(model, weights, missing, extra, other))
    check_finite(loaded, weights.source)
    model.load_state_dict(loaded, strict=False)
    return MergeReport(weights.source, list(loaded), fresh, [*unused, *given.beside], [*weights.notes, *given.notes])


# Arguments that change how a net is trained or begins, not what its weights mean.
WITHOUT_EFFECT = (
    "dropout",
    "dropout_aux",
    "init",
    "zero_init_residual",
    "aux",
    "final_relu",
    "in_channels",
    "cut",
    "loss",
)


def check_variant(model: dict[str, Any], weights: Weights) -> None:
    """UserError where the weights are of another net or variant, be its names and shapes the same."""
    if weights.spec is None:
        return
    theirs = weights.spec.model
    if theirs.get("source") == model.get("source") == own_nets.SOURCE:  # its file was compared when it was read
        model = {key: value for key, value in model.items() if value is not None and key not in ("file", "sha256")}
        model.setdefault("name", theirs["name"])
    if (below := models.backbone_of(model)) and _function(theirs) == _function(below):
        return
    if _function(theirs) != _function(model):
        give = f"model={theirs['name']}" if theirs["name"] in models.MODELS else f"model.name={theirs['name']}"
        raise UserError(f"{weights.source} is of {theirs['name']}, not of {model['name']}: give {give}")
    for key in theirs.keys() & model.keys() - {"name", "source", *WITHOUT_EFFECT}:
        if theirs[key] != model[key]:
            raise UserError(
                f"{weights.source} is of {theirs['name']} with {key}={theirs[key]}, not {model[key]}: "
                f"give model.{key}={theirs[key]}"
            )


def _function(model: dict[str, Any]) -> str:
    """A name for what the net computes: torchvision's where it has the net, under whichever name it goes here."""
    if model.get("source", models.SOURCES[0]) != models.SOURCES[0]:
        return f"{model['source']} {model['name']}"
    return f"torchvision {TWINS[model['name']]}" if model["name"] in TWINS else str(model["name"])


def check_names(rename: Any, skip: Any) -> None:
    """UserError where these are not names."""
    pairs = [*rename.keys(), *rename.values()] if isinstance(rename, Mapping) else [rename]
    if rename is not None and not all(isinstance(name, str) for name in pairs):
        raise UserError(f"weights_rename={rename}: give pairs of names, as in 'weights_rename={{linear: fc}}'")
    if skip is not None and not (isinstance(skip, list) and all(isinstance(name, str) for name in skip)):
        raise UserError(f"weights_skip={skip}: give a list of names, as in 'weights_skip=[fc]'")


def named_stages(stages: list[str], skip: Iterable[str]) -> list[str]:
    """`skip` with the stages of each "from:STAGE" in its place."""
    found: list[str] = []
    for entry in skip:
        first = entry.removeprefix(FROM)
        if entry.startswith(FROM) and first not in stages:
            raise unknown("stage", first, stages)
        found += stages[stages.index(first) :] if entry.startswith(FROM) else [entry]
    return found


def _difference(model: Net, weights: Weights, missing: list[str], extra: list[str], other: list[str]) -> str:
    """What differs, in three lines: the net's names, the file's beside them, and what to type."""
    parts = [("missing in the file", missing), ("only in the file", extra), ("of another kind", other)]
    said = [f"{what}: {some(names)}" for what, names in parts if names]
    return (
        f"{weights.source} does not fit {model.name}; {said[0]}\n"
        + "".join(f"{'; '.join(said[1:])}\n" if said[1:] else "")
        + "another net, or other names for it? Name what differs: 'weights_rename={their: our}', 'weights_skip=[name]'"
    )


@dataclass(frozen=True)
class Named:
    """Tensors of a file under the net's names, tensors that lie beside them there, and notes for the user."""

    state: dict[str, Tensor]
    beside: dict[str, Tensor]
    notes: list[str]


def named_as_here(model: Net, weights: Weights, rename: Mapping[str, str], skip: list[str]) -> Named:
    """The tensors as `rename` says, then without the prefix that takes all names to the net's, where there is one.

    UserError for a beginning that no name has.
    """
    wanted, head, passed = model.state_dict(), _names_in(model, ["head"]), (*auxiliary_names(model), *skip)
    needed = [name for name in wanted if name not in head and not name.startswith(passed)
              and not name.endswith("num_batches_tracked")]  # fmt: skip
    found, left = _renamed(weights.state, rename)
    found = {_inside(model, wanted, name): value for name, value in found.items()}
    prefix = common_prefix(found, needed)
    ours = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
    rest = {name: value for name, value in found.items() if not name.startswith(prefix)}
    own = {name: value for name, value in rest.items() if name in wanted and name not in ours}
    state, left = _renamed(ours | own, left)
    if left:
        raise UserError(
            f"weights_rename: no name in {weights.source} is or begins with '{next(iter(left))}', "
            f"as {some(list(weights.state))}"
        )
    notes = [f"names in the file begin with '{prefix}': taken off"] if prefix else []
    return Named(state, {name: value for name, value in rest.items() if name not in own}, notes)


def _inside(model: Net, wanted: Container[str], name: str) -> str:
    """The net's name for a tensor that a file has under the name that it has inside of the net."""
    inner = model.inner + name
    return inner if name not in wanted and inner in wanted else name


def from_backbone(model: Net, given: Named) -> Named | None:
    """The tensors of a classifier under the names that they have in the model, which is built on it: those of its
    linear layers as convolutions, its head left beside. None where the file is of something else."""
    own = {name: value for name, value in model.state_dict().items() if name not in _names_in(model, ["head"])}
    longest_first = sorted(model.backbone_names.items(), key=lambda pair: -len(pair[0]))
    state: dict[str, Tensor] = {}
    beside = dict(given.beside)
    for name, value in given.state.items():
        here = next((begun for old, new in longest_first if (begun := _begun_anew(name, old, new))), "")
        if here in own:
            convolves = value.ndim == 2 and value.numel() == own[here].numel()
            state[here] = value.reshape(own[here].shape) if convolves else value
        else:
            beside[name] = value
    return Named(state, beside, given.notes) if state and not given.state.keys() & own.keys() else None


def _renamed(state: dict[str, Tensor], rename: Mapping[str, str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors under other names, and the pairs that no name begins with. A dot at the end changes nothing."""
    left = {}
    for old, new in rename.items():
        names = {name: _begun_anew(name, old.removesuffix("."), new.removesuffix(".")) for name in state}
        if all(name is None for name in names.values()):
            left[old] = new
            continue
        ours = {name: changed or name for name, changed in names.items()}
        if twice := [name for name, count in Counter(ours.values()).items() if count > 1]:
            raise UserError(f"weights_rename={{{old}: '{new}'}} gives several tensors the name {twice[0]}")
        state = {ours[name]: value for name, value in state.items()}
    return state, left


def _begun_anew(name: str, old: str, new: str) -> str | None:
    """The name with another beginning, up to a dot; None where it does not begin so."""
    if old and name != old and not name.startswith(f"{old}."):
        return None
    rest = name[len(old) :].removeprefix(".")
    return ".".join(filter(None, [new, rest])) or None


def auxiliary_names(model: Net) -> tuple[str, ...]:
    """What the names of auxiliary heads begin with."""
    return ("aux1.", "aux2.", "AuxLogits.", *(f"{name}." for name in model.auxiliary))


def _skipped(model: Net, names: list[str], skip: list[str]) -> set[str]:
    """All names, of the net and of the file, that `skip` covers."""
    found = set()
    for entry in skip:
        stage = _names_in(model, [entry]) if entry in model.stages else set()
        begins = (f"{entry}.", f"{model.inner}{entry}.")
        hits = {name for name in [*model.state_dict(), *names] if f"{name}.".startswith(begins)}
        if not hits and not stage:
            raise UserError(f"weights_skip: nothing is called '{entry}', neither in the file nor in {model.name}")
        found |= hits | stage
    return found


def _names_in(model: Net, stages: list[str]) -> set[str]:
    """Names of the parameters and buffers in these stages."""
    return _names_of(model, [module for stage in stages for module in model.stages[stage]])


def _names_of(model: Net, modules: Iterable[nn.Module]) -> set[str]:
    """Names of the parameters and buffers in these modules of the net."""
    inside = {id(tensor) for module in modules for tensor in [*module.parameters(), *module.buffers()]}
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name for name, tensor in tensors if id(tensor) in inside}


def for_new_classes(model: dict[str, Any]) -> dict[str, Any]:
    """Name and arguments of the net as one takes it for other classes: without a ReLU behind its logits, which would
    keep a linear classifier from saying no."""
    if models.has_argument(model["name"], "final_relu", model.get("source", "cnnbench")):
        return {**model, "final_relu": False}
    return model
