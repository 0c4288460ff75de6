"""The configuration's schema: every key, its type, its range and what it means. Values live in conf/*.yaml.

Hydra composes the YAML onto these dataclasses, so a mistyped key or a wrong type is refused before anything runs.
`parse()` turns the composed configuration into a typed object and checks the ranges; each section then goes to the one
function that reads it. Only this file and hydra_app.py know Hydra.
"""

import math
import operator
import re
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cnnbench.errors import UserError, unknown


def option(help: str, *, default: Any = MISSING, ge: float | None = None, gt: float | None = None,
           le: float | None = None, lt: float | None = None, bare: bool = False) -> Any:  # fmt: skip
    """A configuration key: its explanation for `--help`, the range that `parse()` checks (of a list, each item's).

    `bare`: arguments without `=` are its values.
    """
    bounds = {">=": ge, ">": gt, "<=": le, "<": lt}
    metadata = {"help": help, "bounds": {sign: bound for sign, bound in bounds.items() if bound is not None}}
    return field(default=default, metadata={**metadata, **({"bare": True} if bare else {})})


class Precision(Enum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Format(Enum):
    table = "table"
    json = "json"
    csv = "csv"
    markdown = "markdown"


class SummaryFormat(Enum):
    table = "table"
    json = "json"
    csv = "csv"
    markdown = "markdown"
    svg = "svg"
    html = "html"


class Crop(Enum):
    none = "none"
    pad = "pad"
    random = "random"
    resized = "resized"


class Interpolation(Enum):
    nearest = "nearest"
    bilinear = "bilinear"
    bicubic = "bicubic"


class Resize(Enum):
    shorter = "shorter"
    squash = "squash"


class Resume(Enum):
    auto = "auto"
    never = "never"
    force = "force"


class Split(Enum):
    val = "val"
    train = "train"


class Layers(Enum):
    main = "main"
    all = "all"


class Scale(Enum):
    each = "each"
    together = "together"


class Sort(Enum):
    colour = "colour"
    frequency = "frequency"
    none = "none"


class Rerun(Enum):
    failed = "failed"
    all = "all"
    none = "none"


class Debug(Enum):
    fast = "fast"
    overfit = "overfit"


OnError = Enum("OnError", {"warn": "warn", "raise": "raise"})  # `raise` can be a name only in this way


class Cache(Enum):
    auto = "auto"
    device = "device"
    host = "host"


OnBadImage = Enum("OnBadImage", {"raise": "raise", "skip": "skip"})


class Decoder(Enum):
    auto = "auto"
    pillow = "pillow"
    nvjpeg = "nvjpeg"


class Optimizer(Enum):
    sgd = "sgd"
    adamw = "adamw"


class Strategy(Enum):
    auto = "auto"
    svm = "svm"
    deep_features = "deep_features"
    head = "head"
    partial = "partial"
    full = "full"
    scratch = "scratch"


class Schedule(Enum):
    constant = "constant"
    multistep = "multistep"
    cosine = "cosine"
    linear = "linear"


@dataclass(kw_only=True)
class DataConfig:
    name: str = option("digits, cifar10, cifar100, imagenet, folder or synthetic")
    root: str | None = option("folder that holds the data; by default $CNNBENCH_DATA, else ./data")
    download: bool = option("fetch a CIFAR archive that is missing")
    val_fraction: float = option("part of the training images held out for validation", ge=0, lt=1)
    fraction: float = option("part of the training images used, evenly from each class", gt=0, le=1)
    image_size: int | None = option("side of the images given to the net, pixels; null: the net's native size", gt=0)
    crop_ratio: float = option("validation: side of the centre crop over the shorter side of the image", ge=0.1, le=1)
    interpolation: Interpolation = option("how images are resized: nearest, bilinear or bicubic")
    mean: list[float] | None = option("channel means in 0..1; null: the data set's own", ge=0, le=1)
    std: list[float] | None = option("channel standard deviations in 0..1; null: the data set's own", gt=0)
    workers: int | None = option("processes that decode image files; null: one per core", ge=0)
    cache: Cache = option(
        "images in memory lie on the training device (device), in main memory (host), or auto: where they fit"
    )
    packed: str | None = option("folder that `cnnbench prepare` wrote: its images are read in place of those of root")
    decode: Decoder = option(
        "training images: auto decodes only what a crop needs; pillow: all of it, as torchvision's scripts do; nvjpeg: "
        "on the GPU"
    )
    on_error: OnBadImage = option("an image that cannot be read: raise and stop, or skip it, having said so")
    num_classes: int | None = option("synthetic data: how many classes", ge=2)
    num_images: int | None = option("synthetic data: how many training images", ge=1)


@dataclass(kw_only=True)
class AugmentConfig:
    crop: Crop = option("none, pad (shift by zero padding), random (fixed scale) or resized (random area and aspect)")
    padding: int = option("crop=pad: pixels of padding, at the data set's own size", ge=0)
    scale: list[float] = option("crop=resized: range of the cropped part of the area", gt=0, le=1)
    ratio: list[float] = option("crop=resized: range of the aspect ratio", gt=0)
    flip: bool = option("mirror every other image left to right")
    color: float = option("strength of the brightness, contrast and saturation jitter; 0: none", ge=0, lt=1)
    cutout: int = option("side of a random square set to the mean, pixels of the net's input; 0: none", ge=0)


@dataclass(kw_only=True)
class OptimConfig:
    name: Optimizer = option("sgd or adamw")
    lr: float = option("learning rate for a batch of lr_batch images", gt=0)
    lr_batch: int | None = option(
        "batch size that lr was tuned for: lr scales linearly from it; null: lr as it is", gt=0
    )
    momentum: float = option("momentum (for adamw its first beta)", ge=0, lt=1)
    nesterov: bool = option("sgd: Nesterov's momentum")
    weight_decay: float = option("weight decay of convolution and linear weights", ge=0)
    decay_all: bool = option("decay biases and normalisation parameters too, as the papers did")
    clip: float | None = option("largest norm of the gradient; null: no clipping", gt=0)
    lr_decay: float = option(
        "factor on lr for each stage that lies further from the head; 1: the same for all", gt=0, le=1
    )
    head_lr: float = option("factor on lr for the head", gt=0)


@dataclass(kw_only=True)
class ScheduleConfig:
    name: Schedule = option("constant, multistep, cosine or linear")
    warmup_epochs: float = option("epochs over which lr rises linearly from near 0", ge=0)
    milestones: list[float] = option(
        "multistep: fractions of the training after which lr is multiplied by gamma", gt=0, lt=1
    )
    gamma: float = option("multistep: factor of each drop", gt=0, lt=1)


@dataclass(kw_only=True)
class CheckpointConfig:
    every: int | str | None = option("save within an epoch too: every so many steps, or as 10m; null: at its end", ge=1)
    keep: int = option("how many of the newest checkpoints stay, beside the best one", ge=1)
    on_error: OnError = option("one that cannot be written (disk full): warn and go on, or raise and stop")


@dataclass(kw_only=True)
class RunConfig:
    dir: str | None = option("directory of this run; by default root/<command>/<name>")
    name: str | None = option("name of this run; by default made from the model, the data and the overrides")
    root: str = option("directory under which runs are kept")
    overrides: list[str] = option("the command line that made this run; filled in by the command line itself")


@dataclass(kw_only=True)
class SweepConfig:
    dir: str | None = option("directory of a sweep (-m); by default root/<command>/<name from the overrides>")
    rerun: Rerun = option("of the jobs of an earlier start: failed runs these again, all also those done, none neither")
    detach: bool = option("hydra/launcher=slurm: submit the jobs and leave; cnnbench report DIR says how far they are")
    keys: list[str] = option("what the sweep runs over; filled in by the command line itself")
    trial: int | None = option("the number of this job in a search; filled in by the command line itself")


@dataclass(kw_only=True)
class DdpConfig:
    sync_bn: bool = option("devices=N: BatchNorm over the images of all processes, not over each one's own")
    bucket_mb: int = option(
        "devices=N: gradients are sent off in pieces of so many MB, while others are computed", ge=1
    )
    compress: bool = option("devices=N: send gradients as bf16, in half the bytes")


@dataclass(kw_only=True)
class TrackingConfig:
    images: bool = option(
        "pictures in TensorBoard: filters as they form, signal and gradient of each stage, the worst mistakes",
        default=False,
    )


@dataclass(kw_only=True)
class TrainConfig:
    model: dict[str, Any] = option("the net and its arguments")
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    epochs: int = option("passes over the training images", ge=1)
    batch_size: int | str = option("images per optimizer step, or auto: the largest that fits", ge=1)
    accumulate: int = option("split each batch into this many parts to save memory; the step stays the same", ge=1)
    label_smoothing: float = option("probability spread evenly over all classes in the targets", ge=0, lt=1)
    ema: float | None = option("decay of a moving average of the weights, which is then what is evaluated", gt=0, lt=1)
    precision: Precision = option("auto, fp32, bf16 or fp16")
    compile: bool = option("compile the net with torch.compile")
    device: str = option("auto, cpu, cuda, cuda:1 or mps")
    devices: int | str = option(
        "processes that train together, each on a GPU of its own (or on the CPU): 4, or all", ge=1
    )
    ddp: DdpConfig = field(default_factory=DdpConfig)
    seed: int = option("seed of initialisation, shuffle, augmentation and dropout", ge=0, lt=2**32)
    deterministic: bool = option("the same bits each time on a GPU too, at a price in speed; a CPU needs no asking")
    debug: Debug | None = option("fast: one batch of everything, end to end; overfit: learn one batch by heart")
    lr_find: bool = option("search for a learning rate by a range test of 100 steps, say it and stop", default=False)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    weights: str | None = option("initial weights: a run directory, a weights file, imagenet or zoo:NAME")
    weights_rename: Any = option("beginnings of names in the weights file and ours for them, as {linear: fc}")
    weights_skip: Any = option("names or stages that are not loaded but initialised anew, as [fc]")
    freeze: Any = option("what does not train: none, backbone, until:STAGE, re:PATTERN or a list of stages")
    unfreeze_at: Any = option("stages that begin to train after so many epochs, as {5: layer4, 8: all}")
    max_time: str | None = option("stop after this much training, as 90s, 30m or 1h30m")
    max_steps: int | None = option("stop after this many optimizer steps", ge=1)
    patience: int | None = option("stop after this many epochs without a better top-1 error", ge=1)
    resume: Resume = option(
        "auto: continue this run if it exists; never: start a new one; force: continue despite changes"
    )
    format: Format = option("how the result is printed: table, json, csv or markdown")
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    run: RunConfig = field(default_factory=RunConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)


@dataclass(kw_only=True)
class CropConfig:
    name: str = option("center, ten, multi_scale_dense or 144: the views of an image whose answers are averaged")
    resize: Resize = option("shorter: the shorter side to the scale; squash: both sides, whatever the aspect")
    scales: list[int] | None = option(
        "multi_scale_dense, 144: sides that images are resized to; null: the paper's, in proportion to the net's size",
        gt=0,
    )


@dataclass(kw_only=True)
class TransferConfig:
    name: Strategy = option("auto, svm, deep_features, head, partial, full or scratch")
    run: bool = option("false: transfer=auto only gives its advice and does not run it")
    probe: bool = option("begin with the head that a linear SVM finds on the features as they are")
    stages: int = option("partial: how many of the stages before the head train", ge=1)
    layer: str | None = option("deep_features: the stage whose output is used; null: the best on held-out images")
    c: list[float] = option("values of the SVM's C to choose from by cross-validation", gt=0)
    many: int = option("auto: from so many images per class on, a data set counts as large", ge=1)
    cache: bool = option("keep the features of the images on disk, for the next command")


@dataclass(kw_only=True)
class FinetuneConfig(TrainConfig):
    model: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "the net and its arguments; by default that of the weights", "bounds": {}},
    )
    epochs: int = option("passes over the training images; 0: as suits the strategy and the number of images", ge=0)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    folds: int | None = option(
        "cross-validate: train so many times, each time on the rest of the training images", ge=2
    )


