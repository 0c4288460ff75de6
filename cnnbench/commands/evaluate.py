"""`cnnbench evaluate`: the worth of a trained net's answers, by a named protocol."""

import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from cnnbench import data, tasks
from cnnbench.config import effects
from cnnbench.config.arguments import typed_keys
from cnnbench.config.commands import EvaluateConfig
from cnnbench.config.data_names import data_name
from cnnbench.config.parsing import from_plain
from cnnbench.config.sections import DataConfig, Format, PrepareConfig, Split
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.layers import Net
from cnnbench.output.tables import for_people, render
from cnnbench.runs import run_directory
from cnnbench.runs.result import complexity, described, environment, selected_by, show
from cnnbench.runs.run_directory import path_for
from cnnbench.runtime.device import Runtime, create_runtime
from cnnbench.tasks.base import Task
from cnnbench.tasks.measurement import Judged, Measurement, Reading, measuring
from cnnbench.tasks.passes import measure_net
from cnnbench.tasks.trial import check_unknown, rows, try_variants, verdict
from cnnbench.utils.console import reason, say, warn, warn_in_result
from cnnbench.utils.errors import RunError, UserError
from cnnbench.utils.exit_codes import DONE, FAILED
from cnnbench.utils.files import write_json
from cnnbench.utils.named_files import typed_path
from cnnbench.utils.text import slug
from cnnbench.weights import fitted, load, sources, variants
from cnnbench.weights.sources import Weights


def run(cfg: EvaluateConfig) -> int:
    """Evaluate, leave result.json, tables and pictures behind, print what was found."""
    runtime = create_runtime(cfg.device, cfg.precision and cfg.precision.value, seed=0, together=True)
    loaded = [sources.load(where, cfg.model, cfg.weights_key) for where in sources.places(cfg.weights)]
    if cfg.calibrate:
        check_place(cfg, loaded)
    runtime = measuring(runtime, cfg.precision, loaded)
    data_cfg = data_config(cfg, loaded)
    if runtime.group.main:
        tell_idle(cfg, data_cfg)
    dataset = judged_data(cfg, data_cfg, loaded)
    if cfg.try_variants:
        check_unknown(loaded)
        return tried(cfg, loaded[0], dataset, runtime)
    judged = [ready(cfg, one, dataset, data_cfg.workers) for one in loaded]
    task = tasks.find(same_task(judged)).of(judged[0].spec)
    judged = [in_own_classes(one, cfg.split) for one in judged]
    tasks.own_keys(cfg, task)
    task = task.suited(judged[0].dataset, judged[0].reading.source, runtime)
    task.check_measure(judged, cfg)
    path = Path(runtime.group.broadcast(lambda: str(directory(cfg, judged, dataset))))
    found = task.measure(judged, cfg, runtime) or measure_net(task, judged[0], runtime)
    if not runtime.group.main:
        return DONE
    result = {
        **found.result,
        "skipped_images": len(dataset.unreadable),
        "left_out": dataset.left_out,
        "split": dataset.chosen(cfg.split)[0],
        "select_on": selected(loaded),
        "warnings": [*dataset.notes, *([warning] if (warning := doubts(task, judged[0], found)) else [])],
        **identity(judged, data_name(dataset.name, data_cfg.root, data_cfg.file)),
        **described(task, found.result),
        "images_per_second": found.n / found.seconds,
        "wall_seconds": found.seconds,
        **environment(runtime),
        "run_dir": str(path),
    }
    if found.fitted:
        result["stored"] = store(judged[0].weights, found.fitted, result)
    leave_behind(path, result, found)
    if cfg.format is Format.table:
        print(found.page(result, cfg.sweep.dir is not None))
    else:
        show(result, cfg.format, in_sweep=cfg.sweep.dir is not None)
    return FAILED if found.fitted and not result["stored"] else DONE


def tell_idle(cfg: EvaluateConfig, judged: DataConfig) -> None:
    """Warn of typed settings that the data do not read, where the weights said which data they are."""
    if cfg.data.name == MISSING:
        for text in effects.idle(replace(cfg, data=judged), "data.name"):
            warn(text)


def check_place(cfg: EvaluateConfig, loaded: list[Weights]) -> None:
    """UserError, before the work, where what is fitted could not be stored."""
    if cfg.try_variants:
        raise UserError("try_variants only tries what fits: leave calibrate out")
    for one in loaded:
        with run_directory.at_rest(fitted.place(one, cfg.weights_key)):
            pass


