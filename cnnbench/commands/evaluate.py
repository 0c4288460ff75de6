"""`cnnbench evaluate`: what a trained net's answers are worth, by a named protocol."""

import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from cnnbench import data
from cnnbench.config.commands import EvaluateConfig
from cnnbench.config.parsing import from_plain
from cnnbench.config.sections import DataConfig, Format, PrepareConfig, Split
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.layers import Net
from cnnbench.runs import run_directory
from cnnbench.runs.result import complexity, environment, show
from cnnbench.runs.run_directory import path_for
from cnnbench.runtime.device import Runtime, create_runtime
from cnnbench.tasks.classification import evaluation, report
from cnnbench.tasks.classification.evaluation import Member, Reading
from cnnbench.tasks.classification.metrics import judge
from cnnbench.utils.errors import UserError
from cnnbench.weights import load, sources
from cnnbench.weights.sources import Weights


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A net of the evaluation, ready to be asked."""

    weights: Weights
    model: Net
    spec: ModelSpec
    views: data.Views
    member: Member
    reading: Reading


def run(cfg: EvaluateConfig) -> int:
    """Evaluate, leave result.json, tables and pictures behind, print the verdict."""
    device = create_runtime(cfg.device, cfg.precision.value, seed=0, together=True)
    loaded = [sources.load(where, cfg.model) for where in wheres(cfg.weights)]
    data_cfg = data_config(cfg, loaded)
    dataset = data.load_dataset(data_cfg)
    judged = [ready(cfg, one, dataset, data_cfg.workers, device) for one in loaded]
    if cfg.shift and len(judged) > 1:
        raise UserError("shift judges a single net: give weights=… one only")
    path = Path(device.group.broadcast(lambda: str(directory(cfg, judged, dataset))))
    begin = time.perf_counter()
    source = judged[0].reading.source
    with evaluation.progress(len(source) * len(judged)) as advance:
        scores = [evaluation.scores(one.member, one.views, one.reading, advance) for one in judged]
    elapsed = time.perf_counter() - begin
    logits = evaluation.ensemble(scores)
    verdict = judge(logits, source.targets)
    result = {
        **report.headline(verdict),
        "skipped_images": len(dataset.unreadable),
        "split": dataset.split if cfg.split is Split.val else "train",
        **protocol(judged),
        "shift": shifted(cfg, judged[0]),
        **identity(judged, dataset),
        "images_per_second": verdict.n / elapsed,
        "wall_seconds": elapsed,
        **environment(device),
        "run_dir": str(path),
    }
    if not device.group.main:
        return 0
    report.write(path, result, verdict, dataset, source, logits)
    if cfg.format is Format.table:
        print(report.page(result, verdict, dataset.classes, brief=cfg.sweep.dir is not None))
    else:
        show(result, cfg.format, in_sweep=cfg.sweep.dir is not None)
    return 0


def directory(cfg: EvaluateConfig, judged: list[Judged], dataset: data.Dataset) -> Path:
    """Where the results go; made now, so that a place that cannot be written to is known before the work."""
    names = "+".join(sources.short_name(one.weights.source) for one in judged)
    path = path_for("evaluate", cfg, run_directory.slug([f"{names}-{dataset.name}"]))
    run_directory.make_for_results(path)
    cfg.run.dir = str(path)
    return path


def identity(judged: list[Judged], dataset: data.Dataset) -> dict[str, Any]:
    """Of what the numbers are; sizes are those of all nets together, for one view."""
    sizes = [complexity(one.model, one.spec) for one in judged]
    single = judged[0].weights if len(judged) == 1 else None
    return {
        "model": "+".join(str(one.spec.model["name"]) for one in judged),
        "arguments": {k: v for k, v in judged[0].spec.model.items() if k != "name"} if single else None,
        "data": dataset.name,
        "weights": single.source if single else [one.weights.source for one in judged],
        "epochs": single.epochs if single else None,
        "seed": (single.config or {}).get("seed") if single else None,
        "trained": (single.config or {}).get("run", {}).get("overrides") if single else None,
        **{key: sum(size[key] for size in sizes) for key in sizes[0]},
    }


def wheres(given: Any) -> list[str]:
    found = given if isinstance(given, list) else [given]
    if not found or not all(isinstance(where, str) for where in found):
        raise UserError("weights: give a run, a file, zoo:NAME or imagenet; or a list of such, as weights=[a,b]")
    return found


def data_config(cfg: EvaluateConfig, loaded: list[Weights]) -> DataConfig:
    """The data that the (first) net was trained on, apart from what the command line says."""
    config = next((one.config for one in loaded if one.config), None)
    trained = asdict(from_plain(DataConfig, config["data"])) if config else {}
    given = cfg.data
    said = {item.name: value for item in fields(given) if (value := getattr(given, item.name)) != MISSING}
    if "name" not in trained | said:
        raise UserError(f"{loaded[0].source} does not say on which data: add data=…, as in data=cifar10")
    if not trained and (unsaid := [item.name for item in fields(given) if item.name not in said]):
        raise UserError(f"data.{unsaid[0]} has no value: choose the data by name, as in data={said['name']}")
    return DataConfig(**{**trained, **said})


def ready(cfg: EvaluateConfig, loaded: Weights, dataset: data.Dataset, workers: int | None, device: Runtime) -> Judged:
    """The net, and how it is asked about this data."""
    prepare = prepared(cfg, loaded, dataset)
    model, known, _ = load.ready(loaded, cfg.model, prepare, cfg.weights_rename, cfg.weights_skip)
    check_classes(known, dataset, loaded.source)
    dataset = data.with_channels(dataset, known.input.in_channels)
    views = evaluation.views(cfg.crop, model, known)
    return Judged(
        weights=loaded,
        model=model,
        spec=known,
        views=views,
        member=evaluation.member(model, views, known, device, compile=cfg.compile),
        reading=Reading(
            source=dataset.val if cfg.split is Split.val else dataset.train,
            batch_size=cfg.batch_size,
            workers=workers,
        ),
    )


def prepared(cfg: EvaluateConfig, loaded: Weights, dataset: data.Dataset) -> PrepareConfig:
    """How images are prepared is the net's own affair, whatever the data's file says, but for what was typed. A net
    that does not say so is given what the data says."""
    typed = {override.partition("=")[0] for override in cfg.run.overrides}
    keys = ("image_size", "crop_ratio", "interpolation", "mean", "std")
    known = {key: getattr(cfg.data, key) if f"data.{key}" in typed else None for key in keys}
    if loaded.spec is None:
        of_data = {"crop_ratio": dataset.crop_ratio, "interpolation": dataset.interpolation,
                   "mean": list(dataset.mean), "std": list(dataset.std)}  # fmt: skip
        known |= {key: value for key, value in of_data.items() if known[key] is None}
    return PrepareConfig(**known, classes=list(dataset.classes) if loaded.spec is None else None)


def check_classes(known: ModelSpec, dataset: data.Dataset, source: str) -> None:
    """UserError where the net's answers would not be the data's classes."""
    if list(dataset.classes) != known.labels:
        ours, theirs = len(known.labels), len(dataset.classes)
        first = next((pair for pair in zip(known.labels, dataset.classes, strict=False) if pair[0] != pair[1]), None)
        how = (
            f"{ours:,} classes, the data {theirs:,}"
            if ours != theirs or not first
            else f"'{first[0]}' where the data has '{first[1]}'"
        )
        raise UserError(f"{source} was trained for other classes than those of {dataset.name}: it has {how}")


def shifted(cfg: EvaluateConfig, judged: Judged) -> dict[str, Any] | None:
    """How robust the net is to translations, where that was asked for; by the central crop."""
    if cfg.shift is None:
        return None
    known, member = judged.spec, judged.member
    if cfg.shift >= known.input.image_size:
        raise UserError(f"shift={cfg.shift} moves everything out of an image of {known.input.image_size} pixels")
    shifts = data.Shifts(size=known.input.image_size, scale=round(known.input.image_size / known.input.crop_ratio),
                         interpolation=known.input.interpolation, pixels=cfg.shift)  # fmt: skip
    if judged.views.dense:
        member = replace(member, net=judged.model)
    with evaluation.progress(len(judged.reading.source), what="shifted") as advance:
        return asdict(evaluation.robustness(member, shifts, judged.reading, advance))


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