@dataclass(kw_only=True)
class TrainedConfig:
    """What all commands that use a trained net take."""

    weights: str = option(
        "the trained net: a run, a file, zoo:NAME or imagenet, as weights=outputs/train/resnet8-digits"
    )
    weights_rename: Any = option("beginnings of names in the weights file and ours for them, as {linear: fc}")
    weights_skip: Any = option("names or stages that are not loaded, as [aux1]")
    model: dict[str, Any] | None = option("the net and its arguments, where the weights do not say it", default=None)
    run: RunConfig = field(default_factory=RunConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    optim: OptimConfig = field(default_factory=OptimConfig, metadata={"unread": True})
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig, metadata={"unread": True})


@dataclass(kw_only=True)
class EvaluateConfig(TrainedConfig):
    weights: Any = option("the trained net: a run, a file, zoo:NAME or imagenet; a list [a,b] judges their mean answer")
    data: DataConfig = field(default_factory=DataConfig, metadata={"partial": True})  # the rest is the checkpoint's
    crop: CropConfig = field(default_factory=CropConfig)
    split: Split = option("val: what the run was validated on; train: its training images, without augmentation")
    shift: int | None = option("also measure how often the answer survives a shift by so many pixels", ge=1)
    batch_size: int = option("images or crops per forward pass", ge=1)
    precision: Precision = option("auto, fp32, bf16 or fp16")
    compile: bool = option("compile the net with torch.compile")
    device: str = option("auto, cpu, cuda, cuda:1 or mps")
    devices: int | str = option("processes that share the images, each on a GPU of its own: 4, or all", ge=1)
    format: Format = option("how the result is printed: table, json, csv or markdown")


