"""`cnnbench visualize`: what a net has learned, and what a training will see, as pictures and one page."""

import sys
from dataclasses import fields
from functools import partial
from typing import Any

import torch

from cnnbench import data, models, tasks
from cnnbench.config.arguments import command_line, typed_keys
from cnnbench.config.commands import VisualizeConfig
from cnnbench.config.data_names import data_name
from cnnbench.config.parsing import from_plain, to_plain
from cnnbench.config.sections import AugmentConfig, DataConfig, Format, OptimConfig, ScheduleConfig, Split
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.meta_kernels import Shapes
from cnnbench.output.tables import render
from cnnbench.runs.run_directory import path_for
from cnnbench.runtime.device import create_runtime
from cnnbench.tasks.classification import temperature
from cnnbench.tasks.measurement import measuring
from cnnbench.training.augmentation import suit_to_size
from cnnbench.utils.console import reason, say
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import json_text, write_json
from cnnbench.utils.format import plural
from cnnbench.utils.text import slug
from cnnbench.visual import layer_view, registry
from cnnbench.visual.context import PlannedTraining, VisualizeContext, as_list
from cnnbench.visual.html_page import Picture, write_page
from cnnbench.weights import load, sources
from cnnbench.weights.sources import Weights

PLANNED: dict[str, type] = {"augment": AugmentConfig, "optim": OptimConfig, "schedule": ScheduleConfig}


def run(cfg: VisualizeConfig) -> int:
    """Draw what is asked for; the pictures, the page and TensorBoard's events lie in one directory. Returns 0."""
    names = registry.chosen_pictures(cfg.what)
    if cfg.weights is None and (learned := [name for name in names if name in registry.NEEDS_WEIGHTS]):
        raise UserError(
            f"what={learned[0]} looks at a trained net: add weights=…, as in weights=outputs/train/resnet8-digits"
        )
    context = prepare(cfg)
    drawn: list[Picture] = []
    refused: list[tuple[str, Exception]] = []
    with context:
        for name in names:
            try:
                drawn += pictures(cfg, context, name)
            except Exception as error:
                if cfg.what != registry.ALL:
                    raise
                refused.append((name, error))
    if not drawn:
        raise refused[0][1]
    for name, why in refused:
        print(f"without {name}: {reason(why)}", file=sys.stderr)
    conclude(cfg, context, drawn)
    return 0


def pictures(cfg: VisualizeConfig, context: VisualizeContext, name: str) -> list[Picture]:
    found = []
    for picture in registry.draw_pictures(name, context):
        context.add_to_tensorboard(picture)
        found.append(picture)
        if cfg.format is Format.table:
            print(picture.path, flush=True)
    return found


def prepare(cfg: VisualizeConfig) -> VisualizeContext:
    """The net, if there is one, the data, and where the pictures go. Nothing is written yet."""
    device = create_runtime(cfg.device, cfg.precision and cfg.precision.value, cfg.seed)
    typed = typed_keys(cfg)
    if cfg.weights is None:
        model, spec = None, untrained(cfg)
        source, base = (
            spec.model["name"],
            slug([f"{spec.model['name']}-{data_name(cfg.data.name, cfg.data.root, cfg.data.file)}"]),
        )
        loaded = None
        if "batch" in as_list(cfg.what) and (note := suit_to_size(cfg, spec.input.image_size)):  # as a training does
            say(note, sys.stderr)
    else:
        loaded = sources.load(cfg.weights, cfg.model, cfg.weights_key)
        device = measuring(device, cfg.precision, [loaded])  # so that what=mistakes counts as evaluate does
        if "data.image_size" in typed and cfg.prepare.image_size is None:
            cfg.prepare.image_size = cfg.data.image_size
        model, spec, notes = load.ready(loaded, cfg.model, cfg.prepare, cfg.weights_rename, cfg.weights_skip)
        for note in [*notes, *temperature.note(spec, loaded.source)]:
            print(note, file=sys.stderr)
        model = device.place(layer_view.prepare_model(model))
        layer_view.check_layer_names(model, as_list(cfg.layer))
        source, base = loaded.source, sources.short_name(loaded.source)
    path = path_for("visualize", cfg, base)
    if (path / "config.yaml").exists():
        raise UserError(f"{path} holds a training: give another run.dir")
    cfg.run.dir = str(path)
    known, planned = data_config(cfg, loaded, typed), partial(plan, cfg, loaded, typed)
    known = known and data.as_trained(known, spec.extra if loaded else {}, typed)
    load_data = partial(images_of, cfg, loaded, typed)
    return VisualizeContext(cfg, model, spec, device, path, known, load_data, planned, source)


