"""Nets of the user's own: `model=python model.file=mynet.py model.name=Net`, any torch.nn.Module.

The class, or the function that builds the net, is called with `model.args` and, where its signature has them, with
`num_classes` and `in_channels` (or `in_chans`), which follow from the data. What a Net says of itself is found by
running it once (see adapted.py).
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from cnnbench.models import own_files
from cnnbench.models.adapted import adapted, built_anywhere, told
from cnnbench.models.layers import Net
from cnnbench.utils.errors import UserError

SOURCE = "python"
CHANNELS = ("in_channels", "in_chans")  # names of the argument for the channels of the images


def own_net(
    name: str,
    *,
    file: str | None = None,
    args: dict | None = None,
    image_size: int | None = None,
    sha256: str | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
) -> Net:
    """Net `name` of a file, or `package.module:Net`. num_classes, in_channels: None is what the class has by itself.

    sha256: of the file as it was when the net was trained; None where the user has just named it. UserError where
    anything about it is not as it must be.
    """
    make, path = _maker(name, file, sha256)
    called = f"{name.rpartition(':')[2]} of {path.name}"
    net = _made(make, called, {**_from_data(make, num_classes, in_channels), **(args or {})})
    channels = in_channels or _own_channels(make, net)
    return adapted(net, called, channels=channels, outputs=num_classes, image_size=image_size)


def own_channels(name: str, *, file: str | None = None, args: dict | None = None, sha256: str | None = None,
                 **_: Any) -> int:  # fmt: skip
    """Channels of the images that the net takes where nobody says otherwise."""
    make, path = _maker(name, file, sha256)
    return _own_channels(make, _made(make, f"{name} of {path.name}", {**_from_data(make, None, None), **(args or {})}))


def identified(model: Mapping[str, Any]) -> dict[str, Any]:
    """Name and arguments of a net that the user names; one of the user's own with the path and the SHA-256 of its
    file."""
    if model.get("source") != SOURCE or model.get("sha256"):
        return dict(model)
    return {**model, **own_files.identified(model.get("file"), _known_name(model.get("name"), model.get("file")))}


def give(model: Mapping[str, Any] | None) -> None:
    """Trust the file that the user names beside weights, be it by `model.file` alone."""
    if model and model.get("source") == SOURCE and not model.get("sha256"):
        own_files.identified(model.get("file"), _known_name(model.get("name") or "Net", model.get("file")))


def check_pinned(model: Mapping[str, Any], source: str) -> None:
    """UserError where a net that is stored with weights would run code of which it does not say the content."""
    if model.get("source") == SOURCE and not (isinstance(model.get("sha256"), str) and model.get("file")):
        raise UserError(f"{source} names Python code without its SHA-256: no checkpoint may run code by itself")


def _maker(name: str, file: str | None, sha256: str | None) -> tuple[Callable[..., Any], Path]:
    name = _known_name(name, file)
    if sha256:
        path = own_files.trusted(file, sha256, name)
    else:
        path = Path(own_files.identified(file, name)["file"])
    return own_files.taken(path, name), path


def _known_name(name: str | None, file: str | None) -> str:
    if not name or not (file or ":" in name):
        raise UserError(
            "model=python needs a file and a name in it, as in model.file=mynet.py model.name=Net; or "
            "model.name=package.module:Net"
        )
    return name


def _from_data(make: Callable[..., Any], num_classes: int | None, in_channels: int | None) -> dict[str, Any]:
    """Arguments that follow from the data, as far as the signature has them; `**kwargs` has the number of classes,
    which is torchvision's 1000 where neither the data nor the signature says it."""
    takes = inspect.signature(make).parameters
    if num_classes is None and "num_classes" in takes and takes["num_classes"].default is inspect.Parameter.empty:
        num_classes = 1000
    any_key = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in takes.values())
    values = {"num_classes": num_classes, **dict.fromkeys(CHANNELS, in_channels)}
    known = {key: value for key, value in values.items() if key in takes or (key == "num_classes" and any_key)}
    return {key: value for key, value in known.items() if value is not None}


def _made(make: Callable[..., Any], called: str, arguments: dict[str, Any]) -> nn.Module:
    try:
        net = built_anywhere(partial(make, **arguments))
    except Exception as error:
        given = ", ".join(f"{key}={value}" for key, value in arguments.items())
        raise UserError(f"{called} cannot be built with ({given}): {told(error)}") from None
    if not isinstance(net, nn.Module):
        raise UserError(f"{called} made a {type(net).__name__}, not a torch.nn.Module")
    return net


def _own_channels(make: Callable[..., Any], net: nn.Module) -> int:
    """Channels that the net is built for by itself: those of its signature, else those of its first convolution."""
    takes = inspect.signature(make).parameters
    said = [takes[key].default for key in CHANNELS if key in takes and type(takes[key].default) is int]
    convolutions = [layer.in_channels for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    return (said or convolutions or [3])[0]