@dataclass(kw_only=True)
class PrepareConfig:
    """What weights from elsewhere do not say of themselves; null: what they say, else as for ImageNet."""

    image_size: int | None = option("side of the images given to the net, pixels; null: the weights' own", gt=0)
    crop_ratio: float | None = option("side of the centre crop over the shorter side of the image", gt=0, le=1)
    interpolation: Interpolation | None = option("how images are resized: nearest, bilinear or bicubic")
    mean: list[float] | None = option("channel means in 0..1", ge=0, le=1)
    std: list[float] | None = option("channel standard deviations in 0..1", gt=0)
    classes: Any = option("names of the classes: a list, or a text file with one in each line")


@dataclass(kw_only=True)
class PackConfig:
    data: DataConfig = field(default_factory=DataConfig)
    out: str | None = option("folder to write; null: one named after the data under run.root")
    side: int = option("larger images are resized until their shorter side has so many pixels", ge=32)
    quality: int = option("quality of the JPEGs that are written", ge=1, le=95)
    shard: int = option("images in a shard", ge=1)
    format: Format = option("how the result is printed: table, json, csv or markdown")
    run: RunConfig = field(default_factory=RunConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)


@dataclass(kw_only=True)
class PredictConfig(TrainedConfig):
    input: Any = option("images, folders, patterns such as 'photos/*.jpg', or - for a list on stdin", bare=True)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    top: int = option("answers for each image", ge=1)
    out: str | None = option("also write the answers to this file, in the format of its ending (.json, .csv, .md)")
    sheet: str | None = option("draw the images with their answers into this PNG; further pages beside it")
    batch_size: int = option("images per forward pass", ge=1)
    workers: int | None = option("threads that read image files; null: one per core", ge=1)
    precision: Precision = option("auto, fp32, bf16 or fp16")
    device: str = option("auto, cpu, cuda, cuda:1 or mps")
    format: Format = option("how the answers are printed: table, json, csv or markdown")


