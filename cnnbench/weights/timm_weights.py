"""Weights that timm publishes for its nets, from where timm or the Hub's own tools keep them once they are fetched."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cnnbench.data.class_names import imagenet_names
from cnnbench.data.model_spec import InputSpec, ModelSpec
from cnnbench.models import timm_nets
from cnnbench.utils.errors import UserError
from cnnbench.weights import checkpoint, sources
from cnnbench.weights.tensors import weights_in

FILES = ("model.safetensors", "pytorch_model.bin")


def published(model: dict[str, Any], tag: str = "") -> sources.Weights:
    """timm's weights for this net, with their own preprocessing. tag: which of them, as `bt_in1k`.

    UserError where timm publishes none for ImageNet's 1,000 classes, and where no cache has them.
    """
    name = f"{model['name'].partition('.')[0]}.{tag}" if tag else model["name"]
    about = timm_nets.published_for(name)
    if about.get("num_classes") != 1000 or not (about.get("url") or about.get("hf_hub_id")):
        raise UserError(f"timm publishes no weights of {name} for ImageNet's 1,000 classes: give weights=FILE")
    file = cached(name, about)
    spec = ModelSpec(model=model, labels=imagenet_names(), input=InputSpec(in_channels=3, **timm_nets.images_of(name)))
    state = weights_in(checkpoint.read(file), file).state
    state = {key if key.startswith("net.") else f"net.{key}": value for key, value in state.items()}
    return sources.Weights(source=f"{name} (timm)", state=state, spec=spec)


def cached(name: str, about: Mapping[str, Any]) -> Path:
    """The file of published weights in torch's cache or the Hub's. UserError, with what fetches it, where it is in
    neither."""
    places: list[Path] = []
    if about.get("url"):
        places.append(Path(torch.hub.get_dir()) / "checkpoints" / Path(about["url"]).name)
    if about.get("hf_hub_id"):
        snapshots = _hub() / f"models--{about['hf_hub_id'].replace('/', '--')}" / "snapshots"
        places += [file for kind in FILES for file in sorted(snapshots.glob(f"*/{kind}"))]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UserError(
            f"timm's weights of {name} are in no cache ({_hub()}, {Path(torch.hub.get_dir()) / 'checkpoints'})\n"
            f"In Python, timm.create_model('{name}', pretrained=True) fetches them; or give weights=FILE"
        )
    return found


def _hub() -> Path:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
