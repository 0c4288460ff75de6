"""Loading of weights into a net that can be used: built, filled, and with what it takes to prepare its images.

Weights of ours say all that of themselves. Weights from elsewhere, tensors alone, do not: then the caller says it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench import models
from cnnbench.config.sections import Interpolation, PrepareConfig
from cnnbench.data.class_names import coco_names, imagenet_names, matched
from cnnbench.data.model_spec import InputSpec, ModelSpec
from cnnbench.data.moments import IMAGENET_MEAN, IMAGENET_STD
from cnnbench.models import own_nets, timm_nets
from cnnbench.models.layers import BOXES, MASK, Net, output_layer
from cnnbench.models.meta_kernels import Shapes
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import some
from cnnbench.utils.named_files import typed_path
from cnnbench.weights import merge, sources, variants
from cnnbench.weights.merge import MergeReport
from cnnbench.weights.sources import Weights

TASKS = {MASK: "segmentation", BOXES: "detection"}  # of nets by what they answer with


def ready(
    weights: Weights,
    model: dict[str, Any] | None,
    prepare: PrepareConfig,
    rename: Any = None,
    skip: Any = None,
    *,
    of_data: Sequence[str] = (),
) -> tuple[Net, ModelSpec, list[str]]:
    """The net with its weights, what it takes to use it, and what the user should be told. UserError if unknown.

    What `prepare` says wins over what the weights say. of_data: classes of the data on which the net is to be measured,
    for weights that name none.
    """
    classes = class_names(prepare.classes)
    notes: list[str] = []
    if weights.spec is not None:
        _check_own(weights, model, rename, skip)
        net, known = sources.build(weights), weights.spec
    else:
        net, known, notes = _from_tensors(weights, model, prepare, classes, rename, skip, of_data)
    keys = ("image_size", "crop_ratio", "interpolation", "mean", "std")
    said: dict[str, Any] = {key: value for key in keys if (value := getattr(prepare, key)) is not None}
    if "interpolation" in said:
        said["interpolation"] = Interpolation(said["interpolation"]).value
    spec = replace(known, labels=classes or known.labels, input=replace(known.input, **said))
    _check(spec, net, weights.source)
    if spec.input.image_size != known.input.image_size or weights.spec is None:
        models.check_image_size(net, spec.input.image_size)  # it takes a second: not where the size is the net's own
    return net, spec, notes


def _check_own(weights: Weights, model: dict[str, Any] | None, rename: Any, skip: Any) -> None:
    if model is not None:
        merge.check_variant(model, weights)
    if rename or skip:
        raise UserError(f"weights_rename and weights_skip are for files from elsewhere: {weights.source} needs neither")


def _from_tensors(
    weights: Weights,
    model: dict[str, Any] | None,
    prepare: PrepareConfig,
    classes: list[str] | None,
    rename: Any,
    skip: Any,
    of_data: Sequence[str],
) -> tuple[Net, ModelSpec, list[str]]:
    """Tensors alone: the net is the caller's, its number of classes and of channels theirs."""
    if model is None:
        raise UserError(
            f"{weights.source} does not say of which net its weights are: add model=…, as in model=resnet20"
        )
    model = own_nets.identified(model)
    arguments = {key: value for key, value in model.items() if value is not None}
    with torch.device("meta"), Shapes():
        sketch = models.build(**arguments)
    merge.check_names(rename, skip)
    state = merge.named_as_here(sketch, weights, rename or {}, list(skip or [])).state
    first = next((layer for layer in sketch.modules() if isinstance(layer, nn.Conv2d)), None)
    rows = (_shape(output_layer(sketch), sketch, state) or (0, 0))[0]
    outputs = sketch.outputs_of(rows) if rows else 1000
    channels = ((first and _shape(first, sketch, state)) or (0, sketch.image_channels or 3))[1]
    notes = []
    if classes is None:
        classes, note = named_classes(outputs, of_data, weights.source, sketch.answers)
        notes.append(note)
    images = timm_nets.images_of(model["name"]) if model.get("source") == timm_nets.SOURCE else {}
    if images:
        notes.append(f"images: prepared as timm says of {model['name']}")
    elif prepare.mean is None or prepare.std is None:
        if channels != 3:
            raise UserError(f"{weights.source} does not say how its images were normalised: give prepare.mean and .std")
        notes.append(
            "images: normalised as usual for ImageNet; set prepare.mean and prepare.std if the weights need others"
        )
    if note := variants.unknown(weights.source, model):
        notes.append(note)
    net = models.build(**{**arguments, "num_classes": outputs, "in_channels": channels})
    report = merge.merge(net, weights, rename, skip)
    _check_whole(net, report)
    notes = [*report.notes, *([f"not used: {some(report.unused)}"] if report.unused else []), *notes]
    spec = ModelSpec(
        task=TASKS.get(net.answers, "classification"),
        model=model,
        labels=classes,
        input=InputSpec(
            **{
                "mean": list(IMAGENET_MEAN),
                "std": list(IMAGENET_STD),
                "image_size": net.image_size,
                "crop_ratio": 0.875 if net.image_size > 64 and net.answers not in TASKS else 1.0,
                **images,
            },
            in_channels=channels,
        ),
    )
    return net.eval(), spec, notes