@dataclass(kw_only=True)
class ExportConfig(TrainedConfig):
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    format: str = option("onnx, torchscript, exported_program or safetensors")
    out: str | None = option("the file to write; null: one named after the weights under run.root")


@dataclass(kw_only=True)
class VisualizeConfig(TrainedConfig):
    what: Any = option(
        "filters, maps, patches, maximize, gradcam, occlusion, saliency, embedding, mistakes; a list [a,b], or all of "
        "them; batch and schedule look at a training before it begins"
    )
    weights: str | None = option("the trained net: a run, a file, zoo:NAME or imagenet")  # type: ignore[assignment]
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    layer: Any = option("stages or layers to look at, as layer1 or [stem,layer3.0.conv1]; null: as suits the picture")
    units: Any = option("numbers of units, as [0,5], or in the head names of classes; null: as suits the picture")
    images: Any = option("images to look at: files, folders, or numbers of images of the data; null: a few of the data")
    target: Any = option(
        "gradcam, occlusion, saliency: the class in question, by name or number; null: the net's answer"
    )
    top: int = option("patches: how many for each unit", ge=1)
    limit: int | None = option("images of the data that are searched at most; null: all", ge=1)
    steps: int = option("maximize: steps of gradient ascent", ge=1)
    normalize: Scale = option("filters: each on its own scale, or together on one")
    sort: Sort = option("filters: by colour, frequency or none")
    split: Split = option("val or train: which images of the data")
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    epochs: int = option("schedule: passes over the training images", ge=1)
    batch_size: int = option("images per forward pass, if memory allows; schedule: images per step", ge=1)
    seed: int = option("seed of what is drawn: noise to begin from, augmentation, the plane", ge=0, lt=2**32)
    precision: Precision = option("auto, fp32, bf16 or fp16")
    device: str = option("auto, cpu, cuda, cuda:1 or mps")
    format: Format = option("how the list of pictures is printed: table, json, csv or markdown")


