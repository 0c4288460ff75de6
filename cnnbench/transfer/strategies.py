"""Prepares a net for a transfer strategy: cuts it, freezes layers, fits a linear head, replaces images by features."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench import data, tasks
from cnnbench.config.commands import FinetuneConfig
from cnnbench.config.sections import ClassWeights, Strategy, TransferConfig
from cnnbench.data.balance import class_counts, unequal
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models import build_for
from cnnbench.models.layers import Net, output_layer
from cnnbench.models.truncated import Truncated
from cnnbench.runtime.device import Normalize
from cnnbench.tasks.classification import BALANCED, TOP1
from cnnbench.tasks.passes import predictions
from cnnbench.training import freezing
from cnnbench.training.augmentation import NONE, active, suit_to_size
from cnnbench.training.setup import FeatureDataset
from cnnbench.transfer.choose import StrategyAdvice
from cnnbench.transfer.features import BATCH, PENULTIMATE, FeatureExtractor
from cnnbench.transfer.linear_svm import fit_svm, write_to_layer
from cnnbench.transfer.stage_errors import stage_errors
from cnnbench.utils.console import say
from cnnbench.utils.errors import UserError, unknown

FITTED = (Strategy.svm, Strategy.deep_features)  # the head is fitted by a solver, not trained by steps
# (images at most, epochs): few images make few steps per epoch, so they get more epochs.
EPOCHS = ((100, 60), (1_000, 30), (10_000, 12), (100_000, 6))
FEWEST_EPOCHS = 3
FROM_SCRATCH = 2  # factor on the epochs without pretrained weights
CALIBRATION_IMAGES = 1024


@dataclass(frozen=True, eq=False)
class PreparedNet:
    """Net ready for training, or already fitted. features: what replaces the images, if anything. probed: whether a
    training begins with a fitted head."""

    model: Net
    spec: ModelSpec
    features: FeatureDataset | None
    probed: bool


def prepare_transfer(
    cfg: FinetuneConfig,
    extractor: FeatureExtractor,
    spec: ModelSpec,
    advised: StrategyAdvice | None,
    about: dict[str, Any],
) -> PreparedNet:
    """Apply cfg.transfer to the extractor's net. Writes the chosen layer, epochs and C into cfg and `about`."""
    strategy, model, layer = cfg.transfer.name, extractor.model, PENULTIMATE
    if strategy is Strategy.deep_features:
        layer = cfg.transfer.layer or deep_layer(extractor, advised)
        if layer not in list(model.stages)[:-1]:
            raise unknown("stage", layer, list(model.stages)[:-1])
        cfg.transfer.layer = about["layer"] = layer
        spec = replace(spec, model={**spec.model, "cut": layer})
    linear = tasks.find(extractor.dataset.task).linear_head
    set_epochs(cfg, len(extractor.dataset.train))
    freezing.freeze(model, freeze_for(cfg, list(model.stages)), cfg.weights_skip)
    probe = cfg.transfer.probe and linear and not cfg.transfer.adapt
    if cfg.transfer.probe:
        recalibrate_batchnorm(model, extractor)
    if strategy not in FITTED and (note := suit_to_size(cfg, spec.input.image_size)):
        say(note, extractor.stream)
    on_features = strategy in FITTED or (
        linear and strategy is Strategy.head and without_augmentation(cfg) and not cfg.transfer.adapt
    )
    if (on_features or probe) and strategy is not Strategy.deep_features:
        check_head_learns(model)
    train = extractor(extractor.dataset.train, [layer])[layer] if on_features or probe else None
    if on_features:
        cfg.augment = NONE
    val = extractor(extractor.dataset.val, [layer])[layer] if on_features else None
    if strategy is Strategy.deep_features:
        model = extractor.runtime.place(cut_net(model, spec, layer))
    if train is not None and probe:
        fit_head(cfg, extractor, model, train, about)
    features = None if train is None or val is None else extractor.feature_dataset(output_layer(model), train, val)
    return PreparedNet(model, spec, features, probe and strategy not in FITTED)


def cut_net(model: Net, spec: ModelSpec, layer: str) -> Net:
    """The net up to a stage, with a new head for the classes of `spec`, which names the stage as its `cut`. A net that
    has been cut already is cut as the whole one would be, so that `spec` builds it again."""
    if not isinstance(model, Truncated):
        return Truncated(model, layer, len(spec.labels))
    shorter = build_for(spec.model, outputs=spec.outputs, in_channels=spec.input.in_channels)
    body, trained = shorter.get_submodule("body"), model.body.state_dict()
    body.load_state_dict({name: trained[name] for name in body.state_dict()})
    return shorter


def check_head_learns(model: Net) -> None:
    """UserError where the layer that gives the logits has nothing to be fitted, as the codes of LeNet-5."""
    if next(output_layer(model).parameters(), None) is None:
        raise UserError(f"{model.name} ends in fixed codes, which no classifier replaces: give model.output=linear")