def _check_whole(net: Net, report: MergeReport) -> None:
    """A net is asked with all of its weights, or not at all; the auxiliary heads are for training alone."""
    unused = (*(f"{name}." for name in net.auxiliary), "num_batches_tracked")
    drawn = [name for name in report.fresh if not name.startswith(unused[:-1]) and not name.endswith(unused[-1])]
    if drawn:
        raise UserError(f"{report.source} gives {drawn[0]} no weights, so the net's answers would be those of chance")


def _shape(layer: nn.Linear | nn.Conv2d, sketch: Net, state: dict[str, Tensor]) -> tuple[int, int] | None:
    """Channels (or features) that the layer gives and takes in the state; None where the state has no such layer."""
    name = next(name for name, module in sketch.named_modules() if module is layer)
    weight = state.get(f"{name}.weight")
    if weight is None or weight.ndim < 2:
        return None
    return weight.shape[0], weight.shape[1] * getattr(layer, "groups", 1)


def _check(spec: ModelSpec, net: Net, source: str) -> None:
    if spec.labels and len(spec.labels) != (outputs := net.outputs_of(output_layer(net).weight.shape[0])):
        raise UserError(f"{source} tells {outputs} classes apart, but {len(spec.labels)} are named")
    for name in ("mean", "std"):
        if len(getattr(spec.input, name)) != spec.input.in_channels:
            count = len(getattr(spec.input, name))
            raise UserError(f"{name} has {count} values, but {source} takes {spec.input.in_channels} channels")


def class_names(given: Any) -> list[str] | None:
    """Names of classes as `prepare.classes` has them: a list, or the path of a text file with one in each line."""
    if given is None:
        return None
    if isinstance(given, list | tuple):
        return [str(name) for name in given]
    try:
        lines = typed_path(given).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"prepare.classes: cannot read {given}: {getattr(error, 'strerror', None) or 'no text'}"
        ) from None
    return [line.strip() for line in lines if line.strip()]


def named_classes(outputs: int, of_data: Sequence[str], source: str, answers: str) -> tuple[list[str], str]:
    """Names for the outputs of a net whose weights name none, and what was assumed. UserError where nothing tells."""
    if answers == BOXES and outputs == len(names := coco_names()) and (not of_data or matched(of_data, names)):
        return names, "classes: COCO's 90 numbers, by torchvision's names"
    if outputs == 1000 and (not of_data or matched(of_data, imagenet_names())):
        return imagenet_names(), "classes: the 1,000 of ImageNet, by torchvision's names"
    if not of_data:
        raise UserError(
            f"{source} does not name its {outputs} classes: give prepare.classes=FILE, with a name in each "
            "line, or a list"
        )
    return list(of_data), f"classes: {source} names none, so they are taken to be the data's, in their order"
