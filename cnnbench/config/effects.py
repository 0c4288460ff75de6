"""Settings that were typed and have no effect, since another setting says that nothing reads them."""

from collections.abc import Iterator
from enum import Enum
from typing import Any

from omegaconf import MISSING

from cnnbench.config.arguments import typed_keys
from cnnbench.config.parsing import as_typed
from cnnbench.config.sections import Sampler, Split
from cnnbench.utils.errors import UserError

STEPS = ("accumulate augment batch_size checkpoint compile ema epochs freeze graphs label_smoothing max_steps max_time "
         "optim patience schedule stochastic_depth swa unfreeze_at until")  # fmt: skip
# Keys, or sections, that another key must have one of these values for.
ONLY_WITH = [
    ("optim.rest", "optim.name", "muon"),
    ("optim.rms", "optim.name", "rmsprop"),
    ("optim.nesterov", "optim.name", "sgd muon"),
    ("schedule.milestones", "schedule.name", "multistep"),
    ("schedule.gamma", "schedule.name", "multistep exponential plateau"),
    ("schedule.every_epochs", "schedule.name", "exponential"),
    ("schedule.patience", "schedule.name", "plateau"),
    ("schedule.peak schedule.start schedule.end", "schedule.name", "onecycle"),
    ("schedule.warmup_epochs", "schedule.name", "constant multistep cosine linear exponential plateau"),
    ("augment.padding_mode", "augment.crop", "pad auto"),
    ("augment.scale augment.ratio", "augment.crop", "resized auto"),
    ("augment.operations augment.magnitude", "augment.policy", "rand"),
    ("augment.learnt_on", "augment.policy", "auto"),
    ("augment.alternate", "augment.flip", "true"),
    ("head.scale head.margin", "head.name", "cosface arcface"),
    ("loss.margin", "loss.name", "contrastive"),
    (STEPS, "transfer.name", "auto head partial full scratch"),
    ("transfer.stages", "transfer.name", "partial"),
    ("transfer.layer", "transfer.name", "deep_features"),
    ("transfer.many transfer.run", "transfer.name", "auto"),
    ("checkpoint ema epochs max_steps max_time patience schedule swa unfreeze_at until", "lr_find", "false"),
    ("data.stride data.lr", "data.name", "images t91"),
    ("data.pairs data.folds", "data.name", "people"),
    ("data.targets", "data.name", "voc"),
    ("data.values", "data.name", "arrays"),
    ("data.num_classes data.num_images", "data.name", "synthetic"),
    ("data.sound", "data.name", "sounds spoken_digits esc50 speech_commands"),
    ("data.fold", "data.name", "sounds spoken_digits esc50 speech_commands"),
]
# Keys, or sections, that nothing reads where another key has one of these values, and why.
NEVER_WITH = [
    ("data.root data.file data.packed data.download data.on_error", "data.name", "digits synthetic",
     "its images are in no files; for your own photographs give data=folder"),
]  # fmt: skip
# Keys, or sections, that another key must have a value for. `finetune` fills weights and freeze in itself.
ONLY_WHERE_GIVEN = [
    ("augment.erase_scale augment.erase_ratio", "augment.erase"),
    ("weights_key weights_rename weights_skip", "weights"),
    ("unfreeze_at", "freeze"),
]
FILLED_IN = ("weights", "freeze")
NOTHING: tuple[Any, ...] = (None, 0, "none", [], False)


def idle(cfg: Any, beside: str | None = None) -> list[str]:
    """Sentences on typed settings that nothing reads; beside: on those alone for which this key decides that.

    What a sweep compares is no mistake, and not named.
    """
    return [text for other, text in _idle(cfg) if beside in (None, other)]


def _idle(cfg: Any) -> Iterator[tuple[str, str]]:
    """The key that decides, and the sentence."""
    for names, other, values in ONLY_WITH:
        chosen, found = values.split(), value_of(cfg, other)
        is_read = found in (None, MISSING) or as_typed(found) in chosen
        if not is_read and (told := _told(cfg, names, other)):
            yield other, f"{told} no effect with {_said(cfg, other)}: only with {_shown(other, chosen)}"
    for names, other, values, why in NEVER_WITH:
        found = value_of(cfg, other)
        own = value_of(cfg, "data.source") in NOTHING and found not in (None, MISSING)
        if own and as_typed(found) in values.split() and (told := _told(cfg, names, other)):
            yield other, f"{told} no effect with {_said(cfg, other)}: {why}"
    for names, other in ONLY_WHERE_GIVEN:
        is_read = value_of(cfg, other) not in NOTHING or not hasattr(cfg, other.partition(".")[0])
        is_open = hasattr(cfg, "transfer") and other in FILLED_IN
        if not is_read and not is_open and (told := _told(cfg, names, other)):
            yield other, f"{told} no effect without {other}="


def _told(cfg: Any, names: str, other: str) -> str:
    """`epochs=3 has`, `epochs=3, ema=0.9 have`: the typed ones of these keys; empty where a sweep compares them."""
    swept = {key.removesuffix(".name") for key in cfg.sweep.keys}
    keys = [key for key in sorted(typed_keys(cfg)) if is_among(key, names) and key not in swept]
    texts = [_said(cfg, key) for key in keys if _plain(value_of(cfg, key)) not in NOTHING]
    if not texts or other.removesuffix(".name") in swept:
        return ""
    return f"{', '.join(texts)} {'have' if len(texts) > 1 else 'has'}"


def refuse(command: str, cfg: Any) -> None:
    """UserError for a typed setting that is about trainings, in a command that trains nothing: what it shows or
    measures would be taken for something else."""
    typed = typed_keys(cfg)
    trains = command in ("train", "finetune") or (command == "visualize" and "batch" in str(cfg.what))
    if not trains and "data.sampler" in typed and cfg.data.sampler is not Sampler.shuffle:
        raise UserError(f"data.sampler={cfg.data.sampler.value} changes nothing here: it is for train and finetune")
    whole = command == "evaluate" and cfg.split is not Split.train and not {"data", "data.root", "data.file"} & typed
    if whole and "data.fraction" in typed and cfg.data.fraction < 1:
        raise UserError(f"data.fraction={cfg.data.fraction:g} changes nothing here: it is a part of the training "
                        "images, and all others are judged; with split=train it says how many")  # fmt: skip


def is_among(key: str, names: str) -> bool:
    """Whether a key is one of these, or in one of these sections."""
    return any(key == name or key.startswith(f"{name}.") for name in names.split())


def value_of(cfg: Any, key: str) -> Any:
    """Value of a key; None where the command has none of this name."""
    for part in key.split("."):
        cfg = cfg.get(part) if isinstance(cfg, dict) else getattr(cfg, part, None)
    return cfg


def _said(cfg: Any, key: str) -> str:
    """The setting as it was typed; else with the value it has, `optim=sgd` for optim.name."""
    short = key.removesuffix(".name")
    typed = [text.lstrip("+~") for text in cfg.run.overrides if text.partition("=")[0].lstrip("+~") in (key, short)]
    return typed[-1] if typed else f"{short}={as_typed(value_of(cfg, key))}"


def _shown(other: str, values: list[str]) -> str:
    options = f"{', '.join(values[:-1])} or {values[-1]}" if len(values) > 1 else values[0]
    return f"{other.removesuffix('.name')}={options}"


def _plain(value: Any) -> Any:
    return value.name if isinstance(value, Enum) else value
