"""Sections of the configuration: every key, its type, its range and its meaning. Values live in conf/*.yaml.

Hydra composes the YAML onto these dataclasses, so a mistyped key or a wrong type is refused before anything runs.
commands.py says which sections and further keys a command takes.
"""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import MISSING


def option(help: str, *, default: Any = MISSING, ge: float | None = None, gt: float | None = None,
           le: float | None = None, lt: float | None = None, bare: bool = False,
           missing: str | None = None, names: str = "") -> Any:  # fmt: skip
    """Configuration key: its explanation for `--help`, and the range that `parse()` checks (of a list, each item's).

    bare: arguments without `=` are its values. missing: the message where it has no value. names: what its values
    name on the disk, for the completion of a command line: folder, file (of any kind) or weights.
    """
    bounds = {">=": ge, ">": gt, "<=": le, "<": lt}
    metadata: dict[str, Any] = {"help": help}
    metadata["bounds"] = {sign: bound for sign, bound in bounds.items() if bound is not None}
    more = {"bare": bare, "missing": missing, "names": names}
    metadata |= {key: value for key, value in more.items() if value}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


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


class Compare(Enum):
    auto = "auto"
    all = "all"
    none = "none"


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
    patch = "patch"
    iou = "iou"
    auto = "auto"


class Policy(Enum):
    none = "none"
    trivial = "trivial"
    rand = "rand"
    auto = "auto"


class LearntOn(Enum):
    imagenet = "imagenet"
    cifar10 = "cifar10"
    svhn = "svhn"


class Targets(Enum):
    masks = "masks"
    boxes = "boxes"


class PaddingMode(Enum):
    constant = "constant"
    reflect = "reflect"


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


class Sampler(Enum):
    shuffle = "shuffle"
    balanced = "balanced"


class ClassWeights(Enum):
    none = "none"
    balanced = "balanced"


class Head(Enum):
    softmax = "softmax"
    cosface = "cosface"
    arcface = "arcface"


class Loss(Enum):
    usual = "usual"
    contrastive = "contrastive"


class Split(Enum):
    val = "val"
    train = "train"
    test = "test"


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


OnError = Enum("OnError", {"warn": "warn", "raise": "raise"})  # a class body cannot have a member `raise`


class Cache(Enum):
    auto = "auto"
    true = "true"
    false = "false"
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
    muon = "muon"
    rmsprop = "rmsprop"


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
    exponential = "exponential"
    onecycle = "onecycle"
    plateau = "plateau"


class Identity(Enum):
    names = "names"
    content = "content"


class Reference(Enum):
    loudest = "loudest"
    full_scale = "full_scale"


@dataclass(kw_only=True)
class SoundConfig:
    rate: int | None = option("samples per second that sounds are resampled to; null: the rate of most of them",
                              default=None, ge=1000)  # fmt: skip
    seconds: float | None = option(
        "length of a clip: longer sounds are cut to their middle, shorter ones get silence on both sides; null: "
        "nine in ten sounds are no longer", default=None, gt=0, le=600,
    )  # fmt: skip
    bands: int = option("mel bands: the side of the picture", default=64, ge=8, le=1024)
    window: list[float] = option(
        "milliseconds of sound in one column of the picture; three lengths make three channels", default=[25.0], gt=0
    )
    hop: float | None = option(
        "milliseconds from one column to the next; the picture is then made square; null: as many columns as "
        "bands", default=None, gt=0,
    )  # fmt: skip
    low: float = option("lowest tone, Hz", default=20.0, ge=0)
    high: float | None = option("highest tone, Hz; null: half the rate", default=None, gt=0)
    range: float = option("decibels from black to white", default=80.0, ge=10, le=200)
    reference: Reference = option(
        "what is white: the loudest of each clip (loudest), whatever its level, or full scale (full_scale)",
        default=Reference.loudest,
    )