@dataclass(kw_only=True)
class ReportConfig:
    input: Any = option("directories with runs and sweeps in them; by default run.root", default=None, bare=True)
    sort: str = option("the column to sort by, as seconds; -seconds: downwards")
    where: Any = option("only runs with these settings, as model=resnet*,optim.lr=0.1")
    out: str | None = option(
        "also write the report to this file: .html is a page with curves, .png the curves alone, or .md, .csv, .json"
    )
    history: bool = option("the ImageNet challenge year by year, as a table and a picture, with one's own runs in it")
    cancel: bool = option("end the jobs that run or wait; those that run save first")
    format: Format = option("how the table is printed: table, json, csv or markdown")
    run: RunConfig = field(default_factory=RunConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)


@dataclass(kw_only=True)
class DoctorConfig:
    format: Format = option("how the result is printed: table, json, csv or markdown")
    run: RunConfig = field(default_factory=RunConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)


@dataclass(kw_only=True)
class SummaryConfig:
    model: dict[str, Any] = option("the net and its arguments")
    num_classes: int | None = option("classes that the net tells apart; null: as many as in its paper", ge=1)
    image_size: int | None = option("side of the images, pixels; null: the net's native size", gt=0)
    in_channels: int | None = option("channels of the images; null: 3", ge=1)
    layers: Layers = option("main: layers with parameters and pools; all: every one")
    out: str | None = option(
        "also write the result to this file, in the format of its ending (.json, .csv, .md, .svg, .html)"
    )
    format: SummaryFormat = option("how the result is printed: table, json, csv or markdown; svg or html: drawn")
    run: RunConfig = field(default_factory=RunConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    optim: OptimConfig = field(default_factory=OptimConfig, metadata={"unread": True})
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig, metadata={"unread": True})


@dataclass(kw_only=True)
class BenchmarkConfig:
    model: dict[str, Any] = option("the net and its arguments")
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig, metadata={"unread": True})
    epochs: int = field(default=1, metadata={"unread": True, "help": "", "bounds": {}})
    batch_size: int | str = option("images per step, or search: the largest that fits", ge=1)
    precisions: Any = option("what to set side by side: fp32, bf16, fp16 or auto; several as [fp32,bf16]")
    compile: bool = option("also the compiled net, in the last of the precisions, with what compiling it costs")
    seconds: float = option("how long each measurement takes, about; three steps at least", gt=0)
    warmup: int = option("steps before each measurement", ge=2)
    memory: float | None = option(
        "batch_size=search: most GB that a step may take; null: nine tenths of what is free", gt=0
    )
    device: str = option("auto, cpu, cuda, cuda:1 or mps")
    format: Format = option("how the result is printed: table, json, csv or markdown")
    run: RunConfig = field(default_factory=RunConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)


LATER: dict[type, dict[str, Any]] = {
    DataConfig: {
        "interpolation": "bilinear",
        "cache": "auto",
        "packed": None,
        "decode": "pillow",
        "on_error": "raise",
    }
}  # keys that earlier versions did not write, and what they did
FILLED_IN = ("run.overrides", "sweep.keys", "sweep.trial")  # by the command line, not by the user
SCHEMAS: dict[str, type] = {
    "train": TrainConfig,
    "finetune": FinetuneConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "export": ExportConfig,
    "summary": SummaryConfig,
    "visualize": VisualizeConfig,
    "report": ReportConfig,
    "benchmark": BenchmarkConfig,
    "prepare": PackConfig,
    "doctor": DoctorConfig,
}


