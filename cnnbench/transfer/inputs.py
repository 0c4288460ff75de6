"""Images of a fine-tuning as its weights know them: their channels, their normalisation, the spectrogram of sounds."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TextIO

from cnnbench import data
from cnnbench.config.arguments import typed_keys
from cnnbench.config.commands import FinetuneConfig
from cnnbench.data.grids import KEY as GRID
from cnnbench.data.model_spec import ModelSpec
from cnnbench.data.moments import IMAGENET_MEAN, IMAGENET_STD
from cnnbench.data.spectrogram import KEY as SOUND
from cnnbench.data.spectrogram import Spectrogram
from cnnbench.utils.console import say
from cnnbench.weights import variants
from cnnbench.weights.sources import Weights


def as_weights_take(
    cfg: FinetuneConfig, given: Weights | None, dataset: data.Dataset, arguments: Mapping[str, Any]
) -> tuple[data.Dataset, str]:
    """The data set in as many channels as the net takes, normalised as its weights know images; and as whose images
    that is. arguments: of the net, without in_channels, which the user may have set."""
    wanted = cfg.model.get("in_channels")
    if given is None:
        return data.with_channels(dataset, wanted or dataset.in_channels), dataset.name
    if given.spec:
        known = as_known(data.with_channels(dataset, wanted or given.spec.input.in_channels), given.spec, cfg)
        return known, dataset.name
    channels = wanted or variants.channels(given.state, dict(arguments), dataset.in_channels)
    if SOUND not in dataset.extra or (dataset.in_channels, channels) != (1, 3):
        return data.with_channels(dataset, channels), dataset.name
    photographs = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    return _unless_said(data.with_channels(dataset, channels), photographs, cfg), "ImageNet"


def as_heard(cfg: FinetuneConfig, given: Weights | None, dataset: data.Dataset, stream: TextIO) -> data.Dataset:
    """The data set with its sounds, or the values of its grids, as the weights know them, but for what the user says
    otherwise."""
    said = any(key.startswith(("data.sound.", "data.values")) for key in typed_keys(cfg))
    kind = next((key for key in (SOUND, GRID) if key in dataset.extra), None)
    if said or kind is None or given is None or given.spec is None:
        return dataset
    known = given.spec.extra.get(kind, dataset.extra[kind])
    if known == dataset.extra[kind]:
        return dataset
    heard = data.as_trained(cfg.data, given.spec.extra, set())
    text = Spectrogram.of(known).text if kind == SOUND else f"{known[0]:g} to {known[1]:g} become 0 to 255"
    say(f"{'sounds' if kind == SOUND else 'values'} as {given.source} knows them: {text}", stream)
    return data.load_dataset(heard, lambda note: None)


def as_known(dataset: data.Dataset, known: ModelSpec, cfg: FinetuneConfig) -> data.Dataset:
    """The data set with its images prepared as those that the weights know, but for what the user says otherwise."""
    given = known.input
    own: dict[str, Any] = {"mean": tuple(given.mean), "std": tuple(given.std), "crop_ratio": given.crop_ratio,
                           "interpolation": given.interpolation}  # fmt: skip
    return _unless_said(dataset, own, cfg)


def in_order_of(dataset: data.Dataset, given: Weights | None) -> tuple[data.Dataset, str]:
    """The data set with its classes in the order of the weights where they are the same, so that the head goes on; and
    what the user should be told."""
    known = given.spec if given else None
    if given is None or known is None or known.task != dataset.task or sorted(known.labels) != sorted(dataset.classes):
        return dataset, ""
    return data.in_classes_of(dataset, known.labels, given.source)


def _unless_said(dataset: data.Dataset, own: Mapping[str, Any], cfg: FinetuneConfig) -> data.Dataset:
    said = {key.removeprefix("data.") for key in typed_keys(cfg)}
    return replace(dataset, **{key: value for key, value in own.items() if key not in said})