@dataclass(kw_only=True)
class DataConfig:
    name: str = option(
        "digits, mnist, fashion_mnist, svhn, stl10, cifar10, cifar100, imagenet, folder, list, images, t91, faces, "
        "people, camvid, voc, masks, coco, boxes, sounds, spoken_digits, esc50, speech_commands, arrays or synthetic",
        missing="data.name has no value: data=torchvision needs the name of one of torchvision's sets, as in "
        "data.name=Flowers102, and data=python that of a function in data.file",
    )
    source: str | None = option(
        "torchvision: the data set of this name is torchvision's; python: a function of this name in data.file makes "
        "it; null: it is one of cnnbench's", default=None,
    )  # fmt: skip
    sha256: str | None = option("python: the SHA-256 of data.file; filled in by the program", default=None)
    root: str | None = option(
        "folder that holds the data; by default $CNNBENCH_DATA, or ./data if that is not set", names="folder"
    )
    download: bool = option("fetch a known data set that is missing")
    val_fraction: float = option("part of the training images held out for validation", ge=0, lt=1)
    test_fraction: float = option(
        "part of the training images kept for evaluate split=test, if the data have no test split", default=0.0,
        ge=0, lt=1,
    )  # fmt: skip
    group: str | None = option(
        "images of one group (patient, place, video) stay on one side of every split: a regular expression over their "
        "paths, whose first group or match names it, or TABLE.csv:COLUMN",
        default=None,
    )
    fraction: float = option("part of the training images used, evenly from each class", gt=0, le=1)
    image_size: int | None = option("side of the images given to the net, pixels; null: the net's native size", gt=0)
    crop_ratio: float = option("validation: side of the centre crop over the shorter side of the image", ge=0.1, le=1)
    interpolation: Interpolation = option("how images are resized: nearest, bilinear or bicubic")
    mean: list[float] | None = option("channel means in 0..1; null: the data set's own", ge=0, le=1)
    std: list[float] | None = option("channel standard deviations in 0..1; null: the data set's own", gt=0)
    workers: int | None = option(
        "processes that decode image files anew in each epoch, threads that decode them once; null: one per core", ge=0
    )
    cache: bool | str = option(
        "decoded images in memory: auto (files are decoded once if the images fit into half of the free memory; "
        "images are kept on the training device if they fit there), true (the same, or stop), false (files are "
        "decoded in each epoch), device or host (images are kept on the device, or in main memory)"
    )
    packed: str | None = option(
        "folder that `cnnbench prepare` wrote: its images are read instead of those of root", names="folder"
    )
    decode: Decoder = option(
        "training images: auto decodes only the cropped part; pillow: the whole, as torchvision's scripts do; nvjpeg: "
        "on the GPU"
    )
    on_error: OnBadImage = option("an image that cannot be read: raise and stop, or skip it with a message")
    nested: bool = option("folder: class folders hold no images of their own, but folders with images", default=False)
    identity: Identity = option(
        "how a run that resumes recognises its images: by their names, or by their content (reads all files)",
        default=Identity.names,
    )
    sampler: Sampler = option(
        "training images of an epoch: each once (shuffle), or equally many of each class (balanced): those of a "
        "small class several times, of a large class not all",
        default=Sampler.shuffle,
    )
    lr: str | None = option(
        "images: folder with the small image of each, of the same name; null: they are made by bicubic reduction",
        default=None,
        names="folder",
    )
    stride: int | None = option(
        "images: training images are cut into squares of image_size that begin this many pixels apart, in memory;"
        " null: they stay whole, for augment.crop=patch",
        default=None,
        ge=1,
    )
    ignore: int | None = option(
        "masks: another value of pixels that are ignored, beside 255; null: none", default=None, ge=0, le=255
    )
    file: str | None = option(
        "list: the table of the images (CSV, TSV, Parquet) with the columns path and label, and perhaps split and"
        " group; sounds: a table with the columns file and class, and perhaps fold, split, group, start, end; "
        "arrays: the .npz; python: the user's own Python file",
        default=None, names="file",
    )  # fmt: skip
    fold: Any = option(
        "sounds: the fold for testing; the others are for training; spoken_digits: official, or a speaker",
        default=None,
    )
    values: list[float] | None = option(
        "arrays: two values that become 0 and 255; null: the least and the largest of x, or those of the weights",
        default=None,
    )
    sound: SoundConfig = field(default_factory=SoundConfig)
    pairs: str | None = option(
        "people: table of the test pairs: first, second, same, and perhaps fold; null: ROOT/pairs.tsv, .csv or .txt",
        default=None,
        names="file",
    )
    folds: int = option(
        "people: number of folds of the pairs, each judged with the threshold that suits the others; a table's "
        "own folds come first",
        default=10,
        ge=2,
    )
    targets: Targets | None = option(
        "voc: masks, or boxes (for task=detection); null: masks, if there are lists of them", default=None
    )
    num_classes: int | None = option("synthetic data: how many classes", ge=2)
    num_images: int | None = option("synthetic data: how many training images", ge=1)


