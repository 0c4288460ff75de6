"""Nets by name, and checks of their arguments and image sizes."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from cnnbench.models import (
    airbench,
    alexnet,
    bn_inception,
    colorization,
    cuda_convnet,
    deepface,
    edsr,
    espcn,
    fcn,
    googlenet,
    inception,
    lenet,
    nin,
    own_nets,
    preact_resnet,
    resnet,
    short_plain,
    sphereface,
    srcnn,
    ssd,
    timm_nets,
    unet,
    vgg,
)
from cnnbench.models.adaptation import adapt as adapted
from cnnbench.models.embedding import EMBEDDING, Embedder, HeadName
from cnnbench.models.layers import CLASS, Dense, Net, run_on_meta
from cnnbench.utils.errors import UserError, did_you_mean, unknown
from cnnbench.utils.format import some

SOURCES = ("cnnbench", "torchvision", "python", "timm")
MODELS: dict[str, Callable[..., Net]] = {
    **lenet.MODELS,
    **cuda_convnet.MODELS,
    **alexnet.MODELS,
    **vgg.MODELS,
    **nin.MODELS,
    **googlenet.MODELS,
    **bn_inception.MODELS,
    **inception.MODELS,
    **resnet.MODELS,
    **short_plain.MODELS,
    **preact_resnet.MODELS,
    **deepface.MODELS,
    **sphereface.MODELS,
    **airbench.MODELS,
    **srcnn.MODELS,
    **espcn.MODELS,
    **edsr.MODELS,
    **colorization.MODELS,
    **fcn.MODELS,
    **unet.MODELS,
    **ssd.MODELS,
}


def create_model(name: str, num_classes: int = 1000, **arguments: Any) -> Net:
    """Net by name, from Python: cnnbench.create_model("resnet34", num_classes=10, in_channels=1, shortcut="A")."""
    return build(name, num_classes=num_classes if has_classes(name, **arguments) else None, **arguments)


def build(name: str, *, num_classes: int | None = None, in_channels: int | None = None, source: str = "cnnbench",
          cut: str | None = None, adapt: int | None = None, embed: HeadName | None = None,
          **arguments: Any) -> Net:  # fmt: skip
    """Net `name`, initialised as in its file, on torch's default device (`with torch.device("meta")`: no memory).

    num_classes: None is the paper's number (1000, 10 for the CIFAR nets, 4030 for DeepFace); in_channels: None is the
    paper's too. source: "torchvision" takes torchvision's net of this name, "timm" timm's, "python" that of a file (see
    own_nets.py); what is None is then left out. cut: a stage; all stages after it are replaced by one linear layer
    (`Truncated`). adapt: units of the first of two layers in place of the one that gives the logits (adaptation.py).
    embed: a head; the net then answers with embeddings (`Embedder`).
    arguments: of the builder in MODELS. UserError for an unknown name or value, with the choices.
    """
    builder = _builder(name, source)
    if source != SOURCES[0]:
        arguments = {key: value for key, value in arguments.items() if value is not None}
    if (cut or embed) and has_parameter(builder, "aux"):
        arguments["aux"] = False
    if in_channels is not None:
        arguments["in_channels"] = in_channels
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    _check_arguments(name, builder, arguments)
    try:
        net = builder(**arguments)
    except UserError:
        raise
    except ValueError as error:  # raised by a layer, such as groups that do not divide the channels
        raise UserError(f"model {name}: {error}") from error
    net.name = name
    net = net if cut is None else _truncated(net, cut, num_classes)
    net = net if adapt is None else adapted(net, adapt)
    return net if embed is None else Embedder(net, embed, num_classes)


def build_for(model: Mapping[str, Any], *, outputs: int, in_channels: int) -> Net:
    """Net of a configuration (`name` and arguments) for images of so many channels and for so many outputs."""
    arguments = {key: value for key, value in model.items() if key != "in_channels"}
    return build(num_classes=outputs if has_classes(**model) else None, in_channels=in_channels, **arguments)


def _truncated(net: Net, cut: str, num_classes: int | None) -> Net:
    from cnnbench.models.truncated import Truncated  # only here: it imports torchvision

    stages = list(net.stages)[:-1]
    if cut not in stages:
        raise unknown(f"stage of {net.name}", cut, stages)
    if num_classes is None:
        raise UserError(f"{net.name} cut behind {cut} needs a number of classes")
    return Truncated(net, cut, num_classes)


def check_answers(model: Mapping[str, Any], wanted: str, task: str) -> None:
    """UserError, with the nets that do, where the net of a configuration does not answer with what a task needs."""
    name, source = model["name"], model.get("source", SOURCES[0])
    wanted = CLASS if wanted == EMBEDDING else wanted  # any classifier gives embeddings, without its last layer
    given = answers(name, source)
    if given != wanted:
        among = source if known_nets(source) else SOURCES[0]
        fitting = [one for one in known_nets(among) if answers(one, among) == wanted]
        raise UserError(
            f"the net {name} answers with {given}, but task={task} needs {wanted}: take {some(fitting, 8) or 'none'}"
        )


def answers(name: str, source: str = SOURCES[0]) -> str:
    """What the net `name` answers with: `Net.answers` of its class."""
    return _class_of(name, source).answers


def needs_targets(name: str, source: str = SOURCES[0], **_: Any) -> bool:
    """Whether the net `name` computes its loss itself: `Net.needs_targets` of its class."""
    return _class_of(name, source).needs_targets


def _class_of(name: str, source: str) -> type[Net]:
    """Class of the net `name`: it is the net's builder, or returned by it."""
    builder: Any = _builder(name, source)
    while isinstance(builder, partial):
        builder = builder.func
    made: type[Net] = builder if isinstance(builder, type) else inspect.signature(builder).return_annotation
    return made


