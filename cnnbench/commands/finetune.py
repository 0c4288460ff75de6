"""`cnnbench finetune`: a net that has learnt already, for other images, by the strategy that suits them."""

import copy
import json
import shlex
import statistics
import time
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from cnnbench import advice, data, freezing, models, probes, runs, runtime, session, transfer, weights
from cnnbench.advice import Advice
from cnnbench.checkpoint import Inference
from cnnbench.config import Crop, FinetuneConfig, Format, Strategy
from cnnbench.errors import UserError, unknown
from cnnbench.features import PENULTIMATE, Cached, Extractor
from cnnbench.models.layers import Net, output_layer
from cnnbench.models.truncated import Truncated
from cnnbench.tables import json_value
from cnnbench.tracking import say
from cnnbench.weights import Weights

DEFAULT = "zoo:resnet20-cifar10"
FITTED = (Strategy.svm, Strategy.deep_features)  # their head is computed: nothing is trained by steps
EPOCHS = ((1_000, 20), (10_000, 12), (100_000, 6))  # up to so many images: so many epochs; as few images need few steps
FEWEST_EPOCHS = 3
FROM_SCRATCH = 3  # times as many epochs without the weights


def run(cfg: FinetuneConfig) -> int:
    """Choose the strategy, prepare the net for it, train or fit. Returns the exit code."""
    begin = time.perf_counter()
    stream = session.output(cfg)
    device = runtime.setup(cfg.device, cfg.precision.value, cfg.seed)
    session.check(cfg)
    dataset = data.load_dataset(cfg.data)
    given = choose(cfg)
    model, inference, dataset = prepare(cfg, given, dataset, stream)
    extractor = Extractor(
        model,
        dataset,
        inference,
        device,
        folder=Path(cfg.run.root).expanduser() / "features" if cfg.transfer.cache else None,
        workers=cfg.data.workers,
        stream=stream,
    )
    advised = decide(cfg, extractor, dataset, stream)
    if not cfg.transfer.run:
        show_advice(advised, cfg)
        return 0
    about: dict[str, Any] = {
        "strategy": cfg.transfer.name.value,
        "weights": given.source if given else None,
        "advice": advised.as_dict() if advised else None,
    }
    if cfg.folds:
        code, about["cross_validation"] = cross_validate(cfg, given, extractor, advised, about)
        if code:
            return code
    job = build_job(cfg, extractor, inference, advised, about)
    return session.execute(cfg, replace(job, spent=time.perf_counter() - begin))


# What is transferred


def choose(cfg: FinetuneConfig) -> Weights | None:
    """The weights asked for, or those that go with the net; cfg then names both. None to begin from scratch."""
    if not cfg.model and cfg.weights is None:
        cfg.weights = DEFAULT
    if cfg.transfer.name is Strategy.scratch and cfg.model:
        cfg.weights = None
        return None
    if cfg.weights is None:
        own = [name for name in weights.zoo_names() if name.startswith(f"{cfg.model['name']}-")]
        cfg.weights = f"zoo:{own[0]}" if own else "imagenet"
    found = weights.load(cfg.weights, _without(cfg.model, "in_channels") if cfg.model else None)
    if not cfg.model:
        if found.inference is None:
            raise UserError(f"{found.source} holds tensors alone: say of which net they are, as in model=resnet34")
        cfg.model = {**found.inference.model, "in_channels": None}
    transfer.check_variant(cfg.model, found)
    if cfg.transfer.name is Strategy.scratch:
        cfg.weights = None
        return None
    return found


def prepare(
    cfg: FinetuneConfig, given: Weights | None, dataset: data.Dataset, stream: TextIO | None
) -> tuple[Net, Inference, data.Dataset]:
    """The net for the data's classes with the weights in it, and the images as these weights know them."""
    known = given.inference if given else None
    channels = cfg.model.get("in_channels") or (known.in_channels if known else dataset.in_channels)
    dataset = data.with_channels(dataset, channels)
    if known:
        dataset = replace(
            dataset,
            mean=tuple(cfg.data.mean or known.mean),
            std=tuple(cfg.data.std or known.std),
        )
    new_head = known is None or known.classes != dataset.classes
    arguments = _without(cfg.model, "in_channels")
    if new_head and "cut" not in arguments:
        arguments = transfer.for_new_classes(arguments)
    model = models.build(num_classes=len(dataset.classes), in_channels=channels, **arguments)
    if given:
        head = new_head and known is not None
        report = transfer.merge(model, given, cfg.weights_rename, cfg.weights_skip, new_head=head)
        said = report.text()
    else:
        said = f"{model.name}: initialised as in its file, without weights"
    if stream is not None:
        say(said, stream)
    image_size = cfg.data.image_size or (known.image_size if known else model.image_size)
    models.check_image_size(model, image_size)
    inference = Inference(
        model=arguments,
        classes=list(dataset.classes),
        mean=list(dataset.mean),
        std=list(dataset.std),
        image_size=image_size,
        in_channels=channels,
        crop_ratio=dataset.crop_ratio,
        interpolation=dataset.interpolation,
    )
    return model, inference, dataset


