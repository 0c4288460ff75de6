"""The net that is looked at, with what it takes to show it images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnbench import models, runs, weights
from cnnbench.checkpoint import Inference
from cnnbench.data.folders import IMAGENET_MEAN, IMAGENET_STD
from cnnbench.errors import UserError
from cnnbench.models.layers import Net, output_layer
from cnnbench.transfer import check_variant, merge
from cnnbench.visual.places import observed
from cnnbench.weights import Weights


def ready(loaded: Weights, model: dict[str, Any] | None) -> tuple[Net, Inference]:
    """The net with its weights. Tensors alone need `model`, their net; they are taken to be trained as for ImageNet."""
    if loaded.inference is not None:
        if model is not None:
            check_variant(model, loaded)
        return observed(weights.build(loaded)), loaded.inference
    if model is None:
        raise UserError(f"{loaded.source} does not say of which net its weights are: add model=…, as in model=resnet20")
    arguments = {key: value for key, value in model.items() if value is not None}
    with torch.device("meta"):
        sketch = models.build(**arguments)
    name = next(name for name, module in sketch.named_modules() if module is output_layer(sketch))
    classes = len(loaded.state[f"{name}.weight"]) if f"{name}.weight" in loaded.state else None
    first = next(name for name, module in sketch.named_modules() if isinstance(module, nn.Conv2d))
    channels = loaded.state[f"{first}.weight"].shape[1] if f"{first}.weight" in loaded.state else 3
    net = models.build(**{**arguments, "num_classes": classes, "in_channels": channels})
    merge(net, loaded)
    outputs = output_layer(net).weight.shape[0]
    gray = channels != 3
    return observed(net), Inference(
        model=model,
        classes=_names(outputs),
        mean=[0.5] * channels if gray else list(IMAGENET_MEAN),
        std=[0.5] * channels if gray else list(IMAGENET_STD),
        image_size=net.image_size,
        in_channels=channels,
        crop_ratio=0.875 if net.image_size > 64 else 1.0,
    )


def at_size(model: Net, inference: Inference, image_size: int | None) -> Inference:
    """For images of another size, where one is asked for."""
    if image_size is None or image_size == inference.image_size:
        return inference
    models.check_image_size(model, image_size)
    return replace(inference, image_size=image_size)


def short_name(source: str) -> str:
    """What is made from these weights is named after their run and which of its checkpoints, or after their file."""
    file = Path(source)
    if not file.is_file():
        return runs.slug([source])
    if file.parent.name != "checkpoints":
        return runs.slug([file.stem])
    return runs.slug([file.parent.parent.name, *([] if file.stem == "last" else [file.stem])])


def _names(count: int) -> list[str]:
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    return list(_IMAGENET_CATEGORIES) if count == 1000 else [f"class {index}" for index in range(count)]
