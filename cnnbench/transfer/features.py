"""Features of images at each stage of a trained net: the "bottleneck features" for a new classifier.

One pass over the images gives the features of all requested stages. They are cached on disk under a hash of everything
that they depend on: the weights, the stage, the images and their preprocessing. Each file holds its own name and bears
a checksum.
"""

import copy
import hashlib
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor
from tqdm import tqdm

from cnnbench import data
from cnnbench.data import Arrays, Dataset, Source
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.layers import Net, output_layer
from cnnbench.models.truncated import grids, pooled
from cnnbench.runtime.device import Normalize, Runtime
from cnnbench.tasks.passes import check_answers, predictions
from cnnbench.training.setup import FeatureDataset
from cnnbench.utils import files
from cnnbench.utils.console import warn, warn_if_unwritable

PENULTIMATE = "penultimate"  # the features that the output layer sees
VERSION = 2  # of the files on disk
BATCH = 64


def feature_stages(model: Net) -> list[str]:
    """Names of the stages that give features, in forward order: those before the head, then PENULTIMATE."""
    return [*list(model.stages)[:-1], PENULTIMATE]


@contextmanager
def capture_features(model: Net, layers: list[str]) -> Iterator[dict[str, Tensor]]:
    """Dictionary that each forward pass inside this block fills with the features (N, D) of each layer."""
    found: dict[str, Tensor] = {}
    handles = []
    cells = grids(model) if layers != [PENULTIMATE] else {}
    for name in layers:
        if name == PENULTIMATE:
            handles.append(output_layer(model).register_forward_pre_hook(_keep_input(found)))
        else:
            handles.append(
                model.stages[name][-1].register_forward_hook(_keep_output(found, name, cells[name][0], model))
            )
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _keep_input(found: dict[str, Tensor]) -> Callable[..., None]:
    def hook(module: Any, inputs: tuple[Tensor]) -> None:
        # If the output layer is a 1x1 convolution, its map is averaged afterwards; both are linear, so order is free.
        found[PENULTIMATE] = inputs[0].float().mean((2, 3)) if inputs[0].ndim == 4 else inputs[0].float()

    return hook


def _keep_output(found: dict[str, Tensor], name: str, side: int, model: Net) -> Callable[..., None]:
    def hook(module: Any, inputs: Any, output: Tensor) -> None:
        found[name] = pooled(output.float(), side, model.map_dims)

    return hook


@torch.no_grad()
def extract_features(
    model: Net, source: Source, dataset: Dataset, spec: ModelSpec, runtime: Runtime, layers: list[str],
    workers: int | None, stream: TextIO,
) -> dict[str, Tensor]:  # fmt: skip
    """Features of each layer, float32 (len(source), D) on the CPU, of the images with evaluation preprocessing."""
    model.eval()
    batches = data.eval_loader(source, dataset, image_size=spec.input.image_size, batch_size=BATCH, workers=workers)
    normalize = Normalize(runtime, spec.input.mean, spec.input.std)
    parts: dict[str, list[Tensor]] = {name: [] for name in layers}
    bar = tqdm(total=len(source), desc="features", unit="image", leave=False, file=stream, disable=not stream.isatty())
    with capture_features(model, layers) as found, bar:
        for _, targets, _ in predictions(model, batches.epoch(0), runtime, normalize):
            for name in layers:
                parts[name].append(found[name].cpu())
            bar.update(len(targets))
    features = {name: torch.cat(part) for name, part in parts.items()}
    for name, rows in features.items():
        check_answers(rows, f"features of {name}", partial(data.image_names, source), runtime.precision)
    return features