def _without(model: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in model.items() if key not in keys}


# The strategy


def decide(cfg: FinetuneConfig, extractor: Extractor, dataset: data.Dataset, stream: TextIO) -> Advice | None:
    """cfg with a strategy in the place of `auto`, and what it rests on."""
    chosen = cfg.transfer
    if not chosen.run and chosen.name is not Strategy.auto:
        raise UserError(
            f"transfer.run=false gives advice, which transfer={chosen.name.value} needs none of: leave it out"
        )
    if chosen.name is not Strategy.auto:
        return None
    if chosen.run and cfg.freeze not in (None, "none", []):
        say(f"freeze={cfg.freeze} says what trains: transfer=full with it", stream)
        chosen.name = Strategy.full
        return None
    advised = advice.advise(extractor, dataset, chosen.many)
    chosen.name = advised.strategy
    if chosen.name is Strategy.deep_features:
        chosen.layer = advised.best
    say(advised.text(_command(cfg)), stream)
    return advised


def _command(cfg: FinetuneConfig) -> str:
    """The command line that the advice stands for."""
    kept = [text for text in cfg.run.overrides if text.partition("=")[0] not in ("transfer", "transfer.run")]
    return f"cnnbench finetune {shlex.join([*kept, f'transfer={cfg.transfer.name.value}'])}"


def show_advice(advised: Advice | None, cfg: FinetuneConfig) -> None:
    """The advice alone on stdout; the table has been shown already."""
    if advised and cfg.format is not Format.table:
        print(json.dumps(json_value({**advised.as_dict(), "command": _command(cfg)}), indent=2))


def build_job(
    cfg: FinetuneConfig, extractor: Extractor, inference: Inference, advised: Advice | None, about: dict[str, Any]
) -> session.Job:
    """What the strategy makes of the net: frozen stages, a fitted head, features in the place of images."""
    chosen, model, dataset = cfg.transfer, extractor.model, extractor.dataset
    cached = None
    if chosen.name is Strategy.deep_features:
        layer = chosen.layer or deep_layer(extractor, dataset, advised)
        if layer not in list(model.stages)[:-1]:
            raise unknown("stage", layer, list(model.stages)[:-1])
        chosen.layer = about["layer"] = layer
        features = both_splits(extractor, layer)
        model = extractor.runtime.place(Truncated(model, layer, len(dataset.classes)))
        inference = replace(inference, model={**inference.model, "cut": layer})
        cached = fit_head(cfg, extractor, model, features, about)
    elif chosen.name is Strategy.svm or (chosen.probe and chosen.name in (Strategy.partial, Strategy.full)):
        features = both_splits(extractor, PENULTIMATE)
        fitted = fit_head(cfg, extractor, model, features, about)
        cached = fitted if chosen.name is Strategy.svm else None
    elif chosen.name is Strategy.head and without_augmentation(cfg):
        features = both_splits(extractor, PENULTIMATE)
        cached = extractor.cached(output_layer(model), *features)
    set_epochs(cfg, len(dataset.train))
    freezing.freeze(model, freeze_for(cfg, list(model.stages)))
    return session.Job(
        device=extractor.runtime,
        dataset=dataset,
        model=model,
        inference=inference,
        directory=runs.directory("finetune", cfg, base_name(cfg)),
        cached=cached,
        about=about,
    )