def store(weights: Weights, facts: dict[str, Any], result: dict[str, Any]) -> str | None:
    """Store what was fitted with the weights. Returns their file; where that fails, the result says so: None."""
    path = Path(weights.source)
    try:
        with run_directory.at_rest(path):
            fitted.store(weights, facts)
    except (UserError, RunError, OSError) as error:
        warn_in_result(
            result, f"what was fitted is not stored: {error if isinstance(error, RunError) else reason(error)}"
        )
        return None
    return str(path)


def leave_behind(path: Path, result: dict[str, Any], found: Measurement) -> None:
    """Write result.json first: no table or picture may cost it. UserError where it cannot be written."""
    try:
        write_json(path / "result.json", result)
        found.write(path, result)
        if result["warnings"]:
            write_json(path / "result.json", result)
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}") from None


def tried(cfg: EvaluateConfig, loaded: Weights, dataset: data.Dataset, runtime: Runtime) -> int:
    """Say which variant of the net, and which normalisation, fits the weights. Returns the exit code."""
    prepare = prepared(cfg, loaded, dataset)

    def build(model: dict[str, Any] | None) -> tuple[Net, ModelSpec]:
        names = cfg.weights_rename, cfg.weights_skip
        return load.ready(loaded, model, prepare, *names, of_data=dataset.classes)[:2]

    spec = build(cfg.model)[1]
    task = tasks.find(dataset.task).of(spec)
    given = data.with_channels(dataset, spec.input.in_channels)
    given, _ = data.in_classes_of(given, spec.labels, loaded.source)
    source = given.chosen(cfg.split)[1]
    task = task.suited(given, source, runtime)
    attempts = try_variants(task, spec, build, given, source, runtime)
    if runtime.group.main:
        print(render(rows(task, attempts), cfg.format))
        say(verdict(task, attempts, task.guessing_loss(spec)), for_people(cfg.format))
    return DONE


def doubts(task: Task, one: Judged, found: Measurement) -> str:
    """Warning, said and returned, where weights from elsewhere are no better than guessing; empty where they are."""
    guessing = task.guessing_loss(one.spec)
    if one.weights.config is not None or guessing is None or found.result["loss"] < guessing:
        return ""
    text = f"{one.weights.source}: no better than guessing (loss {found.result['loss']:.2f}, guessing {guessing:.2f})"
    if one.weights.spec is None:
        text += "; if these weights were trained, their images were normalised otherwise, or their net is a variant: "
        text += "try_variants=true tells which"
    else:
        text += ": are these its classes and its images?"
    warn(text)
    return text


def same_task(judged: list[Judged]) -> str:
    """Name of the nets' task. UserError where it is not one and the same."""
    first = judged[0]
    for one in judged:
        if one.spec.task != first.spec.task:
            raise UserError(
                f"{first.weights.source} is for {first.spec.task}, {one.weights.source} for {one.spec.task}"
            )
    return first.spec.task


def in_own_classes(one: Judged, split: Split) -> Judged:
    """A net with the data in its own classes, which are matched by their names."""
    dataset, note = data.in_classes_of(one.dataset, one.spec.labels, one.weights.source)
    if dataset is one.dataset:
        return one
    say(note, sys.stderr)
    return replace(one, dataset=dataset, reading=replace(one.reading, source=dataset.chosen(split)[1]))


def directory(cfg: EvaluateConfig, judged: list[Judged], dataset: data.Dataset) -> Path:
    """Directory of the results; made now, so that a place that cannot be written to is known before the work."""
    names = "+".join(sources.short_name(one.weights.source) for one in judged)
    path = path_for("evaluate", cfg, slug([f"{names}-{_place(cfg, dataset)}"]))
    run_directory.make_for_results(path)
    cfg.run.dir = str(path)
    return path


def _place(cfg: EvaluateConfig, dataset: data.Dataset) -> str:
    """Name of the data: of a folder that was typed its last two parts, so that two folders leave two results."""
    if dataset.name == "list":
        return data_name(dataset.name, file=cfg.data.file)
    if dataset.name != "folder" or not cfg.data.root or "data.root" not in typed_keys(cfg):
        return dataset.name
    return "-".join(part for part in typed_path(cfg.data.root).parts[-2:] if part.strip("./")) or dataset.name


