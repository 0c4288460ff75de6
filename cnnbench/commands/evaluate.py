"""`cnnbench evaluate`: exact top-1 and top-5 error of a trained net."""

import time
from dataclasses import asdict, fields, replace
from pathlib import Path

from omegaconf import MISSING

from cnnbench import checkpoint, data, models, plots, results, runs, runtime, weights
from cnnbench.checkpoint import Inference
from cnnbench.config import DataConfig, EvaluateConfig, Split, TrainConfig, restore
from cnnbench.engine import evaluate
from cnnbench.errors import UserError
from cnnbench.tasks.classification import Classification


def run(cfg: EvaluateConfig) -> int:
    """Evaluate, write result.json and the confusion matrix, print the headline."""
    device = runtime.setup(cfg.device, cfg.precision.value, seed=0)
    file = checkpoint.find(cfg.weights)
    content = checkpoint.load(file)
    loaded = weights.load(cfg.weights)
    model, inference = weights.build(loaded), Inference(**content["inference"])
    trained = restore(TrainConfig, content["config"])
    data_cfg = overlay(trained.data, cfg.data)
    dataset = data.load_dataset(data_cfg)
    check_fits(inference, dataset, file)
    inference = replace(
        inference,
        mean=data_cfg.mean or inference.mean,
        std=data_cfg.std or inference.std,
        image_size=data_cfg.image_size or inference.image_size,
    )
    models.check_image_size(model, inference.image_size)
    batches = data.eval_loader(
        dataset.val if cfg.split is Split.val else dataset.train,
        dataset,
        image_size=inference.image_size,
        batch_size=cfg.batch_size,
        workers=data_cfg.workers,
    )
    net = runtime.compiled(device.place(model), cfg.compile)
    normalize = runtime.Normalize(device, inference.mean, inference.std)
    begin = time.perf_counter()
    metrics, confusion = evaluate(net, batches.epoch(0), device, normalize, Classification(), len(inference.classes))
    elapsed = time.perf_counter() - begin

    path = runs.directory("evaluate", cfg, f"{source_name(file)}-{dataset.name}")
    if (path / "config.yaml").exists():
        raise UserError(f"{path} holds a training: give another run.dir")
    path.mkdir(parents=True, exist_ok=True)
    cfg.run.dir = str(path)
    result = {
        **asdict(metrics),
        "split": dataset.split if cfg.split is Split.val else "train",
        "crop": results.crop(inference.image_size, dataset.crop_ratio),
        "model": trained.model["name"],
        "data": dataset.name,
        "weights": str(file),
        "epochs": content["progress"]["epoch"],
        "seed": trained.seed,
        **results.complexity(model, inference),
        "images_per_second": metrics.n / elapsed,
        "wall_seconds": elapsed,
        **results.environment(device),
        "run_dir": str(path),
    }
    plots.confusion_matrix(
        confusion,
        inference.classes,
        path / "confusion_matrix.png",
        f"{result['model']} on {result['data']}, {result['split']}",
    )
    runs.write_json(path / "result.json", result)
    results.show(result, cfg.format, in_sweep=cfg.sweep.dir is not None)
    return 0


def source_name(file: Path) -> str:
    """What to call the weights: their run and which of its checkpoints, or their file."""
    run = file.parent.parent.name if file.parent.name == "checkpoints" else file.parent.name
    return runs.slug([run, *([] if file.stem == "last" else [file.stem])])


def overlay(trained_on: DataConfig, given: DataConfig) -> DataConfig:
    """The data the net was trained on, apart from what the command line says."""
    said = {item.name: value for item in fields(given) if (value := getattr(given, item.name)) != MISSING}
    return DataConfig(**{**asdict(trained_on), **said})


def check_fits(inference: Inference, dataset: data.Dataset, file: Path) -> None:
    """UserError where the net's answers would not be the data's classes, or its input not their images."""
    if dataset.in_channels != inference.in_channels:
        raise UserError(
            f"{file} takes {inference.in_channels} channels, the images of {dataset.name} have {dataset.in_channels}"
        )
    if list(dataset.classes) != inference.classes:
        ours, theirs = len(inference.classes), len(dataset.classes)
        first = next(
            (pair for pair in zip(inference.classes, dataset.classes, strict=False) if pair[0] != pair[1]), None
        )
        how = (
            f"{ours} classes, the data {theirs}"
            if ours != theirs or not first
            else f"'{first[0]}' where the data has '{first[1]}'"
        )
        raise UserError(f"{file} was trained for other classes than those of {dataset.name}: it has {how}")