def fit_head(
    cfg: FinetuneConfig, extractor: FeatureExtractor, model: Net, train: Tensor, about: dict[str, Any]
) -> None:
    """Fit the linear SVM on the training features and write it into the net's output layer."""
    layer, source = output_layer(model), extractor.dataset.train
    balanced, groups = cfg.loss.class_weights is ClassWeights.balanced, data.groups_of(source)
    probe = fit_svm(
        train, source.targets, cfg.transfer.c, bias=layer.bias is not None, balanced=balanced, groups=groups
    )
    write_to_layer(probe, layer)
    about |= {"svm_c": probe.c, f"cv_{TOP1.name}": probe.cv_error, f"cv_{BALANCED.name}": probe.cv_balanced_error,
              "cv_n": probe.cv_n}  # fmt: skip
    held_out = f", {probe.cv_error:.1f} % wrong on held-out folds" if probe.cv_error is not None else ""
    if probe.cv_balanced_error is not None and unequal(class_counts(source, len(extractor.dataset.classes))):
        held_out += f" ({BALANCED.text(probe.cv_balanced_error)})"
    if not held_out and groups is not None:
        held_out = ", not cross-validated: a class has images in one group only"
    say(f"linear SVM on {train.shape[1]:,} features: C {probe.c:g}{held_out}", extractor.stream)


def deep_layer(extractor: FeatureExtractor, advised: StrategyAdvice | None) -> str:
    """Stage, other than the last features, whose features classify held-out images best."""
    return advised.earlier if advised else stage_errors(extractor, extractor.dataset.train).earlier


@torch.no_grad()
def recalibrate_batchnorm(model: Net, extractor: FeatureExtractor) -> None:
    """Set the running statistics of the BatchNorm layers that will train to those of the new images.

    In training these layers use the statistics of each batch. On images unlike the pretraining data these differ so
    much from the stored ones that a head fitted with the stored ones would be useless from the first step on.
    """
    freezing.train_mode(model)
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    norms = [module for module in norms if module.training and module.track_running_stats]
    if norms:
        momenta = [module.momentum for module in norms]
        for module in norms:
            module.reset_running_stats()
            module.momentum = None  # None: average over all batches
        source, spec, device = extractor.dataset.train, extractor.spec, extractor.runtime
        order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))[:CALIBRATION_IMAGES]
        batches = data.eval_loader(
            source.subset(order), extractor.dataset, image_size=spec.input.image_size, batch_size=BATCH,
            workers=extractor.workers,
        )  # fmt: skip
        for _ in predictions(model, batches.epoch(0), device, Normalize(device, spec.input.mean, spec.input.std)):
            pass
        for module, momentum in zip(norms, momenta, strict=True):
            module.momentum = momentum
    model.eval()


def without_augmentation(cfg: FinetuneConfig) -> bool:
    """Whether every epoch sees the same pixels, so that a frozen net must process them only once."""
    return not active(cfg.augment) and cfg.ema is None and cfg.swa is None and not cfg.unfreeze_at


def check_task(transfer: TransferConfig, task: str) -> None:
    """Raise UserError if the strategy fits a linear classifier but the task is not classification, or two layers are to
    be new, which a solver does not fit."""
    strategy = transfer.name
    if transfer.adapt and strategy in (Strategy.auto, *FITTED):
        raise UserError(
            f"transfer.adapt={transfer.adapt}: two new layers must train: give transfer=head, partial or full"
        )
    if strategy in FITTED and not tasks.find(task).linear_head:
        raise UserError(f"transfer={strategy.value} fits a classifier: for {task} use transfer=full, partial or head")


def set_epochs(cfg: FinetuneConfig, images: int) -> None:
    """Set the epochs to suit the strategy, unless the user gave them."""
    if cfg.transfer.name in FITTED:
        cfg.epochs = 0
    elif cfg.epochs == 0:
        epochs = next((epochs for most, epochs in EPOCHS if images <= most), FEWEST_EPOCHS)
        cfg.epochs = epochs * (FROM_SCRATCH if cfg.transfer.name is Strategy.scratch else 1)


def freeze_for(cfg: FinetuneConfig, names: list[str]) -> Any:
    """Layers to freeze: the user's choice, else the strategy's."""
    said = cfg.freeze not in (None, "none", [])
    if cfg.transfer.name is Strategy.head and cfg.freeze != "backbone":
        raise UserError(f"transfer=head trains only the head: for freeze={cfg.freeze} use transfer=full")
    if cfg.transfer.name in FITTED:
        return "backbone"
    if cfg.transfer.name is Strategy.partial and not said:
        below = names[:-1]
        return f"until:{below[max(0, len(below) - cfg.transfer.stages)]}"
    return cfg.freeze
