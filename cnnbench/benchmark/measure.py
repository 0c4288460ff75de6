"""Measures one net of a benchmark: its variants side by side, the data loader, and which of them is the bottleneck."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch

from cnnbench import data, models, tasks
from cnnbench.analysis.complexity import TRAINING_PASSES, count_complexity
from cnnbench.benchmark.timing import (
    PARTS,
    TimedNet,
    cold_compiler,
    endless_batches,
    peak_macs,
    time_inference,
    time_loader,
    time_training,
)
from cnnbench.config.commands import BenchmarkConfig
from cnnbench.data import Batch
from cnnbench.models.embedding import EMBEDDING
from cnnbench.models.layers import CLASS, Net
from cnnbench.runtime import batch_size
from cnnbench.runtime.batch_size import Trial
from cnnbench.runtime.compiled import Compiled
from cnnbench.runtime.device import Runtime, create_runtime
from cnnbench.runtime.memory import peak_memory, reset_peak_memory
from cnnbench.training import setup
from cnnbench.training.augmentation import suited
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import in_thousands

Say = Callable[[str], None]
OF_FREE = 0.9  # fraction of the free memory that a search may use


@dataclass(frozen=True)
class Machine:
    """Device in each of the precisions. Raises UserError at once if the device is not there."""

    device: str
    precisions: list[str]

    def __post_init__(self) -> None:
        assert self.devices

    @cached_property
    def devices(self) -> list[Runtime]:
        found = [create_runtime(self.device, precision, seed=0) for precision in self.precisions]
        return list({device.precision: device for device in found}.values())

    @property
    def threads(self) -> int:
        return torch.get_num_threads()

    def peaks(self, seconds: float) -> dict[str, float]:
        """Multiply-adds per second of a large matrix product, by precision."""
        return {device.precision: peak_macs(device, seconds) for device in self.devices}


def benchmark_net(cfg: BenchmarkConfig, where: Machine, say: Say) -> dict[str, Any]:
    """Results of one net, as in result.json."""
    dataset = timed_dataset(cfg)
    model, size, channels = build_timed_net(cfg, dataset)
    name, first = str(cfg.model["name"]), where.devices[0]
    classes, complexity = count_classes(model, size, channels), count_complexity(model, size, channels)
    first.place(model)
    mean, std = (list(dataset.mean), list(dataset.std)) if dataset else ([0.5] * channels, [0.2887] * channels)
    setting = TimedNet(model=model, optim=cfg.optim, device=first, mean=mean, std=std)
    attempt = partial(try_batch, setting, (channels, size, size), classes)
    most = len(dataset.train) if dataset else batch_size.LARGEST
    trials = search_batch(cfg, name, attempt, most, say) if cfg.batch_size == "search" else []
    batch = trials[-1].batch_size if trials else int(cfg.batch_size)
    if not trials:
        check_batch(cfg, attempt, batch, dataset)
    dataset = setup.place_images(
        dataset or random_dataset(cfg, size, channels, classes, batch), data.cache_of(cfg.data.cache), first
    )
    loader = data.train_loader(
        dataset, suited(cfg.augment, size), image_size=size, batch_size=batch, seed=0, workers=cfg.data.workers
    )
    say(f"{name}: the machine's matrix products, the loader of {dataset.name}")
    peaks, loaded = where.peaks(cfg.seconds / 2), time_loader(endless_batches(loader), cfg.seconds)
    try:
        variants = [
            measure_variant(cfg, replace(setting, device=device), loader, name, say) for device in where.devices
        ]
        if cfg.compile:
            variants.append(
                measure_compiled(cfg, replace(setting, device=where.devices[-1], compile=True), loader, name, say)
            )
    except torch.OutOfMemoryError:
        raise UserError(f"batch_size={batch} does not fit: batch_size=search finds the largest that does") from None
    again = where.peaks(cfg.seconds / 2)  # another program may have slowed the first measurement
    peaks = {precision: max(peak, again[precision]) for precision, peak in peaks.items()}
    for one in variants:
        work = TRAINING_PASSES * complexity.macs * (one["train_images_per_second"] or 0)
        one["macs_per_second"], one["peak_macs_per_second"] = work or None, peaks[one["precision"]]
        one["peak_share"] = work / peaks[one["precision"]] if work else None
    add_break_even(variants)
    return {
        "model": name,
        "params": complexity.params,
        "macs": complexity.macs,
        "image_size": size,
        "num_classes": classes,
        "data": dataset.name,
        "batch_size": batch,
        "variants": variants,
        "loader_images_per_second": loaded.median,
        "loader_spread": loaded.spread,
        "verdict": bottleneck(loaded.median, variants),
        "search": [asdict(trial) for trial in trials],
    }


def timed_dataset(cfg: BenchmarkConfig) -> data.Dataset | None:
    """The data that feed the net; None: noise. UserError for all but classes, and people, who are told apart."""
    name, other = str(cfg.model["name"]), ""
    dataset = None if cfg.data.name == "synthetic" else data.load_dataset(cfg.data)
    if models.answers(name, str(cfg.model.get("source", models.SOURCES[0]))) != CLASS:
        other = f"{name} answers with something else"
    elif dataset and tasks.find(cfg.task or dataset.task).answers not in (CLASS, EMBEDDING):
        other = f"data={dataset.name} is for {cfg.task or dataset.task}"
    if other:
        raise UserError(f"benchmark times nets that classify, and {other}: see images_per_second of its training")
    return dataset and tasks.adopt(dataset, cfg.task, cfg.model)


def build_timed_net(cfg: BenchmarkConfig, dataset: data.Dataset | None) -> tuple[Net, int, int]:
    """Net, image side and channels: those of the data, or the net's own without data."""
    arguments = {key: value for key, value in cfg.model.items() if key not in ("name", "in_channels")}
    if "num_classes" in arguments:
        raise UserError("model.num_classes follows from the data")
    channels = cfg.model.get("in_channels") or (dataset.in_channels if dataset else 3)
    if dataset and channels != dataset.in_channels:
        raise UserError(f"model.in_channels={channels}, but the images of {dataset.name} have {dataset.in_channels}")
    classes = dataset.outputs if dataset else None
    model = models.build(cfg.model["name"], num_classes=classes, in_channels=channels, **arguments)
    size = cfg.data.image_size or models.usual_size(model, dataset.image_size if dataset else model.image_size)
    models.check_image_size(model, size)
    return model, size, channels


