"""`cnnbench evaluate`: what a trained net's answers are worth, by a named protocol."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from omegaconf import MISSING
from tqdm import tqdm

from cnnbench import data, evaluation, inference, models, reports, results, runs, runtime, weights
from cnnbench.checkpoint import Inference
from cnnbench.config import DataConfig, EvaluateConfig, Format, PrepareConfig, Split, TrainConfig, restore
from cnnbench.errors import UserError
from cnnbench.evaluation import Member, Reading
from cnnbench.metrics import judge
from cnnbench.models.layers import Dense, Net
from cnnbench.weights import Weights


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A net of the evaluation, ready to be asked."""

    weights: Weights
    model: Net
    inference: Inference
    views: data.Views
    member: Member


def run(cfg: EvaluateConfig) -> int:
    """Evaluate, leave result.json, tables and pictures behind, print the verdict."""
    device = runtime.setup(cfg.device, cfg.precision.value, seed=0)
    loaded = [weights.load(where, cfg.model) for where in wheres(cfg.weights)]
    data_cfg = data_config(cfg, loaded)
    dataset = data.load_dataset(data_cfg)
    source = dataset.val if cfg.split is Split.val else dataset.train
    judged = [ready(cfg, one, dataset, device) for one in loaded]
    if cfg.shift and len(judged) > 1:
        raise UserError("shift judges a single net: give weights=… one only")
    path = runs.directory(
        "evaluate", cfg, f"{'+'.join(weights.short_name(one.source) for one in loaded)}-{dataset.name}"
    )
    if (path / "config.yaml").exists():
        raise UserError(f"{path} holds a training: give another run.dir")
    reading = Reading(source=source, batch_size=cfg.batch_size, workers=data_cfg.workers)
    begin = time.perf_counter()
    with progress(len(source) * len(judged)) as advance:
        scores = [evaluation.scores(one.member, one.views, reading, advance) for one in judged]
    elapsed = time.perf_counter() - begin
    logits = evaluation.ensemble(scores)
    verdict = judge(logits, source.targets)
    shift = shifted(cfg, judged[0], reading)

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}") from None
    cfg.run.dir = str(path)
    result = {
        **reports.headline(verdict),
        "split": dataset.split if cfg.split is Split.val else "train",
        **protocol(judged),
        "shift": shift and asdict(shift),
        "model": "+".join(str(one.inference.model["name"]) for one in judged),
        "data": dataset.name,
        "weights": [one.source for one in loaded] if len(loaded) > 1 else loaded[0].source,
        "epochs": loaded[0].epochs if len(loaded) == 1 else None,
        "seed": (loaded[0].config or {}).get("seed") if len(loaded) == 1 else None,
        **complexity(judged),
        "images_per_second": verdict.n / elapsed,
        "wall_seconds": elapsed,
        **results.environment(device),
        "run_dir": str(path),
    }
    reports.write(path, result, verdict, dataset, source, logits)
    if cfg.format is Format.table:
        print(reports.page(result, verdict, dataset.classes, brief=cfg.sweep.dir is not None))
    else:
        results.show(result, cfg.format, in_sweep=cfg.sweep.dir is not None)
    return 0


def wheres(given: Any) -> list[str]:
    found = given if isinstance(given, list) else [given]
    if not found or not all(isinstance(where, str) for where in found):
        raise UserError("weights: give a run, a file, zoo:NAME or imagenet; or a list of such, as weights=[a,b]")
    return found


def data_config(cfg: EvaluateConfig, loaded: list[Weights]) -> DataConfig:
    """The data that the (first) net was trained on, apart from what the command line says."""
    config = next((one.config for one in loaded if one.config), None)
    trained = asdict(restore(TrainConfig, config).data) if config else {}
    given = cfg.data
    said = {item.name: value for item in fields(given) if (value := getattr(given, item.name)) != MISSING}
    if "name" not in trained | said:
        raise UserError(f"{loaded[0].source} does not say on which data: add data=…, as in data=cifar10")
    if not trained and (unsaid := [item.name for item in fields(given) if item.name not in said]):
        raise UserError(f"data.{unsaid[0]} has no value: choose the data by name, as in data={said['name']}")
    return DataConfig(**{**trained, **said})