def identity(judged: list[Judged], data_is: str) -> dict[str, Any]:
    """Identity of nets and data; sizes are the sum over all nets, for one view."""
    sizes = [complexity(one.model, one.spec) for one in judged]
    single = judged[0].weights if len(judged) == 1 else None
    return {
        "model": "+".join(str(one.spec.model["name"]) for one in judged),
        "arguments": {k: v for k, v in judged[0].spec.model.items() if k != "name"} if single else None,
        "data": data_is,
        "weights": single.source if single else [one.weights.source for one in judged],
        "epochs": single.epochs if single else None,
        "seed": (single.config or {}).get("seed") if single else None,
        "trained": (single.config or {}).get("run", {}).get("overrides") if single else None,
        **{key: sum(size[key] for size in sizes) for key in sizes[0]},
    }


def data_config(cfg: EvaluateConfig, loaded: list[Weights]) -> DataConfig:
    """The data that the (first) net was trained on, apart from what the command line says."""
    config = next((one.config for one in loaded if one.config), None)
    trained = asdict(from_plain(DataConfig, config["data"])) if config else {}
    given, typed = cfg.data, typed_keys(cfg)
    said = {
        item.name: value
        for item in fields(given)
        if (value := getattr(given, item.name)) != MISSING and (item.default is MISSING or f"data.{item.name}" in typed)
    }
    if "data" in typed:
        said["source"] = given.source
    if "name" not in trained | said:
        raise UserError(f"{loaded[0].source} does not say on which data: add data=…, as in data=cifar10")
    needed = [item.name for item in fields(given) if item.default == MISSING]
    if not trained and (unsaid := [name for name in needed if name not in said]):
        raise UserError(f"data.{unsaid[0]} has no value: choose the data by name, as in data={said['name']}")
    heard = next((one.spec.extra for one in loaded if one.spec is not None), {})
    return data.as_trained(DataConfig(**{**trained, **said}), heard, typed)


def selected(loaded: list[Weights]) -> str | None:
    """What the nets are of their trainings, and which images chose it, where that is known."""
    each = dict.fromkeys(selected_by(Path(one.source)) for one in loaded)
    return "; ".join(filter(None, each)) or None


def judged_data(cfg: EvaluateConfig, data_cfg: DataConfig, loaded: list[Weights]) -> data.Dataset:
    """The data that are judged. What of them is not is said."""
    first = next((one for one in loaded if one.config), loaded[0])
    trained = from_plain(DataConfig, first.config["data"]) if first.config else None
    typed = typed_keys(cfg)
    dataset = data.load_judged(data_cfg, trained, first.identity, typed, test=cfg.split is Split.test)
    dataset.chosen(cfg.split)
    if dataset.kept and cfg.split is Split.val and "split" not in typed:
        say(f"not judged: {dataset.kept} (split=test)", sys.stderr)
    return dataset


def ready(cfg: EvaluateConfig, loaded: Weights, dataset: data.Dataset, workers: int | None) -> Judged:
    """A net, and how it is asked about this data."""
    prepare = prepared(cfg, loaded, dataset)
    model, known, notes = load.ready(
        loaded, cfg.model, prepare, cfg.weights_rename, cfg.weights_skip, of_data=dataset.classes
    )
    model, known, more = tasks.find(dataset.task).judging(model, known, loaded.source)
    notes += more
    if loaded.spec is None:
        notes += variants.normalised(dataset.name, typed_keys(cfg))
    for note in notes:
        say(note, sys.stderr)
    dataset = tasks.adopt(dataset, known.task, {**known.model, "in_channels": known.input.in_channels})
    dataset = data.with_channels(dataset, known.input.in_channels)
    reading = Reading(source=dataset.chosen(cfg.split)[1], batch_size=cfg.batch_size, workers=workers)
    return Judged(weights=loaded, model=model, spec=known, dataset=dataset, reading=reading)


def prepared(cfg: EvaluateConfig, loaded: Weights, dataset: data.Dataset) -> PrepareConfig:
    """Preparation of images: the net's own, whatever the data's file says, except for what was typed. A net that does
    not say so takes the data's."""
    typed = typed_keys(cfg)
    keys = ("image_size", "crop_ratio", "interpolation", "mean", "std")
    known = {key: getattr(cfg.data, key) if f"data.{key}" in typed else None for key in keys}
    if loaded.spec is None:
        of_data = {"crop_ratio": dataset.crop_ratio, "interpolation": dataset.interpolation,
                   "mean": list(dataset.mean), "std": list(dataset.std)}  # fmt: skip
        known |= {key: value for key, value in of_data.items() if known[key] is None}
    return PrepareConfig(**known, classes=None)