class FeatureExtractor:
    """Computes features of one net on one data set. Each layer is computed once and cached in `folder`, if given."""

    def __init__(
        self, model: Net, dataset: Dataset, spec: ModelSpec, runtime: Runtime, *, folder: Path | None,
        workers: int | None, stream: TextIO,
    ) -> None:  # fmt: skip
        self.model, self.dataset, self.spec, self.runtime = runtime.place(model), dataset, spec, runtime
        self.folder, self.workers, self.stream = folder, workers, stream
        self._whole: FeatureExtractor | None = None
        self._parts: dict[int, Tensor] = {}

    def on(self, model: Net, dataset: Dataset, parts: dict[int, Tensor]) -> "FeatureExtractor":
        """Extractor for another net with the same weights and for subsets of the training images, whose features are
        taken from those of all images. parts: id of a subset's source -> indices of its images."""
        other = copy.copy(self)
        other.model, other.dataset, other._whole, other._parts = self.runtime.place(model), dataset, self, parts
        return other

    def __call__(self, source: Source, layers: list[str]) -> dict[str, Tensor]:
        """Features (len(source), D) of each layer, read from disk if they are cached."""
        if self._whole is not None and weights_digest(self.model) == weights_digest(self._whole.model):
            indices = self._parts[id(source)]
            return {name: value[indices] for name, value in self._whole(self._whole.dataset.train, layers).items()}
        cached = {name: self._file(source, name) for name in layers}
        known = {name: read for name, file in cached.items() if (read := _read(file, len(source))) is not None}
        missing = [name for name in layers if name not in known]
        if missing:
            fresh = extract_features(self.model, source, self.dataset, self.spec, self.runtime, missing,
                            self.workers, self.stream)  # fmt: skip
            for name, features in fresh.items():
                _write(cached[name], features)
            known |= fresh
        return {name: known[name] for name in layers}

    def feature_dataset(self, layer: Callable[[Tensor], Tensor], train: Tensor, val: Tensor) -> FeatureDataset:
        """Data set of features, which the loaders treat as images of one pixel, with the output layer to run on it."""

        def as_images(features: Tensor, source: Source) -> Arrays:
            return Arrays(features[:, :, None, None], source.targets)

        dataset = replace(
            self.dataset,
            image_size=1,
            crop_ratio=1.0,
            train=as_images(train, self.dataset.train),
            val=as_images(val, self.dataset.val),
        )
        if isinstance(layer, torch.nn.Linear):
            return FeatureDataset(dataset, lambda features: layer(features.flatten(1)))
        return FeatureDataset(dataset, lambda features: layer(features).flatten(1))

    def _file(self, source: Source, layer: str) -> Path | None:
        if self.folder is None:
            return None
        image = {"model": self.spec.model, **asdict(self.spec.input)}
        key = {"version": VERSION, "weights": weights_digest(self.model), "layer": layer, "image": image,
               "images": data.fingerprint(source), "precision": self.runtime.precision}  # fmt: skip
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
        return self.folder / f"{name}.pt"


def weights_digest(model: Net) -> str:
    """Hash of the weights and BatchNorm statistics by name, without the output layer's."""
    head = {id(tensor) for tensor in output_layer(model).parameters()}
    total = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if id(tensor) not in head:
            total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _read(file: Path | None, count: int) -> Tensor | None:
    """Features in a file; None if there is none, or, with a word, if it is not what was written for these images."""
    if file is None or not file.exists():
        return None
    with suppress(OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError):
        if file.is_file() and files.checksum_matches(file):
            content = torch.load(file, weights_only=True)
            features: Tensor = content["features"]
            if content["name"] == file.name and features.ndim == 2 and len(features) == count:
                return features
    warn(f"{file} is damaged or holds other features: they are computed anew")
    return None


def _write(file: Path | None, features: Tensor) -> None:
    """Write the features to the cache, with a checksum. A full disk is a warning: they are only a cache."""
    if file is None:
        return
    content = {"name": file.name, "features": features.contiguous()}
    with warn_if_unwritable(str(file)):
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write_zip_with_checksum(file, lambda sealed: torch.save(content, sealed))  # type: ignore[arg-type]
