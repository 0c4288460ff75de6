"""Sources of weights: `weights=` names a run, a file, published weights or a net of the zoo; all become `Weights`.

    weights=RUN_DIR              the last checkpoint of a run
    weights=FILE                 .pt, .pth, .th or .safetensors: a checkpoint, or names and tensors alone
    weights=imagenet             torchvision's published weights of the net; imagenet:V1 names a version
    weights=zoo:NAME             small weights that come with cnnbench

Files are loaded as data only; code in them is refused.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnnbench import models
from cnnbench.data.model_spec import InputSpec, ModelSpec
from cnnbench.models import own_nets, timm_nets
from cnnbench.models.layers import Net
from cnnbench.utils.errors import UserError, unknown
from cnnbench.utils.fast_start import import_torchvision
from cnnbench.utils.files import read_rows
from cnnbench.utils.text import slug
from cnnbench.weights import checkpoint, finite, foreign, validation
from cnnbench.weights.tensors import weights_in

ZOO = Path(__file__).parents[1] / "zoo"
DEFAULT = "zoo:resnet20-cifar10"  # where neither a net nor weights are named
METADATA = "cnnbench"  # the key under which a .safetensors file of ours carries, as JSON, what it takes to use it

# Our nets that are torchvision's, by its names for them: their published weights are for exactly these functions.
TWINS = {
    "alexnet_owt": "alexnet",
    "googlenet_tv": "googlenet",
    **{name: name for name in ("inception_v3", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152")},
    **{f"vgg{depth}{bn}": f"vgg{depth}{bn}" for depth in (11, 13, 16, 19) for bn in ("", "_bn")},
}
# Nets of a paper that nobody published weights for, and the nearest that somebody did.
NEAREST = {
    "alexnet": "alexnet_owt",
    "vgg11_lrn": "vgg11",
    "vgg16_c": "vgg16",
    "googlenet": "googlenet_tv",
    "bn_inception": "googlenet_tv",
    "plain18": "resnet18",
    "plain34": "resnet34",
    **{f"resnet{depth}_v1": f"resnet{depth}" for depth in (50, 101, 152)},
    **{f"preact_resnet{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)},
}
# torchvision's files of these two expect images in -1..1, whatever normalisation their transforms name: the net itself
# turns the one into the other (transform_input).
IN_MINUS_ONE_TO_ONE = ("googlenet", "inception_v3")
TIMEOUT = 10.0  # seconds to wait for a server that does not answer


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights by name, with their spec and origin."""

    source: str  # what to call them, to the user
    state: dict[str, Tensor]
    spec: ModelSpec | None  # how their net is built and its images are prepared; None for tensors alone
    config: dict[str, Any] | None = None  # of the run that trained them
    epochs: int | None = None  # that they were trained for
    identity: str = ""  # of the images of that training; empty where they have none
    notes: list[str] = field(default_factory=list)  # what was taken of a file from elsewhere, and what was not


def places(given: Any) -> list[str]:
    """What `weights=` names, one or a list. UserError where it names none."""
    found = given if isinstance(given, list) else [given]
    if not found or not all(isinstance(where, str) for where in found):
        raise UserError("weights: give a run, a file, zoo:NAME or imagenet; or a list of such, as weights=[a,b]")
    return found


def load(where: str, model: dict[str, Any] | None = None, key: str | None = None) -> Weights:
    """The weights that `where` names. `model`: name and arguments of the net, which published weights depend on.
    `key`: which of the weights in a file, where there are several.

    Raises UserError where there are none, where they cannot be read, and where they cannot be fetched.
    """
    own_nets.give(model)
    kind, _, rest = where.partition(":")
    if key is not None and kind in ("imagenet", "zoo"):
        raise UserError(f"weights_key={key} is for files from elsewhere: {where} holds one net, so leave it out")
    if kind == "imagenet":
        if model is None:
            raise UserError(f"weights={where} needs a net, as in model=resnet34 weights={where}")
        return published(models.backbone_of(model) or model, rest)
    if kind == "zoo":
        return from_file(zoo_file(rest), f"zoo:{rest}")
    if "://" in where:
        raise UserError(f"weights={where}: fetch the file yourself and give its path, as in weights=FILE")
    path = checkpoint.find(where)
    return from_file(path, str(path), key)


def from_file(path: Path, source: str, key: str | None = None) -> Weights:
    content = checkpoint.read(path)
    ours = checkpoint.is_ours(content)
    if ours:
        content = checkpoint.checked(content, path)
    found = weights_in(content, path, key)
    validation.check_kinds(found.state, source)
    spec: ModelSpec | None
    if ours:
        spec = ModelSpec.from_dict(content["spec"])
        validation.check_fits(spec, found.state, source)
        return Weights(source=source, state=found.state, spec=spec, config=content["config"],
                       epochs=content["progress"]["epoch"], identity=content.get("identity", ""))  # fmt: skip
    if foreign.is_safetensors(path) and (spec := _safetensors_spec(path)):
        validation.check_fits(spec, found.state, source)
        return Weights(source=source, state=found.state, spec=spec)
    notes = [*checkpoint.newer_format(content, path), *found.notes]
    return Weights(source=source, state=found.state, spec=None, notes=notes)


def short_name(source: str) -> str:
    """Short name for what is made from these weights: their run and which of its checkpoints, or their file."""
    file = Path(source)
    if not file.is_file():
        return slug([source])
    run = file.parent.parent.name if file.parent.name == "checkpoints" else file.stem
    return slug([run, *([file.stem] if file.parent.name == "checkpoints" and file.stem != "last" else [])])