def backbone_of(model: Mapping[str, Any]) -> dict[str, Any] | None:
    """Name and source of the classifier on which the net of a configuration is built; None where it is on none."""
    if backbone := model.get("backbone"):
        return {"name": backbone, "source": source_of(backbone)}
    if model.get("source") != "torchvision":
        return None
    from cnnbench.models import torchvision_nets

    found = torchvision_nets.backbone_of(model["name"])
    return {"name": found, "source": "torchvision"} if found else None


def source_of(name: str) -> str:
    """Where the net `name` is from, if nothing else is said: torchvision's where cnnbench has none of this name."""
    return next((source for source in SOURCES if name in known_nets(source)), SOURCES[0])


def known_nets(source: str) -> list[str]:
    """Names of all nets of a source; none of the user's own, and none of timm's, which takes seconds to import."""
    if source == SOURCES[0]:
        return list(MODELS)
    if source not in SOURCES[:2]:
        return []
    from cnnbench.models import torchvision_nets

    return torchvision_nets.available_nets()


def has_argument(name: str, argument: str, source: str = "cnnbench") -> bool:
    """Whether the net `name` has this argument."""
    return has_parameter(_builder(name, source), argument)


def has_classes(name: str, source: str = "cnnbench", **_: Any) -> bool:
    """Whether the net `name` has an output for each class, not an image as its answer."""
    return has_argument(name, "num_classes", source)


def own_channels(name: str, source: str = "cnnbench", **arguments: Any) -> int:
    """Channels of the images of the net's paper; of the user's own net, those that it is built for by itself."""
    if source == own_nets.SOURCE:
        return own_nets.own_channels(name, **arguments)
    given = inspect.signature(_builder(name, source)).parameters["in_channels"].default
    return 3 if given is inspect.Parameter.empty else int(given)


def has_parameter(builder: Callable[..., Net], argument: str) -> bool:
    """Whether a builder has this parameter."""
    return argument in inspect.signature(builder).parameters


