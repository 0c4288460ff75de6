"""timm's classifiers by name: `model=timm model.name=resnet26d`, with timm installed (`pip install 'cnnbench[timm]'`).

Parameter names, initialisation and function are timm's own; what a Net says of itself is found by running it once (see
adapted.py). `pretrained_cfg` of timm says for which images the published weights are: size, normalisation and crop.
"""

from collections.abc import Mapping
from functools import partial
from types import ModuleType
from typing import Any

from cnnbench.models.adapted import adapted, built_anywhere, told
from cnnbench.models.layers import Net
from cnnbench.utils.errors import UserError, unknown

SOURCE = "timm"
# Arguments of timm's create_model that fetch or load files, or change what a name means.
REFUSED = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "scriptable")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, where timm says nothing


def timm_net(name: str, *, args: dict | None = None, image_size: int | None = None, num_classes: int = 1000,
             in_channels: int = 3) -> Net:  # fmt: skip
    """Net `name`, with random weights. args: of timm's class, as {drop_path_rate: 0.1}. UserError for what timm refuses
    and for a net that does not classify."""
    timm, given = library(), dict(args or {})
    about = published_for(name)
    if wrong := next((key for key in given if key in REFUSED), None):
        raise UserError(f"model.args.{wrong}: weights are given by weights=, as weights=imagenet or weights=FILE")
    make = partial(timm.create_model, name, num_classes=num_classes, in_chans=in_channels, **given)
    try:
        net = built_anywhere(make)
    except Exception as error:
        raise UserError(f"timm cannot build {name}: {told(error)}") from None
    size = image_size or int(about["input_size"][1])
    return adapted(net, name, channels=in_channels, outputs=num_classes, image_size=size)


def images_of(name: str) -> dict[str, Any]:
    """How images are prepared for timm's weights of a net: mean and std (0..1), side, crop and interpolation."""
    about = published_for(name)
    known = about.get("interpolation") in ("bilinear", "bicubic")
    return {
        "mean": list(about["mean"]),
        "std": list(about["std"]),
        "image_size": int(about["input_size"][1]),
        "crop_ratio": float(about["crop_pct"]),
        "interpolation": about["interpolation"] if known else "bilinear",
    }


def library() -> ModuleType:
    """timm. UserError where it is not installed."""
    try:
        import timm
    except ImportError:
        raise UserError("model=timm needs timm: pip install 'cnnbench[timm]'") from None
    return timm


def published_for(name: str) -> Mapping[str, Any]:
    """What timm says of the weights that it publishes for a net, `name`, or `name.tag` for certain ones. UserError for
    a name that it does not know."""
    timm = library()
    base, _, tag = name.partition(".")
    if base not in timm.list_models():
        raise unknown("net of timm", base, timm.list_models(f"{base[:4]}*") or ["see timm.list_models()"])
    try:
        found = timm.get_pretrained_cfg(name)
    except RuntimeError:
        raise unknown(f"weights of {base} in timm", tag, _tags(timm, base)) from None
    usual = {"input_size": (3, 224, 224), "mean": MEAN, "std": STD, "crop_pct": 0.875, "interpolation": "bilinear"}
    return usual | (found.to_dict() if found else {})


def _tags(timm: ModuleType, base: str) -> list[str]:
    return [one.partition(".")[2] for one in timm.list_pretrained(f"{base}.*")] or ["none"]
