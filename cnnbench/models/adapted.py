"""Any torch module as a `Net`: what a Net says of itself is found by running the module once, on shapes alone.

The module is the child `net`, so that all names begin with `net.` and none of its own can be taken for one of Net's.
Where it says nothing else, its stages are its parts in the order in which they run. It may say so itself, by two
attributes: `image_size`, the side of its images in pixels, and `stages`, a dictionary from `stem` to `head` of lists of
modules or of their names.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from cnnbench.models.layers import Net, run_on_meta
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural
from cnnbench.utils.plain_yaml import first_line

SIDES = (224, 32, 28, 64, 96, 128, 227, 256, 299, 384, 16, 8)  # that a module is tried with which names no size
LEAST = 4  # parts with weights that stages are made of, where the module has so many
WEIGHTED = nn.Conv2d | nn.Linear


@dataclass(frozen=True)
class Traced:
    """Way of one image through a module: names of the modules that it went through, in order, with the shapes of what
    they gave; and the shape of the answer, or what the answer was where it is no tensor."""

    calls: list[tuple[str, tuple[int, ...]]]
    answer: tuple[int, ...] | str


@dataclass(frozen=True)
class Facts:
    """What a Net says of itself, with the channels of its images. A name with a dot at its end stands for the module's
    own parameters alone."""

    channels: int
    image_size: int
    any_size: bool
    outputs: int
    stages: dict[str, list[str]]
    auxiliary: list[str]
    scoring: str | None


class Adapted(Net):
    """A module that classifies, images (N, in_channels, H, W) -> logits (N, classes), with what was found of it."""

    def __init__(self, net: nn.Module, facts: Facts) -> None:
        super().__init__()
        self.net, self._facts = net, facts
        self.image_channels, self.image_size, self.any_size = facts.channels, facts.image_size, facts.any_size
        self.aux_weight = float(getattr(net, "aux_weight", 0.0))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        answer = self.net(x)
        if not isinstance(answer, tuple | list):
            return answer
        logits = tuple(one for one in answer if one is not None)
        return logits if len(logits) > 1 and self.training else logits[0]

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {stage: [self._part(name) for name in names] for stage, names in self._facts.stages.items()}

    @property
    def inner(self) -> str:
        return "net."

    @property
    def auxiliary(self) -> dict[str, nn.Module]:
        return {f"net.{name}": self._part(name) for name in self._facts.auxiliary}

    @property
    def scoring(self) -> nn.Linear | nn.Conv2d | None:
        found = self.net.get_submodule(self._facts.scoring) if self._facts.scoring is not None else None
        return found if isinstance(found, WEIGHTED) else None

    @property
    def class_layers(self) -> list[nn.Module]:
        return [self.scoring] if self.scoring else self.stages["head"]

    def outputs_of(self, rows: int) -> int:
        return rows if self.scoring else self._facts.outputs

    def _part(self, name: str) -> nn.Module:
        module = self.net.get_submodule(name.removesuffix("."))
        return nn.ParameterList(module.parameters(recurse=False)) if name.endswith(".") else module


def adapted(net: nn.Module, name: str, *, channels: int, outputs: int | None, image_size: int | None = None) -> Net:
    """The module as a Net. name: what to call it, to the user. channels: of its images. outputs: how many it must have;
    None: any. image_size: side of its images, None: as it says itself, else the first of SIDES that it takes.

    UserError where it takes no such image, or answers with something else than so many logits.
    """
    if not any(isinstance(module, WEIGHTED) for module in net.modules()):
        raise UserError(f"{name} has neither a convolution nor a linear layer: there is nothing to train")
    declared = getattr(net, "image_size", None)
    size = image_size or (declared if type(declared) is int else None)
    sides = SIDES if size is None else (size,)
    found = next(((side, traced) for side in sides if (traced := _try(net, side, channels))), None)
    if found is None:
        raise _refused(net, name, channels, sides)
    side, traced = found
    rows = _outputs(traced, name, outputs)
    any_size = size is None and _try(net, 2 * side, channels) is not None
    stages, auxiliary = _declared(net, name) or found_stages(net, [called for called, _ in traced.calls])
    scores = [called for called, shape in traced.calls if shape[1:2] == (rows,) and _is_weighted(net, called)]
    return Adapted(net, Facts(channels, side, any_size, rows, stages, auxiliary, scores[-1] if scores else None))


# One image through the module


def trace(net: nn.Module, side: int, channels: int) -> Traced:
    """Way of an image of side x side pixels through the module, in eval mode, on shapes alone. Raises its errors."""
    names = {module: name for name, module in net.named_modules()}
    calls: list[tuple[str, tuple[int, ...]]] = []
    answers: list[Any] = []

    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        if module is net:
            answers.append(output)
        elif module in names:
            calls.append((names[module], tuple(output.shape) if isinstance(output, Tensor) else ()))

    hook = register_module_forward_hook(record)
    try:
        run_on_meta(net, side, channels)
    finally:
        hook.remove()
    answer = answers[-1]
    if isinstance(answer, tuple | list) and answer:
        answer = answer[0]
    return Traced(calls, tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__)


def _try(net: nn.Module, side: int, channels: int) -> Traced | None:
    try:
        return trace(net, side, channels)
    except Exception:  # whatever a stranger's code raises; `_refused` says it
        return None


def _refused(net: nn.Module, name: str, channels: int, sides: Sequence[int]) -> UserError:
    """Why the module takes no such image, in its own words or in better ones."""
    for other in {1, 3} - {channels}:
        if any(_try(net, side, other) for side in sides):
            there = plural(other, "channel")
            return UserError(f"{name} takes images of {there}, not of {channels}: let it have an argument in_channels")
    try:
        trace(net, sides[0], channels)
    except Exception as error:
        why, reads, shapes = told(error), "meta" in str(error), isinstance(error, RuntimeError | ValueError)
    if reads:
        return UserError(f"{name} reads the values of a tensor while it runs, so its layers cannot be told from shapes "
                         f"alone: {why}")  # fmt: skip
    size = f"{sides[0]} x {sides[0]} pixels"
    also = (
        f"\nnor one of {', '.join(map(str, sides[1:]))}: give its own, as model.image_size=48"
        if sides[1:] and shapes
        else ""
    )
    return UserError(f"{name} takes no image of {plural(channels, 'channel')} and {size}: {why}{also}")


def _outputs(traced: Traced, name: str, wanted: int | None) -> int:
    """Number of logits. UserError where the answer is something else, or they are not as many as wanted."""
    answer = traced.answer
    if isinstance(answer, str) or len(answer) != 2 or answer[0] != 1:
        shape = f"a {answer}" if isinstance(answer, str) else " x ".join(map(str, answer))
        raise UserError(f"{name} answers to one image with {shape}, not with logits: 1 x classes")
    if wanted is not None and answer[1] != wanted:
        raise UserError(
            f"{name} has {answer[1]} outputs where {wanted} are needed: let it have an argument num_classes"
        )
    return answer[1]


def told(error: BaseException) -> str:
    """What a module's own code raised, and the line of it: the last one that is neither torch's nor cnnbench's."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
    frames = [one for one in extract_tb(error.__traceback__) if not one.filename.startswith(ours)]
    at = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {first_line(error)}{at}"