def _builder(name: str, source: str) -> Callable[..., Net]:
    if source == "cnnbench" and name in MODELS:
        return MODELS[name]
    if source not in SOURCES:
        raise unknown("model source", source, SOURCES)
    if source == own_nets.SOURCE:
        return partial(own_nets.own_net, name)
    if source == timm_nets.SOURCE:
        return partial(timm_nets.timm_net, name)
    from cnnbench.models import torchvision_nets  # only here, since it takes a second to import

    if source == "torchvision":
        return torchvision_nets.net_builder(name)
    error = unknown("model", name, MODELS)
    if name in torchvision_nets.available_nets():
        error = UserError(f"{error}\ntorchvision has it: model=torchvision model.name={name}")
    raise error


def smallest_image(model: Net) -> int:
    """Side in pixels of the smallest square image that the net takes."""
    too_small, enough = 0, model.image_size
    while enough - too_small > 1:
        size = (too_small + enough) // 2
        if _takes(model, size):
            enough = size
        else:
            too_small = size
    return enough


def usual_size(model: Net, of_data: int) -> int:
    """Side of the images that a net takes where nobody says otherwise: its own, or that of the data."""
    return of_data if model.any_size else model.image_size


def check_image_size(model: Net, size: int) -> None:
    """UserError, with the smallest side that works, where the net cannot take images of `size` x `size` pixels."""
    if not _takes(model, size):
        least = smallest_image(model)
        bound = "at least " if size < least else ""
        raise UserError(f"{model.name} needs images of {bound}{least} x {least} pixels, not {size} x {size}")


def check_dense(model: Net, size: int) -> None:
    """UserError where the net cannot be applied to whole images whose shorter side has `size` pixels."""
    try:
        run_on_meta(Dense(model), size)
    except (RuntimeError, ValueError, AssertionError):
        raise UserError(
            f"{model.name} cannot run over whole images of {size} pixels: its layers are made for {model.image_size}"
        ) from None


def size_notes(model: Net, size: int) -> list[str]:
    """Notes for the user, a line each, before the net trains on images of `size` x `size` pixels."""
    if model.auxiliary and size < model.aux_image_size:
        skipped = " and ".join(model.auxiliary)
        return [
            f"{model.name}: no auxiliary loss ({skipped}) below {model.aux_image_size} x {model.aux_image_size} pixels"
        ]
    return []


def _takes(model: Net, size: int) -> bool:
    try:
        run_on_meta(model, size)
    except (
        RuntimeError,
        ValueError,
        AssertionError,
    ):  # torch, its checks and torchvision's nets raise different errors
        return False
    return True


def _check_arguments(name: str, builder: Callable[..., Net], arguments: dict[str, Any]) -> None:
    parameters = inspect.signature(builder).parameters
    for key, value in arguments.items():
        if key not in parameters:
            accepted = ", ".join(parameters)
            raise UserError(
                f"model {name} has no argument '{key}'.{did_you_mean(key, parameters)}\nits arguments: {accepted}"
            )
        annotation = parameters[key].annotation
        if not _accepts(annotation, value):
            raise UserError(f"model {name}: {key} must be {_describe(annotation)}, not {value!r}")
        if int in _kinds(annotation) and value is not None and value < 1:
            raise UserError(f"model {name}: {key} must be at least 1, not {value}")


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is UnionType else (annotation,)


def _accepts(annotation: Any, value: Any) -> bool:
    if get_origin(annotation) is Literal:
        return value in get_args(annotation)
    kinds = [get_origin(kind) or kind for kind in _kinds(annotation)]  # of list[int]: list
    return type(value) in kinds or (float in kinds and type(value) is int)


def _describe(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(map(str, get_args(annotation)))
    words = {bool: "true or false", int: "a whole number", str: "a name", float: "a number", dict: "a dictionary",
             list: "a list"}  # fmt: skip
    return " or ".join(words[get_origin(kind) or kind] for kind in _kinds(annotation) if kind is not NoneType)