@dataclass(kw_only=True)
class AugmentConfig:
    crop: Crop = option(
        "none, pad (shift by zero padding), random (fixed scale), resized (random area and aspect), patch (a "
        "square, not resized), iou (images with boxes: a part that overlaps at least one box enough) or auto (pad"
        " for images below 64 pixels, resized for others)"
    )
    padding: int = option("crop=pad: pixels of padding, at the data set's own size", ge=0)
    padding_mode: PaddingMode = option(
        "crop=pad: constant (zeros) or reflect (the image, mirrored at its edge)", default=PaddingMode.constant
    )
    scale: list[float] = option("crop=resized: range of the cropped part of the area", gt=0, le=1)
    ratio: list[float] = option("crop=resized: range of the aspect ratio", gt=0)
    flip: bool = option("mirror images left to right, each with probability 1/2")
    zoom_out: float = option(
        "images with boxes: half of them are placed on a canvas up to this many times as wide and high; 1: none",
        default=1.0, ge=1, le=8,
    )  # fmt: skip
    flip_vertical: bool = option("mirror images upside down, each with probability 1/2", default=False)
    turn: bool = option("turn images by random quarter turns", default=False)
    rotate: float = option(
        "rotate images by up to this many degrees to the left or right; new corners are black; 0: none", default=0.0,
        ge=0, le=180,
    )  # fmt: skip
    alternate: bool = option("flip: mirror each image in every other epoch, not at random", default=False)
    color: float = option("strength of the brightness, contrast and saturation jitter; 0: none", ge=0, lt=1)
    blur: float = option(
        "smooth images by a Gaussian with a standard deviation of up to this many pixels; 0: none",
        default=0.0,
        ge=0,
        le=10,
    )
    policy: Policy = option(
        "operations drawn for each image: trivial (one, of any strength), rand (augment.operations of them, all "
        "of one magnitude), auto (two, by rules learned on augment.learnt_on) or none", default=Policy.none,
    )  # fmt: skip
    operations: int = option("policy=rand: operations in a row", default=2, ge=1, le=10)
    magnitude: int = option("policy=rand: strength of the operations, at most 30", default=9, ge=0, le=30)
    learnt_on: LearntOn = option(
        "policy=auto: the data set that its operations were learned on: imagenet, cifar10 or svhn",
        default=LearntOn.imagenet,
    )
    erase: float = option("probability that a random rectangle is set to the mean; 0: none", default=0.0, ge=0, le=1)
    erase_scale: list[float] = option("erase: range of the erased part of the area", default=[0.02, 0.33], gt=0, le=1)
    erase_ratio: list[float] = option("erase: range of width over height", default=[0.3, 3.3], gt=0)
    mixup: float = option(
        "mix each image with another, and their classes: alpha of the Beta distribution of the shares; 0: none; with "
        "cutmix, one of the two for each image", default=0.0, ge=0, le=100,
    )  # fmt: skip
    cutmix: float = option(
        "replace a rectangle of each image by that of another image, and mix their classes: alpha of the Beta "
        "distribution of the shares; 0: none", default=0.0, ge=0, le=100,
    )  # fmt: skip
    time_shift: float = option(
        "spectrograms: shift to the left or right by up to this share of the width", default=0.0, ge=0, lt=1
    )
    pitch_shift: float = option(
        "spectrograms: shift up or down by up to this share of the height", default=0.0, ge=0, lt=1
    )
    time_stretch: float = option("spectrograms: slower or faster by up to this share", default=0.0, ge=0, lt=1)
    pitch_stretch: float = option(
        "spectrograms: all pitches higher or lower by up to this share, in mel", default=0.0, ge=0, lt=1
    )
    level: float = option(
        "spectrograms: louder or softer by up to this share of the range, and high pitches against low ones by as"
        " much",
        default=0.0, ge=0, lt=1,
    )  # fmt: skip
    time_mask: float = option(
        "spectrograms: vertical stripes set to the mean; the largest width of a stripe, as a share of the picture's",
        default=0.0,
        ge=0,
        lt=1,
    )
    frequency_mask: float = option(
        "spectrograms: horizontal stripes set to the mean; the largest height of a stripe, as a share of the picture's",
        default=0.0,
        ge=0,
        lt=1,
    )
    masks: int = option("spectrograms: how many stripes of each kind", default=2, ge=1, le=10)
    cutout: int = option("side of a random square set to the mean, pixels of the net's input; 0: none", ge=0)