def conf_dir() -> Path:
    """The folder of YAML files: inside the package when installed from a wheel, beside it in a checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "conf"


@cache  # for the life of the process: it takes as long as composing does
def register_schemas() -> None:
    """Make `train_schema` and the like known to Hydra, for the defaults list of each primary file."""
    from hydra.core.config_store import ConfigStore

    for command, schema in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{command}_schema", node=schema)


def parse(schema: type, cfg: DictConfig | ListConfig) -> Any:
    """The composed configuration as its typed dataclass, each key known, given and within its range."""
    try:
        plain = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:  # ${…} of something that is not there
        raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}") from None
    assert isinstance(plain, dict)
    return _build(schema, {str(key): value for key, value in plain.items()}, "", partial=False)


def replay(command: str, file: Path, overrides: list[str]) -> Any:
    """The configuration saved by an earlier run, with single keys overridden."""
    try:
        saved = OmegaConf.load(file)
        changed = OmegaConf.merge(OmegaConf.structured(SCHEMAS[command]), saved, OmegaConf.from_dotlist(overrides))
        return parse(SCHEMAS[command], changed)
    except OSError as error:
        raise UserError(f"--config: cannot read {file}: {error.strerror}") from None
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"--config {file}: {str(error).splitlines()[0]}") from None


def restore(schema: type, plain: dict[str, Any]) -> Any:
    """A typed section of a checkpoint's configuration, from `to_plain()`; a key that nobody knows is an error."""
    try:
        saved = OmegaConf.create({**LATER.get(schema, {}), **plain})
        return parse(schema, OmegaConf.merge(OmegaConf.structured(schema), saved))
    except OmegaConfBaseException as error:
        raise UserError(f"its configuration does not fit this version: {str(error).splitlines()[0]}") from None


def to_plain(config: Any) -> dict[str, Any]:
    """A typed configuration as dicts, lists, strings and numbers alone: what YAML, JSON and a checkpoint can hold."""
    plain = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"optim": {"lr": 1}}` as `{"optim.lr": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def unread(schema: type) -> list[str]:
    """The sections that a command takes only because a net's file sets them, and then leaves alone."""
    return [item.name for item in fields(schema) if "unread" in item.metadata]


def bare(schema: type) -> str | None:
    """The key that arguments without `=` are for, in a command that takes such."""
    return next((item.name for item in fields(schema) if "bare" in item.metadata), None)


def help_texts(schema: type, prefix: str = "") -> dict[str, str]:
    """Every key of a schema with its explanation, in the order of the schema."""
    texts: dict[str, str] = {}
    for item in fields(schema):
        if item.name in unread(schema):
            continue
        if isinstance(item.type, type) and is_dataclass(item.type):
            texts |= help_texts(item.type, f"{prefix}{item.name}.")
        else:
            texts[f"{prefix}{item.name}"] = item.metadata["help"]
    return texts


def seconds(duration: str) -> float:
    """`90s`, `30m`, `1h30m` or `2d` in seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise UserError(f"'{duration}' is no duration: write 90s, 30m, 1h30m or 2d")
    total = sum(float(number) * {"d": 86400, "h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)
    if total <= 0:
        raise UserError(f"'{duration}' is no time at all: give more than 0 seconds")
    return total


def _build(schema: type, plain: dict[str, Any], prefix: str, partial: bool) -> Any:
    """Refuse a key that nobody reads, a key without a value, and a value outside its range. In a section that is
    partial a key may go without a value: it stays MISSING."""
    known = {item.name: item for item in fields(schema)}
    for name in plain.keys() - known.keys():
        raise unknown("key", f"{prefix}{name}", [f"{prefix}{item}" for item in known])
    values = {}
    for name, item in known.items():
        key, value = f"{prefix}{name}", plain.get(name, MISSING)
        if isinstance(item.type, type) and is_dataclass(item.type):
            value = _build(item.type, {} if value == MISSING else value, f"{key}.", "partial" in item.metadata)
        elif value == MISSING and not partial:
            raise UserError(f"{key} has no value: give {key}=… ({item.metadata['help']})")
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not isinstance(number, bool):
                _check_range(key, number, item.metadata["bounds"])
        values[name] = value
    return schema(**values)


def _check_range(key: str, number: float, bounds: dict[str, float]) -> None:
    compare = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}
    if not math.isfinite(number):
        raise UserError(f"{key}={number} is no finite number")
    if not all(compare[sign](number, bound) for sign, bound in bounds.items()):
        wanted = " and ".join(f"{sign} {bound}" for sign, bound in bounds.items())
        raise UserError(f"{key}={number} is out of range: it must be {wanted}")