def ready(cfg: EvaluateConfig, loaded: Weights, dataset: data.Dataset, device: runtime.Runtime) -> Judged:
    """The net and how it is asked about this data. How its images are prepared is the net's own affair, whatever the
    data's file says, but for what was typed; a net that does not say is given what the data says."""
    typed = {override.partition("=")[0] for override in cfg.run.overrides}
    keys = ("image_size", "crop_ratio", "interpolation", "mean", "std")
    changes: dict[str, Any] = dict.fromkeys([*keys, "classes"])
    changes |= {key: getattr(cfg.data, key) for key in keys if f"data.{key}" in typed}
    if loaded.inference is None:
        from_data = {"mean": list(dataset.mean), "std": list(dataset.std), "crop_ratio": dataset.crop_ratio,
                     "interpolation": dataset.interpolation, "classes": list(dataset.classes)}  # fmt: skip
        changes = {key: value if (value := changes[key]) is not None else from_data.get(key) for key in changes}
    prepare = PrepareConfig(**changes)
    model, known, _ = inference.ready(loaded, cfg.model, prepare, cfg.weights_rename, cfg.weights_skip)
    check_fits(known, dataset, loaded.source)
    views = data.views(cfg.crop, known.image_size, known.crop_ratio, known.interpolation)
    if views.dense:
        models.check_dense(model, min(views.scales))
    net = runtime.compiled(device.place(Dense(model) if views.dense else model), cfg.compile)
    normalize = runtime.Normalize(device, known.mean, known.std)
    member = Member(net=net, normalize=normalize, runtime=device)
    return Judged(weights=loaded, model=model, inference=known, views=views, member=member)


def check_fits(known: Inference, dataset: data.Dataset, source: str) -> None:
    """UserError where the net's answers would not be the data's classes, or its input not their images."""
    if dataset.in_channels != known.in_channels:
        raise UserError(
            f"{source} takes {known.in_channels} channels, the images of {dataset.name} have {dataset.in_channels}"
        )
    if list(dataset.classes) != known.classes:
        ours, theirs = len(known.classes), len(dataset.classes)
        first = next((pair for pair in zip(known.classes, dataset.classes, strict=False) if pair[0] != pair[1]), None)
        how = (
            f"{ours:,} classes, the data {theirs:,}"
            if ours != theirs or not first
            else f"'{first[0]}' where the data has '{first[1]}'"
        )
        raise UserError(f"{source} was trained for other classes than those of {dataset.name}: it has {how}")


def shifted(cfg: EvaluateConfig, judged: Judged, reading: Reading) -> evaluation.Robustness | None:
    if cfg.shift is None:
        return None
    known = judged.inference
    if cfg.shift >= known.image_size:
        raise UserError(f"shift={cfg.shift} moves everything out of an image of {known.image_size} pixels")
    shifts = data.Shifts(size=known.image_size, scale=round(known.image_size / known.crop_ratio),
                         interpolation=known.interpolation, pixels=cfg.shift)  # fmt: skip
    member = judged.member
    if judged.views.dense:
        member = replace(member, net=judged.model)
    with progress(len(reading.source), "shifted") as advance:
        return evaluation.robustness(member, shifts, reading, advance)


def protocol(judged: list[Judged]) -> dict[str, Any]:
    """How the numbers were measured, so that they compare like for like."""
    texts = list(dict.fromkeys(one.views.text for one in judged))
    modes = list(dict.fromkeys(one.views.interpolation for one in judged))
    views, nets = judged[0].views, len(judged)
    mean_of = [f"{views.count} views" if views.count > 1 else "", f"{nets} nets" if nets > 1 else ""]
    return {
        "crop": "; ".join(texts),
        "protocol": {
            "name": views.name,
            "views": views.count,
            "nets": nets,
            "scales": list(views.scales),
            "resize": views.resize.value,
            "interpolation": "; ".join(modes),
            "averaged": "softmax of " + " and ".join(filter(None, mean_of)) if any(mean_of) else None,
        },
    }


def complexity(judged: list[Judged]) -> dict[str, int]:
    """Of all nets together, and for one view."""
    counts = [results.complexity(one.model, one.inference) for one in judged]
    return {key: sum(count[key] for count in counts) for key in counts[0]}


@contextmanager
def progress(images: int, what: str = "evaluate") -> Iterator[Callable[[int], object]]:
    """A bar on the terminal, where a person is looking."""
    with tqdm(total=images, desc=what, unit="image", leave=False, dynamic_ncols=True, file=sys.stderr,
              disable=not sys.stderr.isatty(), mininterval=0.1) as bar:  # fmt: skip
        yield bar.update