@dataclass(kw_only=True)
class HeadConfig:
    name: Head = option(
        "verification: the layer that tells people apart in training: softmax, or angles with a margin (cosface, "
        "arcface)",
        default=Head.softmax,
    )
    scale: float = option("cosface, arcface: factor on the cosines before the softmax", default=64.0, gt=0)
    margin: float = option(
        "cosface: margin subtracted from the cosine of the right person; arcface: margin added to the angle, radians",
        default=0.35, ge=0, le=1,
    )  # fmt: skip


@dataclass(kw_only=True)
class LossConfig:
    name: Loss = option(
        "usual: the task's own; contrastive, for verification: images of one person attract each other, others in"
        " a batch repel",
        default=Loss.usual,
    )
    margin: float = option(
        "contrastive: from this distance on, different people no longer repel each other; embeddings have length 1",
        default=1.0, gt=0, le=2,
    )  # fmt: skip
    class_weights: ClassWeights = option(
        "balanced: weight of an image: n / (classes x images of its class); of a pixel: the fourth root of that; "
        "none: all weigh the same",
        default=ClassWeights.none,
    )


@dataclass(kw_only=True)
class RestConfig:
    lr: float = option("muon: learning rate of SGD for the head, biases and normalisation", default=0.1, gt=0)
    momentum: float = option("muon: momentum of SGD for the head, biases and normalisation", default=0.9, ge=0, lt=1)
    weight_decay: float = option("muon: weight decay of the head", default=0.0, ge=0)


@dataclass(kw_only=True)
class RmsConfig:
    decay: float = option("rmsprop: decay of the mean of squares in each step", default=0.9, ge=0, lt=1)
    epsilon: float = option("rmsprop: number added to that mean under the root", default=1.0, gt=0)


@dataclass(kw_only=True)
class OptimConfig:
    name: Optimizer = option("sgd, adamw, muon or rmsprop")
    lr: float = option("learning rate for a batch of lr_batch images", gt=0)
    lr_batch: int | None = option(
        "batch size that lr was tuned for: lr scales linearly from it; null: lr as it is", gt=0
    )
    momentum: float = option("momentum (for adamw its first beta)", ge=0, lt=1)
    nesterov: bool = option("sgd and muon: Nesterov's momentum")
    weight_decay: float = option("weight decay of convolution and linear weights", ge=0)
    decay_all: bool = option("decay biases and normalisation parameters too, as the papers did")
    clip: float | None = option("gradient clipping: largest norm; null: none", gt=0)
    lr_decay: float = option("factor on lr for each stage further from the head; 1: the same for all", gt=0, le=1)
    head_lr: float = option("factor on lr for the head", gt=0)
    bias_lr: float = option("factor on lr for biases and normalisation", default=1.0, gt=0)
    rest: RestConfig = field(default_factory=RestConfig)
    rms: RmsConfig = field(default_factory=RmsConfig)


@dataclass(kw_only=True)
class ScheduleConfig:
    name: Schedule = option("constant, multistep, cosine, linear, exponential, onecycle or plateau")
    warmup_epochs: float = option("epochs in which lr rises linearly from near 0; onecycle has its own rise", ge=0)
    milestones: list[float] = option(
        "multistep: fractions of the training after which lr is multiplied by gamma", gt=0, lt=1
    )
    gamma: float = option("multistep, exponential, plateau: factor of each drop", gt=0, lt=1)
    every_epochs: float = option("exponential: epochs from one drop to the next", default=2.0, gt=0)
    patience: int = option("plateau: epochs without a better validation after which lr drops", default=5, ge=1)
    peak: float = option("onecycle: fraction of the training after which lr is highest", default=0.3, gt=0, lt=1)
    start: float = option("onecycle: lr of the first step, as a part of the highest", default=0.04, gt=0, le=1)
    end: float = option("onecycle: lr of the last step, as a part of the highest", default=4e-6, ge=0, le=1)


@dataclass(kw_only=True)
class CheckpointConfig:
    every: int | str | None = option(
        "also save within an epoch: after this many steps, or after a time such as 10m; null: only at its end", ge=1
    )
    keep: int = option("how many of the newest checkpoints stay, beside the best one", ge=1)
    on_error: OnError = option("a checkpoint that cannot be written (disk full): warn and go on, or raise and stop")