def cross_validate(
    cfg: FinetuneConfig, given: Weights | None, extractor: Extractor, advised: Advice | None, about: dict[str, Any]
) -> tuple[int, dict[str, Any]]:
    """Each fold of the training images in turn as validation, in `fold1`, `fold2`, … beside the run.

    Returns the exit code of the fold that was cut, else 0, and the errors. Folds that are done are not done again.
    """
    assert cfg.folds is not None
    dataset, stream = extractor.dataset, extractor.stream
    directory = runs.directory("finetune", cfg, base_name(cfg))
    directory = directory.with_name(f"{directory.name}-folds")
    errors = []
    for number, (others, fold) in enumerate(data.folds(dataset.train.targets, cfg.folds), start=1):
        say(f"fold {number}/{cfg.folds}", stream)
        one = copy.deepcopy(cfg)
        one.folds, one.run.dir, one.format = None, str(directory / f"fold{number}"), Format.table
        train, val = dataset.train.subset(others), dataset.train.subset(fold)
        part = replace(dataset, train=train, val=val, split=f"fold {number}")
        model, inference, _ = prepare(one, given, dataset, None)
        below = extractor.on(model, part, {id(train): others, id(val): fold})
        with redirect_stdout(stream):
            code = session.execute(one, build_job(one, below, inference, advised, dict(about)))
        if code:
            return code, {}
        errors.append(float(runs.read_json(directory / f"fold{number}" / "result.json")["top1_error"]))
    mean, spread = statistics.mean(errors), statistics.stdev(errors)
    say(f"cross-validation: top-1 error {mean:.2f} ± {spread:.2f} % over {cfg.folds} folds of "
        f"{len(dataset.train):,} images; now on all of them", stream)  # fmt: skip
    return 0, {"top1_error": mean, "std": spread, "folds": errors, "n": len(dataset.train)}


def both_splits(extractor: Extractor, layer: str) -> tuple[Tensor, Tensor]:
    """The layer's features of the training and the validation images."""
    train, val = (extractor(part, [layer])[layer] for part in (extractor.dataset.train, extractor.dataset.val))
    return train, val


def fit_head(
    cfg: FinetuneConfig, extractor: Extractor, model: Net, features: tuple[Tensor, Tensor], about: dict[str, Any]
) -> Cached:
    """The linear SVM on the training features, written into the net's output layer."""
    layer, (train, val) = output_layer(model), features
    probe = probes.fit(train, extractor.dataset.train.targets, cfg.transfer.c, bias=layer.bias is not None)
    probes.write(probe, layer)
    about |= {"svm_c": probe.c, "cv_top1_error": probe.cv_error, "cv_n": probe.cv_n}
    held_out = (
        "" if probe.cv_error is None else f", {probe.cv_error:.1f} % wrong on held-out folds of {probe.cv_n:,} images"
    )
    say(f"linear SVM on {train.shape[1]:,} features: C {probe.c:g}{held_out}", extractor.stream)
    return extractor.cached(layer, train, val)


def deep_layer(extractor: Extractor, dataset: data.Dataset, advised: Advice | None) -> str:
    """The stage before the last features whose own features classify held-out images best."""
    errors = advised.errors if advised else advice.stage_errors(extractor, dataset)[0]
    earlier = {name: error for name, error in errors.items() if name != PENULTIMATE}
    return min(earlier, key=lambda name: earlier[name])


def without_augmentation(cfg: FinetuneConfig) -> bool:
    """Whether every epoch sees the same images, so that a frozen net need see them only once."""
    augment = cfg.augment
    plain = augment.crop is Crop.none and not augment.flip and augment.color == 0 and augment.cutout == 0
    return plain and cfg.ema is None and not cfg.unfreeze_at


def set_epochs(cfg: FinetuneConfig, images: int) -> None:
    """As many epochs as suit the strategy, unless the user said how many."""
    if cfg.transfer.name in FITTED:
        cfg.epochs = 0
    elif cfg.epochs == 0:
        epochs = next((epochs for most, epochs in EPOCHS if images <= most), FEWEST_EPOCHS)
        cfg.epochs = epochs * (FROM_SCRATCH if cfg.transfer.name is Strategy.scratch else 1)


def freeze_for(cfg: FinetuneConfig, names: list[str]) -> Any:
    """What is frozen: what the user said, else what the strategy says."""
    said = cfg.freeze not in (None, "none", [])
    if cfg.transfer.name is Strategy.head and cfg.freeze != "backbone":
        raise UserError(f"transfer=head trains the head alone; for freeze={cfg.freeze} take transfer=full")
    if cfg.transfer.name is Strategy.partial and not said:
        below = names[:-1]
        return f"until:{below[max(0, len(below) - cfg.transfer.stages)]}"
    return cfg.freeze


def base_name(cfg: FinetuneConfig) -> str:
    """`resnet20-digits`, with the weights where they are not the net's usual ones."""
    given = {override.partition("=")[0] for override in cfg.run.overrides}
    source = [Path(cfg.weights).stem] if cfg.weights and "weights" in given else []
    return runs.slug(["-from-".join([session.base_name(cfg), *source])])
