"""Schema of each command: its own keys, and the sections that it shares with other commands."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cnnbench.config.sections import (
    AugmentConfig,
    CheckpointConfig,
    Compare,
    CropConfig,
    DataConfig,
    DdpConfig,
    Debug,
    Format,
    HeadConfig,
    Layers,
    LossConfig,
    OptimConfig,
    Precision,
    PrepareConfig,
    Resume,
    RunConfig,
    Scale,
    ScheduleConfig,
    Sort,
    Split,
    SummaryFormat,
    SweepConfig,
    TrackingConfig,
    TransferConfig,
    option,
)

TASKS = (
    "classification, segmentation, super_resolution, colorization, verification or detection; null: what the data set "
    "is for"
)
MEASURING = "auto, fp32, bf16 or fp16; null: that of the training, or fp32 if that was auto or is not known"
TEMPERATURE = (
    "colorization: temperature of the mean over colours; 1: pale; towards 0: the likeliest colour; null: 0.38, as in "
    "the paper"
)
WEIGHTS_KEY = "which weights of a file that holds several: a dictionary in it, or a prefix of names"
WEIGHTS_RENAME = "prefixes of names in the weights file and their replacements, as {linear: fc}, or {net: ''}"


@dataclass(kw_only=True)
class TrainConfig:
    task: str | None = option("what the net is trained for: " + TASKS, default=None)
    model: dict[str, Any] = option("the net and its arguments")
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    crop: CropConfig = field(default_factory=CropConfig)
    epochs: int = option("passes over the training images", ge=1)
    batch_size: int | str = option("images per optimizer step, or auto: the largest that fits", ge=1)
    accumulate: int = option(
        "gradient accumulation: microbatches of each batch, to save memory; the step stays the same", ge=1
    )
    head: HeadConfig = field(default_factory=HeadConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    label_smoothing: float = option("probability spread evenly over all classes in the targets", ge=0, lt=1)
    ema: float | None = option("decay of a moving average of the weights; the average is then evaluated", gt=0, lt=1)
    swa: float | None = option(
        "part of the training after which the weights at the end of each epoch are averaged; the average is evaluated, "
        "its BatchNorm re-estimated on the training images", default=None, ge=0, lt=1,
    )  # fmt: skip
    stochastic_depth: float = option(
        "residual nets: probability that the last block is dropped for an image; earlier blocks have smaller "
        "ones; 0: none",
        default=0.0, ge=0, lt=1,
    )  # fmt: skip
    precision: Precision = option(
        "auto, fp32, bf16 or fp16 while training; auto measures the end result in fp32, as evaluate does"
    )
    compile: bool = option("compile the net with torch.compile")
    graphs: bool | str = option(
        "auto, true or false: on a GPU, replay whole steps as CUDA graphs: a small net then does not wait for the host",
        default="auto",
    )
    device: str = option("auto, cpu, cuda, cuda:1 or mps")
    devices: int | str = option("processes that train together, one on each GPU (or on the CPU): 4, or all", ge=1)
    ddp: DdpConfig = field(default_factory=DdpConfig)
    seed: int = option("seed of initialisation, shuffle, augmentation and dropout", ge=0, lt=2**32)
    deterministic: bool = option("bit-identical results on a GPU too, but slower; on a CPU they always are")
    debug: Debug | None = option("fast: one batch of everything, end to end; overfit: memorise a single batch")
    lr_find: bool = option("find a learning rate by a range test of 100 steps, print it and stop", default=False)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    weights: str | None = option(
        "initial weights: a run directory, a weights file, imagenet or zoo:NAME", names="weights"
    )
    weights_key: str | None = option(WEIGHTS_KEY, default=None)
    weights_rename: Any = option(WEIGHTS_RENAME)
    weights_skip: Any = option("names or stages that are initialised instead of loaded, as [fc] or [from:layer3]")
    freeze: Any = option("parts that do not train: none, backbone, until:STAGE, loaded, re:PATTERN or a list of stages")
    unfreeze_at: Any = option("frozen stages that start to train after this many epochs, as {5: layer4, 8: all}")
    max_time: str | None = option("stop after this much training, as 90s, 30m or 1h30m")
    max_steps: int | None = option("stop after this many optimizer steps", ge=1)
    patience: int | None = option("early stopping: stop after this many epochs without an improvement", ge=1)
    until: float | None = option(
        "stop after the epoch in which the error on the training images, or what else the training aims at, is as good "
        "as this", default=None,
    )  # fmt: skip
    resume: Resume = option(
        "auto: continue this run if it exists; never: start a new one; force: continue despite changes"
    )
    format: Format = option("how the result is printed: table, json, csv or markdown")
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    run: RunConfig = field(default_factory=RunConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)


@dataclass(kw_only=True)
class FinetuneConfig(TrainConfig):
    model: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "the net and its arguments; by default that of the weights", "bounds": {}},
    )
    epochs: int = option("passes over the training images; 0: chosen by the strategy and the number of images", ge=0)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    folds: int | None = option(
        "cross-validation: this many trainings, each validated on its own part of the training images", ge=2
    )


@dataclass(kw_only=True)
class TrainedConfig:
    """Keys of all commands that use a trained net."""

    weights: str = option(
        "the trained net: a run, a file, zoo:NAME or imagenet, as weights=outputs/train/resnet8-digits",
        names="weights",
    )
    weights_key: str | None = option(WEIGHTS_KEY, default=None)
    weights_rename: Any = option(WEIGHTS_RENAME)
    weights_skip: Any = option("names or stages that are not loaded, as [aux1]")
    model: dict[str, Any] | None = option("the net and its arguments, if the weights do not name it", default=None)
    run: RunConfig = field(default_factory=RunConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    optim: OptimConfig = field(default_factory=OptimConfig, metadata={"unread": True})
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig, metadata={"unread": True})


@dataclass(kw_only=True)
class EvaluateConfig(TrainedConfig):
    weights: Any = option(
        "the trained net: a run, a file, zoo:NAME or imagenet; a list [a,b]: their averaged predictions",
        names="weights",
    )
    data: DataConfig = field(
        default_factory=DataConfig, metadata={"partial": True}
    )  # other keys come from the checkpoint
    crop: CropConfig = field(default_factory=CropConfig)
    split: Split = option(
        "val: the run's validation images; test: images that no training used; train: its training images, "
        "without augmentation"
    )
    try_variants: bool = option(
        "only try which variant of the net and which normalisation fit weights that do not name them; 300 images each"
    )
    shift: int | None = option(
        "also measure how often the prediction stays the same when the image is shifted by this many pixels", ge=1
    )
    calibrate: bool = option(
        "fit a temperature on the validation images, so that probabilities become true, and store it with the weights"
    )
    judge: str | None = option(
        "colorization: a classifier that is asked for the classes of the coloured images, as zoo:resnet20-cifar10",
        default=None,
        names="weights",
    )
    temperature: float | None = option(TEMPERATURE, default=None, gt=0)
    batch_size: int = option("images or crops per forward pass", ge=1)
    precision: Precision | None = option(MEASURING)
    compile: bool = option("compile the net with torch.compile")
    device: str = option("auto, cpu, cuda, cuda:1 or mps")
    devices: int | str = option("processes that share the images, one on each GPU: 4, or all", ge=1)
    format: Format = option("how the result is printed: table, json, csv or markdown")


@dataclass(kw_only=True)
class PackConfig:
    data: DataConfig = field(default_factory=DataConfig)
    out: str | None = option("folder to write; null: one named after the data under run.root", names="file")
    side: int = option("larger images are resized so that their shorter side has this many pixels", ge=32)
    quality: int = option("quality of the JPEGs that are written", ge=1, le=95)
    shard: int = option("images in a shard", ge=1)
    format: Format = option("how the result is printed: table, json, csv or markdown")
    run: RunConfig = field(default_factory=RunConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)


@dataclass(kw_only=True)
class PredictConfig(TrainedConfig):
    input: Any = option("images, folders, patterns such as 'photos/*.jpg', or - for a list on stdin", bare=True,
                       names="file",
                       missing="name an image, a folder or a pattern, as in cnnbench predict photos/")  # fmt: skip
    weights: Any = option(
        "the trained net: a run, a file, zoo:NAME or imagenet; a list [a,b]: their averaged predictions",
        names="weights",
    )
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    crop: CropConfig = field(default_factory=CropConfig)
    every: float | None = option(
        "sounds: classify the clip around each moment, this many seconds apart, named song.wav@1.25; null: once",
        default=None, gt=0,
    )  # fmt: skip
    top: int = option("top-k: classes listed for each image", ge=1)
    min_probability: float | None = option(
        "answer 'unsure' where the likeliest class has a lower probability; null: never", gt=0, le=1
    )
    embed: bool = option(
        "instead of predictions, write each image's embedding (the input of the net's last layer) into "
        "out=FILE.npz, to find similar images and near copies",
        default=False,
    )
    out: str | None = option(
        "also write the predictions to this file, in the format of its ending (.json, .csv, .md); embed: the .npz",
        names="file",
    )
    sheet: str | None = option(
        "draw the images with their predictions into this PNG; further pages beside it", names="file"
    )
    temperature: float | None = option(TEMPERATURE, default=None, gt=0)
    score: float | None = option("detection: smallest score of a box; null: 0.5", default=None, ge=0, le=1)
    batch_size: int = option("images or crops per forward pass", ge=1)
    workers: int | None = option("threads that read image files; null: one per core", ge=1)
    precision: Precision | None = option(MEASURING)
    device: str = option("auto, cpu, cuda, cuda:1 or mps")
    format: Format = option("how the predictions are printed: table, json, csv or markdown")


@dataclass(kw_only=True)
class ExportConfig(TrainedConfig):
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    format: str = option("onnx, torchscript, exported_program or safetensors")
    out: str | None = option("the file to write; null: one named after the weights under run.root", names="file")


@dataclass(kw_only=True)
class VisualizeConfig(TrainedConfig):
    task: str | None = option("what the net is for: " + TASKS, default=None)
    what: Any = option(
        "filters, maps, patches, maximize, gradcam, occlusion, saliency, embedding, mistakes; a list [a,b], or all of "
        "them; lesions: the error without each block; batch, schedule and signals look at a training before it begins"
    )
    weights: str | None = option(  # type: ignore[assignment]
        "the trained net: a run, a file, zoo:NAME or imagenet", names="weights"
    )
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    layer: Any = option(
        "stages or layers to look at, as layer1 or [stem,layer3.0.conv1]; null: chosen by the kind of picture"
    )
    units: Any = option(
        "numbers of units, as [0,5], or names of classes in the head; null: chosen by the kind of picture"
    )
    images: Any = option(
        "images to look at: files, folders, or numbers of images of the data; null: a few of the data", names="file"
    )
    target: Any = option(
        "gradcam, occlusion, saliency: the class in question, by name or number; null: the predicted class"
    )
    top: int = option("patches: how many for each unit", ge=1)
    limit: int | None = option("largest number of images of the data to search; null: all", ge=1)
    steps: int = option("maximize: steps of gradient ascent", ge=1)
    normalize: Scale = option("filters: each on its own scale, or together on one")
    sort: Sort = option("filters: by colour, frequency or none")
    split: Split = option("val, test or train: which images of the data")
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    epochs: int = option("schedule: passes over the training images", ge=1)
    batch_size: int = option("images per forward pass, if memory allows; schedule: images per step", ge=1)
    seed: int = option("seed of the random numbers: initial noise, augmentation, embedding", ge=0, lt=2**32)
    precision: Precision | None = option(MEASURING)
    device: str = option("auto, cpu, cuda, cuda:1 or mps")
    format: Format = option("how the list of pictures is printed: table, json, csv or markdown")


@dataclass(kw_only=True)
class ReportConfig:
    input: Any = option(
        "directories with runs and sweeps in them; by default run.root", default=None, bare=True, names="file"
    )
    sort: str | None = option(
        "the column to sort by, as seconds; -seconds: descending; null: the best of each task first"
    )
    where: Any = option("only runs with these settings, as model=resnet*,optim.lr=0.1")
    compare: Compare = option(
        "whether nets differ by more than chance, by their answers to the same images: all pairs, none, or auto: all "
        "of up to 15"
    )
    out: str | None = option(
        "also write the report to this file: .html is a page with curves, .png the curves alone, or .md, .csv, .json",
        names="file",
    )
    history: bool = option("the ImageNet challenge year by year, as a table and a picture, with your own runs in it")
    cancel: bool = option("cancel the jobs that run or wait; running ones save first")
    format: Format = option("how the table is printed: table, json, csv or markdown")
    run: RunConfig = field(default_factory=RunConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)


@dataclass(kw_only=True)
class ReportClaimsConfig:
    input: Any = option("directories with runs in them; by default the runs that are kept", default=None, bare=True)
    claim: str | None = option("the one claim that is shown, with all that is known of it; null: a table of all")
    out: str | None = option("also write it to this file: .html, .md, .csv, .json or .txt")
    format: Format = option("how it is printed: table, json, csv or markdown")
    run: RunConfig = field(default_factory=RunConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)


@dataclass(kw_only=True)
class DoctorConfig:
    format: Format = option("how the result is printed: table, json, csv or markdown")
    run: RunConfig = field(default_factory=RunConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)


@dataclass(kw_only=True)
class DoctorDataConfig(TrainedConfig):
    weights: str | None = option(  # type: ignore[assignment]
        "the net whose features compare the images; null: zoo:resnet20-cifar10 for images of up to 64 px, the "
        "published SqueezeNet 1.0 for larger ones",
        names="weights",
    )
    data: DataConfig = field(default_factory=DataConfig)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    similarity: float = option(
        "two images count as near copies if the cosine of their features is at least this", gt=0, le=1
    )
    show: int = option("how many of the labels that are probably wrong, and of the pairs of copies, are printed", ge=0)
    sheet: int = option("how many of them are drawn", ge=1, le=100)
    cache: bool = option("keep the features on the disk, in run.root/features")
    precision: Precision = option("auto, fp32, bf16 or fp16")
    device: str = option("auto, cpu, cuda, cuda:1 or mps")
    format: Format = option("how the findings are printed: table, json, csv or markdown")


@dataclass(kw_only=True)
class SummaryConfig:
    model: dict[str, Any] = option("the net and its arguments")
    num_classes: int | None = option("classes that the net tells apart; null: as many as in its paper", ge=1)
    image_size: int | None = option("side of the images, pixels; null: the net's native size", gt=0)
    in_channels: int | None = option("channels of the images; null: 3", ge=1)
    layers: Layers = option("main: layers with parameters and pools; all: every one")
    out: str | None = option(
        "also write the result to this file, in the format of its ending (.json, .csv, .md, .svg, .html)",
        names="file",
    )
    format: SummaryFormat = option("how the result is printed: table, json, csv or markdown; svg or html: drawn")
    run: RunConfig = field(default_factory=RunConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    optim: OptimConfig = field(default_factory=OptimConfig, metadata={"unread": True})
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig, metadata={"unread": True})


@dataclass(kw_only=True)
class BenchmarkConfig:
    task: str | None = option("what the net is for: " + TASKS, default=None)
    model: dict[str, Any] = option("the net and its arguments")
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig, metadata={"unread": True})
    epochs: int = field(default=1, metadata={"unread": True, "help": "", "bounds": {}})
    batch_size: int | str = option("images per step, or search: the largest that fits", ge=1)
    precisions: Any = option("precisions to compare: fp32, bf16, fp16 or auto; several as [fp32,bf16]")
    compile: bool = option("also measure the compiled net, in the last of the precisions, and the cost of compiling")
    seconds: float = option("approximate length of each measurement; at least three steps", gt=0)
    warmup: int = option("steps before each measurement", ge=2)
    memory: float | None = option(
        "batch_size=search: memory limit of a step in GB; null: nine tenths of the free memory", gt=0
    )
    device: str = option("auto, cpu, cuda, cuda:1 or mps")
    format: Format = option("how the result is printed: table, json, csv or markdown")
    run: RunConfig = field(default_factory=RunConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)


FILLED_IN = ("run.overrides", "sweep.keys", "sweep.trial")  # by the program, not by the user
SCHEMAS: dict[str, type] = {
    "train": TrainConfig,
    "finetune": FinetuneConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "export": ExportConfig,
    "summary": SummaryConfig,
    "visualize": VisualizeConfig,
    "report": ReportConfig,
    "report_claims": ReportClaimsConfig,
    "benchmark": BenchmarkConfig,
    "prepare": PackConfig,
    "doctor": DoctorConfig,
    "doctor_data": DoctorDataConfig,
}


@cache  # once in a process: it takes a while
def register_schema(command: str) -> None:
    """Register `train_schema` or the like with Hydra, for the defaults list of the command's primary file."""
    from hydra.core.config_store import ConfigStore

    from cnnbench.config.changed_hydra import compose_faster

    compose_faster()
    ConfigStore.instance().store(name=f"{command}_schema", node=SCHEMAS[command])