def untrained(cfg: VisualizeConfig) -> ModelSpec:
    """Spec of the net that these settings would train; without a net, of images as large as the data's own."""
    arguments = {key: value for key, value in (cfg.model or {"name": "no net"}).items() if value is not None}
    dataset = tasks.adopt(data.load_dataset(cfg.data), cfg.task, arguments if cfg.model else {})
    size = cfg.data.image_size or dataset.image_size
    if cfg.model:
        with torch.device("meta"), Shapes():
            net = models.build_for(arguments, outputs=dataset.outputs, in_channels=dataset.in_channels)
        size = cfg.data.image_size or models.usual_size(net, dataset.image_size)
        models.check_image_size(net, size)
    return ModelSpec.of(arguments, dataset, size)


def data_config(cfg: VisualizeConfig, loaded: Weights | None, typed: set[str]) -> DataConfig | None:
    """The data that is typed, else that of the net's training, apart from single keys that are typed."""
    if loaded is None or "data" in typed:
        return cfg.data
    if loaded.config is None:
        return None
    trained: DataConfig = from_plain(DataConfig, loaded.config["data"])
    for item in fields(DataConfig):
        if f"data.{item.name}" in typed:
            setattr(trained, item.name, getattr(cfg.data, item.name))
    return trained


def images_of(cfg: VisualizeConfig, loaded: Weights | None, typed: set[str], known: DataConfig) -> data.Dataset:
    """The data set to look at; a training that is planned has its own splits."""
    test = cfg.split is Split.test
    if loaded is None:
        return data.load_dataset(known, test=test)
    trained = from_plain(DataConfig, loaded.config["data"]) if loaded.config else None
    return data.load_judged(known, trained, loaded.identity, typed, test=test)


def plan(cfg: VisualizeConfig, loaded: Weights | None, typed: set[str]) -> PlannedTraining:
    """The training that these settings would be: that of the weights, apart from what is typed."""
    ours = to_plain(cfg)
    told: dict[str, Any] = {**PLANNED, "epochs": None, "batch_size": None}
    if loaded is not None and loaded.config is not None:
        sections = {key.partition(".")[0] for key in typed} | ({"augment", "epochs"} if "recipe" in typed else set())
        theirs = {key: loaded.config[key] for key in told if key not in sections}
        ours |= {key: {**ours[key], **value} if told[key] else value for key, value in theirs.items()}
        ours["rows"] = [] if sections & {*told, "data"} else sources.rows_of(loaded.source)
    values = {key: from_plain(kind, ours[key]) if kind else ours[key] for key, kind in told.items()}
    if not isinstance(values["batch_size"], int):
        raise UserError(f"batch_size={values['batch_size']}: give a whole number")
    return PlannedTraining(**values, rows=ours.get("rows", []))


def conclude(cfg: VisualizeConfig, context: VisualizeContext, drawn: list[Picture]) -> None:
    """The page with all pictures, the list of them, and where they are."""
    path = context.path
    command = command_line("visualize", cfg.run.overrides) if cfg.run.overrides else ""
    write_page(path / "index.html", f"What {context.title} sees", context.description(), command, drawn)
    rows = [{"what": one.heading, "title": one.title, "caption": one.caption, "file": str(one.path)} for one in drawn]
    write_json(path / "result.json", {"pictures": rows, "page": str(path / "index.html"), "run_dir": str(path)})
    if cfg.format is Format.json:
        print(json_text(rows, ascii=False))
    elif cfg.format is Format.table:
        print(f"{plural(len(drawn), 'picture')} -> {path / 'index.html'}")
    else:
        print(render(rows, cfg.format))