def count_classes(model: Net, size: int, channels: int) -> int:
    """Number of classes: the length of the net's output."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()
    with torch.no_grad():
        answers = model(torch.zeros(1, channels, size, size))
    model.load_state_dict(state)
    return int(answers.shape[1])


def random_dataset(cfg: BenchmarkConfig, size: int, channels: int, classes: int, batch: int) -> data.Dataset:
    """Random images in memory, at least two batches."""
    wanted = max(2 * batch, min(cfg.data.num_images or 0, 4 * batch))
    made = replace(cfg.data, image_size=size, num_classes=max(2, classes), num_images=wanted)
    return data.with_channels(data.load_dataset(made), channels)


def repeated_batch(count: int, shape: tuple[int, ...], classes: int) -> Iterator[Batch]:
    """Endless iterator over the same random batch."""
    pictures = torch.randint(256, (count, *shape), dtype=torch.uint8)
    batch = {"image": pictures, "target": torch.arange(count) % classes, "index": torch.arange(count)}
    while True:
        yield batch


# Batch size


def try_batch(setting: TimedNet, shape: tuple[int, ...], classes: int, batch: int) -> Trial:
    """Memory and speed of two training steps with `batch` images."""
    steps = time_training(setting, setting.model, repeated_batch(batch, shape, classes), warmup=0, seconds=0)
    return Trial(batch, steps.memory, batch / steps.whole.median)


def usable_memory(device: Runtime) -> float:
    """Most bytes that a step may take: the process's own memory and most of the free memory."""
    reset_peak_memory(device.device)
    return peak_memory(device.device) + OF_FREE * device.free_memory()


def search_batch(cfg: BenchmarkConfig, name: str, attempt: Callable[[int], Trial], most: int, say: Say) -> list[Trial]:
    """Trials of the search for the largest batch. Raises UserError if not even the smallest batch fits."""
    device = create_runtime(cfg.device, "fp32", seed=None)
    limit = min(cfg.memory * 1e9 if cfg.memory else float("inf"), usable_memory(device))
    base = peak_memory(device.device)

    def shown(batch: int) -> Trial:
        trial = attempt(batch)
        say(f"{name}: batch {batch:,} takes {trial.memory / 1e9:.2f} of {limit / 1e9:.2f} GB, "
            f"{trial.images_per_second:,.0f} images/s")  # fmt: skip
        return trial

    trials = batch_size.search_largest_batch(shown, limit, base, most)
    if not trials:
        raise UserError(f"{name} does not train in {limit / 1e9:.2f} GB, not even with {batch_size.SMALLEST} images")
    return trials


