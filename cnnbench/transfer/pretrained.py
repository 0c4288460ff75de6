"""The net and the weights with which a fine-tuning begins."""

from typing import Any, TextIO

from cnnbench import data, models
from cnnbench.config.arguments import typed_keys
from cnnbench.config.commands import FinetuneConfig
from cnnbench.config.sections import Strategy
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.adaptation import adapt
from cnnbench.models.layers import Net
from cnnbench.transfer.inputs import as_weights_take, in_order_of
from cnnbench.utils.console import say
from cnnbench.utils.errors import UserError
from cnnbench.weights import merge, sources, variants
from cnnbench.weights.sources import Weights


def choose(cfg: FinetuneConfig) -> Weights | None:
    """The weights asked for, or those that go with the net; cfg then names both. None to begin from scratch."""
    if cfg.weights is not None and cfg.transfer.name is not Strategy.scratch and not names_model(cfg):
        cfg.model = {}  # the net that a task brings is that of its weights
    if not cfg.model and cfg.weights is None:
        cfg.weights = sources.DEFAULT
    if cfg.transfer.name is Strategy.scratch and cfg.model:
        cfg.weights = None
        return None
    if cfg.weights is None:
        cfg.weights = sources.usual(cfg.model)
    found = sources.load(cfg.weights, _without(cfg.model, "in_channels") if cfg.model else None, cfg.weights_key)
    if not cfg.model:
        if found.spec is None:
            raise UserError(f"{found.source} holds tensors alone: say of which net they are, as in model=resnet34")
        cfg.model = {**found.spec.model, "in_channels": None}
    merge.check_variant(cfg.model, found)
    if cfg.transfer.name is Strategy.scratch:
        cfg.weights = None
        return None
    return found


def names_model(cfg: FinetuneConfig) -> bool:
    """Whether the command line says which net, itself or by an experiment."""
    return any(key.partition(".")[0] in ("model", "experiment") for key in typed_keys(cfg))


def prepare(
    cfg: FinetuneConfig, given: Weights | None, dataset: data.Dataset, stream: TextIO | None
) -> tuple[Net, ModelSpec, data.Dataset]:
    """The net for the data's classes with the weights in it, and the images as these weights know them."""
    known = given.spec if given else None
    arguments = _without(cfg.model, "in_channels")
    dataset, normalised_as = as_weights_take(cfg, given, dataset, arguments)
    dataset, note = in_order_of(dataset, given)
    channels = dataset.in_channels
    new_head = known is None or known.labels != dataset.classes
    if new_head and "cut" not in arguments:
        arguments = merge.for_new_classes(arguments)
    model = models.build_for(arguments, outputs=dataset.outputs, in_channels=channels)
    if given:
        head = new_head and known is not None
        report = merge.merge(model, given, cfg.weights_rename, cfg.weights_skip, new_head=head)
        said = report.text()
        if known is None:
            said = "\n".join([said, *variants.assumptions(given.source, arguments, normalised_as, typed_keys(cfg))])
    else:
        said = f"{model.name}: initialised as in its file, without weights"
    if stream is not None:
        say("\n".join(filter(None, [note, said])), stream)
    if cfg.transfer.adapt:
        model, arguments = adapt(model, cfg.transfer.adapt), {**arguments, "adapt": cfg.transfer.adapt}
    image_size = cfg.data.image_size or (
        known.input.image_size if known and not model.any_size else models.usual_size(model, dataset.image_size)
    )
    models.check_image_size(model, image_size)
    spec = ModelSpec.of(arguments, dataset, image_size)
    return model, spec, dataset


def _without(model: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in model.items() if key not in keys}