@dataclass(kw_only=True)
class RunConfig:
    dir: str | None = option("directory of this run; by default root/<command>/<name>", names="folder")
    name: str | None = option("name of this run; by default made from the model, the data and the overrides")
    root: str = option("directory under which runs are kept", names="folder")
    overrides: list[str] = option("the command line that made this run; filled in by the program")


@dataclass(kw_only=True)
class SweepConfig:
    dir: str | None = option(
        "directory of a sweep (-m); by default root/<command>/<name from the overrides>", names="folder"
    )
    rerun: Rerun = option("jobs of an earlier start to run again: failed, all (also those that are done) or none")
    detach: bool = option("hydra/launcher=slurm: submit the jobs and return; cnnbench report DIR shows their progress")
    keys: list[str] = option("keys that the sweep varies; filled in by the program")
    trial: int | None = option("the number of this job in a search; filled in by the program", default=None)


@dataclass(kw_only=True)
class DdpConfig:
    sync_bn: bool = option("devices=N: synchronise BatchNorm over the images of all processes")
    bucket_mb: int = option("devices=N: MB of a gradient bucket, all-reduced while the next is computed", ge=1)
    compress: bool = option("devices=N: all-reduce gradients as bf16, in half the bytes")


@dataclass(kw_only=True)
class TrackingConfig:
    tensorboard: bool | None = option(
        "write TensorBoard's events into the run directory; null: unless another logger is chosen", default=None
    )
    csv: bool = option("write metrics.csv into the run directory: a line per epoch", default=False)
    mlflow: bool = option("log to MLflow, where MLFLOW_TRACKING_URI says; needs the extra mlflow", default=False)
    wandb: bool = option(
        "log to Weights & Biases, offline unless WANDB_MODE=online; needs the extra wandb", default=False
    )
    pictures: bool = option(
        "draw the curves, the first batch and what the last validation found into the run directory", default=True
    )
    images: bool = option(
        "pictures in TensorBoard: filters as they form, signal and gradient of each stage, the worst mistakes",
        default=False,
    )


@dataclass(kw_only=True)
class CropConfig:
    name: str = option(
        "center, six, ten, multi_scale_dense or 144: the views of an image whose predictions are averaged",
        default="center",
    )
    resize: Resize = option(
        "shorter: the shorter side to the scale; squash: both sides, whatever the aspect", default=Resize.shorter
    )
    scales: list[int] | None = option(
        "multi_scale_dense, 144: sides that images are resized to; null: the paper's, in proportion to the net's size",
        default=None,
        gt=0,
    )


@dataclass(kw_only=True)
class TransferConfig:
    name: Strategy = option("auto, svm, deep_features, head, partial, full or scratch")
    run: bool = option("false: transfer=auto only gives its advice and does not run it")
    probe: bool = option("initialise the head by a linear SVM on the features of the unchanged net")
    stages: int = option("partial: how many of the stages before the head train", ge=1)
    layer: str | None = option("deep_features: the stage whose output is used; null: the best on held-out images")
    c: list[float] = option("values of the SVM's C to choose from by cross-validation", gt=0)
    adapt: int | None = option(
        "head, partial, full: two new layers instead of one; units of the first (Oquab et al., 2014); null: one "
        "new layer", default=None, ge=1,
    )  # fmt: skip
    many: int = option("auto: from this many images per class on, a data set counts as large", ge=1)
    cache: bool = option("keep the features of the images on disk, for the next command")


@dataclass(kw_only=True)
class PrepareConfig:
    """Preprocessing for weights that do not say it. null: what the weights say, else as for ImageNet."""

    image_size: int | None = option("side of the images given to the net, pixels; null: the weights' own", gt=0)
    crop_ratio: float | None = option("side of the centre crop over the shorter side of the image", gt=0, le=1)
    interpolation: Interpolation | None = option("how images are resized: nearest, bilinear or bicubic")
    mean: list[float] | None = option("channel means in 0..1", ge=0, le=1)
    std: list[float] | None = option("channel standard deviations in 0..1", gt=0)
    classes: Any = option("names of the classes: a list, or a text file with one in each line", names="file")


def conf_dir() -> Path:
    """Folder of the YAML files: inside the package when installed from a wheel, beside it in a checkout."""
    packaged = Path(__file__).parents[1] / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"