def rows_of(source: str) -> list[dict[str, float]]:
    """Rows of the epochs of the run whose checkpoint this is; none of a file from elsewhere."""
    file = Path(source)
    return read_rows(file.parent.parent / "metrics.jsonl") if file.parent.name == "checkpoints" else []


def build(weights: Weights) -> Net:
    """The net of these weights, on the CPU and in eval mode. UserError where it is not known which net that is."""
    if weights.spec is None:
        raise UserError(f"{weights.source} holds tensors alone: it does not say of which net, classes and images")
    spec = weights.spec
    model = models.build_for(spec.model, outputs=spec.outputs, in_channels=spec.input.in_channels)
    finite.check_finite(weights.state, weights.source)
    try:
        model.load_state_dict(weights.state)
    except RuntimeError:
        raise UserError(f"{weights.source}: its weights do not fit its own net, {spec.model['name']}") from None
    return model.eval()


def save_safetensors(path: Path, state: dict[str, Tensor], spec: ModelSpec, **about: Any) -> None:
    """Weights with what it takes to use them in one file that no reader can be harmed by; `about`: JSON values."""
    from safetensors.torch import save_file

    metadata = {METADATA: json.dumps({"spec": asdict(spec), **about})}
    save_file({name: value.contiguous() for name, value in state.items()}, path, metadata=metadata)


def _safetensors_spec(path: Path) -> ModelSpec | None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(METADATA)
    if not text:
        return None
    try:
        content = json.loads(text)
        plain = content.get("spec") or content["inference"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path} says of itself what this version of cnnbench cannot read") from None
    return validation.spec_of(plain, str(path))


# The zoo


def zoo_names() -> list[str]:
    return sorted(file.stem for file in ZOO.glob("*.safetensors"))


def usual(model: dict[str, Any]) -> str:
    """Name of the weights that go with a net, or with what it is built on, where none are named: the zoo's, else the
    published ones."""
    classifier = models.backbone_of(model) or model
    ours = classifier.get("source") not in (own_nets.SOURCE, timm_nets.SOURCE)
    own = [name for name in zoo_names() if ours and name.startswith(f"{classifier['name']}-")]
    return f"zoo:{own[0]}" if own else "imagenet"


def zoo_file(name: str) -> Path:
    if name not in zoo_names():
        raise unknown("weights in the zoo", name, zoo_names() or ["none yet"])
    return ZOO / f"{name}.safetensors"


# Published weights


def published_name(model: dict[str, Any]) -> str:
    """torchvision's name of the net whose published weights these are for; UserError naming the nearest there is."""
    name = model["name"]
    if model.get("source") == own_nets.SOURCE:
        raise UserError(f"nobody published weights for {name}, a net of your own: give weights=FILE, a run or a file")
    if model.get("source") == "torchvision":
        from cnnbench.models import torchvision_nets

        torchvision_nets.net_builder(name)  # refuses a name that it does not know
        return str(name)
    if name in TWINS:
        return TWINS[name]
    nearest = f": {NEAREST[name]} has (model={NEAREST[name]})" if name in NEAREST else ""
    more = [] if nearest else [zoo for zoo in zoo_names() if zoo.startswith(f"{name}-")]
    hint = nearest or (f": weights=zoo:{more[0]} comes with cnnbench" if more else "")
    raise UserError(f"nobody published ImageNet weights for {name} as its paper has it{hint or '; give weights=FILE'}")


def published(model: dict[str, Any], version: str = "") -> Weights:
    """torchvision's weights for this very net, from its cache or fetched into it, with their own preprocessing."""
    if model.get("source") == timm_nets.SOURCE:
        from cnnbench.weights import timm_weights

        return timm_weights.published(model, version)
    import_torchvision()
    from torchvision.models import get_model_weights

    name = published_name(model)
    versions = {key.removeprefix("IMAGENET1K_"): entry for key, entry in get_model_weights(name).__members__.items()}
    if not versions:
        raise UserError(f"torchvision publishes no weights for {name}")
    if version and version not in versions:
        raise unknown(f"version of the weights of {name}", version, versions)
    entry = versions[version] if version else get_model_weights(name).DEFAULT
    transform, file = entry.transforms(), fetched(entry.url)
    inside = name in IN_MINUS_ONE_TO_ONE
    spec = ModelSpec(
        model=model,
        labels=list(entry.meta["categories"]),
        input=InputSpec(
            mean=[0.5] * 3 if inside else list(transform.mean),
            std=[0.5] * 3 if inside else list(transform.std),
            image_size=transform.crop_size[0],
            in_channels=3,
            crop_ratio=transform.crop_size[0] / transform.resize_size[0],
            interpolation=transform.interpolation.value,
        ),
    )
    return Weights(source=f"{name} {entry.name} (torchvision)", state=_published_state(file), spec=spec)


def _published_state(file: Path) -> dict[str, Tensor]:
    try:
        return weights_in(checkpoint.read(file), file).state
    except UserError as error:
        raise UserError(f"{error}\ndelete it, and it is fetched anew") from None


def fetched(url: str) -> Path:
    """The file of a URL in torch's cache ($TORCH_HOME/hub/checkpoints), downloaded first where it is not there yet."""
    import socket

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / url.rpartition("/")[2]
    if file.exists():
        return file
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        hashed = file.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(url, str(file), hash_prefix=hashed, progress=os.isatty(2))
    except (OSError, RuntimeError) as error:  # no network, no such file, no room; a checksum that is wrong
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"could not fetch {url}: {str(reason).splitlines()[0]}\n"
            f"Fetch it on another machine and put it into {folder} (its place follows from $TORCH_HOME), "
            "or give weights=FILE"
        ) from None
    finally:
        socket.setdefaulttimeout(before)
    return file