def check_batch(
    cfg: BenchmarkConfig, attempt: Callable[[int], Trial], batch: int, dataset: data.Dataset | None
) -> None:
    """Raise UserError if the batch would take more memory than there is, extrapolated from small batches."""
    if dataset and len(dataset.train) < batch:
        raise UserError(f"batch_size={batch} is more than the {len(dataset.train):,} training images of {dataset.name}")
    try:
        there = usable_memory(create_runtime(cfg.device, "fp32", seed=None))
        needed = batch_size.predict_from_small_steps(attempt, batch)
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            raise UserError("BatchNorm needs more than one value per channel: raise batch_size") from None
        raise
    if needed > there:
        raise UserError(
            f"batch_size={batch} would take about {needed / 1e9:.3g} GB, but only {there / 1e9:.3g} GB are free: "
            "batch_size=search finds the largest that fits"
        )


# The variants


def measure_variant(
    cfg: BenchmarkConfig, setting: TimedNet, loader: data.Loader, name: str, say: Say
) -> dict[str, Any]:
    """Results of the net in one precision."""
    label = f"{setting.device.precision}{' compiled' if setting.compile else ''}"
    net = Compiled(setting.model, loader.order.batch_size, 1).fast if setting.compile else setting.model
    timing: dict[str, Any] = {"warmup": cfg.warmup, "seconds": cfg.seconds}
    steps = time_training(setting, net, endless_batches(loader), **timing)
    batch, whole = loader.order.batch_size, steps.whole
    pictures = next(endless_batches(loader))["image"]
    answers = time_inference(setting, net, pictures, **timing).rate(batch)
    trained = whole.rate(batch)
    say(f"{name}, {label}: {trained.median:,.0f} images/s in training, {answers.median:,.0f} answers/s")
    return {
        "variant": label,
        "precision": setting.device.precision,
        "compiled": setting.compile,
        "train_images_per_second": trained.median,
        "train_spread": trained.spread,
        "inference_images_per_second": answers.median,
        "inference_spread": answers.spread,
        "step_ms": 1000 * whole.median,
        "step_ms_spread": 1000 * whole.spread,
        **{f"{part}_ms": 1000 * timing.median for part, timing in steps.parts.items()},
        "net_images_per_second": batch / steps.net,
        "memory_bytes": steps.memory,
        "steps_timed": whole.repeats,
        "compile_seconds": max(0.0, steps.first - whole.median) if setting.compile else None,
        "error": None,
    }


def measure_compiled(
    cfg: BenchmarkConfig, setting: TimedNet, loader: data.Loader, name: str, say: Say
) -> dict[str, Any]:
    """Results of the compiled net, compiled without a cache; if it cannot be compiled, the reason under `error`."""
    say(f"{name}: compiling, which may take minutes …")
    try:
        with cold_compiler():
            return measure_variant(cfg, setting, loader, name, say)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # compiling can fail in many ways; the most common is a missing C++ compiler
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        say(f"{name}: cannot be compiled here: {reason[:200]}")
        nothing = dict.fromkeys(variant_keys(), None)
        return {**nothing, "variant": f"{setting.device.precision} compiled", "precision": setting.device.precision,
                "compiled": True, "error": reason[:200]}  # fmt: skip


def variant_keys() -> list[str]:
    names = ("train", "inference")
    rates = [key for name in names for key in (f"{name}_images_per_second", f"{name}_spread")]
    parts = [f"{part}_ms" for part in PARTS]
    return [*rates, "step_ms", "step_ms_spread", *parts, "net_images_per_second", "memory_bytes", "steps_timed",
            "compile_seconds"]  # fmt: skip


def add_break_even(variants: list[dict[str, Any]]) -> None:
    """Add to each compiled variant the time saved per step and the number of steps after which compiling pays off."""
    plain = {one["precision"]: one for one in variants if not one["compiled"]}
    for one in variants:
        gain = plain[one["precision"]]["step_ms"] - one["step_ms"] if one["compiled"] and not one["error"] else None
        one["gain_ms"] = gain
        one["break_even_steps"] = round(1000 * one["compile_seconds"] / gain) if gain and gain > 0 else None


def bottleneck(loader: float, variants: list[dict[str, Any]]) -> str:
    """Sentence that says whether the loader or the net is slower, by the fastest variant."""
    best = max(variants, key=lambda one: one["net_images_per_second"] or 0)
    net, which = best["net_images_per_second"], best["variant"]
    given, taken = in_thousands(loader), in_thousands(net)
    if loader < net:
        return f"data-bound: the loader gives {given} images/s, the net could take {taken} ({which})"
    return f"compute-bound: the net takes {taken} images/s ({which}), the loader could give {given}"