# Stages


def _declared(net: nn.Module, name: str) -> tuple[dict[str, list[str]], list[str]] | None:
    """Stages as the module names them, if it does. UserError where they are not as they must be."""
    declared = getattr(net, "stages", None)
    if not isinstance(declared, Mapping):
        return None
    names = {module: place for place, module in net.named_modules()}
    stages = {str(stage): [part if isinstance(part, str) else names.get(part) for part in parts]
              for stage, parts in declared.items()}  # fmt: skip
    known = dict(net.named_modules())
    if wrong := next((part for parts in stages.values() for part in parts if part not in known), ""):
        raise UserError(f"{name}: its stages name {wrong}, which is no part of it")
    if list(stages)[-1:] != ["head"] or not all(stages.values()):
        raise UserError(f"{name}: its stages must be lists of its parts, and the last one must be called head")
    covered = {parameter for parts in stages.values() for part in parts for parameter in known[str(part)].parameters()}
    if left := next((place for place, parameter in net.named_parameters() if parameter not in covered), ""):
        raise UserError(f"{name}: {left} is in none of its stages")
    return {stage: [str(part) for part in parts] for stage, parts in stages.items()}, []


def found_stages(net: nn.Module, calls: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Stages by name, of the parts in the order in which they first ran, and names of the parts that only training
    runs, which are auxiliary heads.

    Each part with a convolution or linear layer begins a stage; others belong to the stage before. The first stage is
    `stem`, and `head` begins with the last such part. A part without parameters that runs more than once, as a ReLU
    may, is in none: its output is not that of any place.
    """
    first = {name: place for place, name in reversed([*enumerate(calls)])}
    parts = _parts(net, first)
    ran = sorted((name for name in parts if _place(name, first) is not None), key=lambda name: _place(name, first) or 0)
    auxiliary = [name for name in parts if name not in ran and not name.endswith(".") and _layers(net, name)]
    weighted = [name for name in ran if _layers(net, name)]
    stages: dict[str, list[str]] = {"stem": [name for name in parts if name.endswith(".")]}
    current, begun, last = "stem", False, (weighted or ran or [""])[-1]
    for name in ran:
        if name == last:
            current = "head"
        elif name in weighted and begun:
            current = f"{name}_" if name in ("stem", "head") else name
        begun = begun or name in weighted
        if calls.count(name) == 1 or _has_tensors(net, name):
            stages.setdefault(current, []).append(name)
    stages["head"] = [*auxiliary, *_left(net, parts, ran, auxiliary), *stages.get("head", [])]
    return {stage: names for stage, names in stages.items() if names}, auxiliary


def _parts(net: nn.Module, first: Mapping[str, int]) -> list[str]:
    """Parts of the module by name: its children, and in place of what does not run itself, and of what holds the most
    layers while there are too few parts, its own children. A name with a dot behind: its own parameters alone."""
    parts = [*_own(net, ""), *(name for name, _ in net.named_children())]
    while True:
        inner = [name for name in parts if not name.endswith(".") and _children(net, name)]
        silent = [name for name in inner if name not in first and _place(name, first) is not None]
        few = sum(_layers(net, name) > 0 for name in parts if not name.endswith(".")) < LEAST
        wide = max(inner, key=lambda name: _layers(net, name), default="")
        opened = silent[0] if silent else wide if few and wide and _layers(net, wide) > 1 else ""
        if not opened:
            return parts
        at = parts.index(opened)
        below = [f"{opened}.{name}" for name in _children(net, opened)]
        parts[at : at + 1] = [*_own(net.get_submodule(opened), opened), *below]


def _own(module: nn.Module, name: str) -> list[str]:
    return [f"{name}."] if next(module.parameters(recurse=False), None) is not None else []


def _left(net: nn.Module, parts: list[str], ran: list[str], auxiliary: list[str]) -> list[str]:
    """Parts that do not run, as normalisations whose tensors are read in place of them: their parameters train too."""
    rest = [name for name in parts if not name.endswith(".") and name not in (*ran, *auxiliary)]
    return [name for name in rest if _has_tensors(net, name)]


def _place(name: str, first: Mapping[str, int]) -> int | None:
    """Where in the run a part, or the first of what is in it, was called."""
    return min((at for called, at in first.items() if called == name or called.startswith(f"{name}.")), default=None)


def _children(net: nn.Module, name: str) -> list[str]:
    return [child for child, _ in net.get_submodule(name).named_children()]


def _layers(net: nn.Module, name: str) -> int:
    """How many convolutions and linear layers are in a part."""
    if name.endswith("."):
        return 0
    return sum(isinstance(module, WEIGHTED) for module in net.get_submodule(name).modules())


def _has_tensors(net: nn.Module, name: str) -> bool:
    return next(net.get_submodule(name).parameters(), None) is not None


def _is_weighted(net: nn.Module, name: str) -> bool:
    return isinstance(net.get_submodule(name), WEIGHTED)


def built_anywhere(make: Callable[[], nn.Module]) -> nn.Module:
    """What `make` builds, on torch's default device: on the CPU first where it computes with tensors while it does so,
    which the meta device cannot."""
    device = torch.get_default_device()
    try:
        return make()
    except (NotImplementedError, RuntimeError):
        if device.type == "cpu":
            raise
    with torch.device("cpu"):
        return make().to(device)
