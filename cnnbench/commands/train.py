"""`cnnbench train`: a net, a data set, a recipe; what remains is a run directory."""

from typing import TextIO

from cnnbench import data, models, tasks
from cnnbench.config.arguments import typed_keys
from cnnbench.config.commands import TrainConfig
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.layers import Net
from cnnbench.output.tables import for_people
from cnnbench.runs.run_directory import path_for
from cnnbench.runtime.device import create_runtime
from cnnbench.sweeps.pruning import trial_pruner
from cnnbench.training import debug, freezing
from cnnbench.training.augmentation import suit_to_size
from cnnbench.training.callbacks import Pruning
from cnnbench.training.run import TrainingJob, check_training, net_and_data_name, run_training
from cnnbench.utils.console import Log, say
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural
from cnnbench.visual.training_pictures import TrainingPictures
from cnnbench.weights import merge, sources, variants


def run(cfg: TrainConfig) -> int:
    """Train, or go on with a training that was cut, or say that it is done. Returns the exit code."""
    with Log() as log:
        return _run(debug.small(cfg), log)


def _run(cfg: TrainConfig, log: Log) -> int:
    runtime = create_runtime(cfg.device, cfg.precision.value, cfg.seed, cfg.deterministic, together=True)
    check_training(cfg)
    dataset = debug.few_images(cfg, tasks.complete(cfg, data.load_dataset(cfg.data)))
    model, spec = build(cfg, dataset, for_people(cfg.format))
    if note := suit_to_size(cfg, spec.input.image_size):
        say(note, for_people(cfg.format))
    freezing.freeze(model, cfg.freeze, cfg.weights_skip)
    return run_training(
        cfg,
        TrainingJob(
            runtime=runtime,
            dataset=dataset,
            model=model,
            spec=spec,
            directory=path_for("train", cfg, net_and_data_name(cfg)),
            log=log,
            callbacks=[Pruning(trial_pruner(cfg, spec.task)), TrainingPictures()],
        ),
    )


def build(cfg: TrainConfig, dataset: data.Dataset, stream: TextIO) -> tuple[Net, ModelSpec]:
    """The net for this data set, initialised or with the weights asked for, and what it takes to use it later."""
    arguments = {key: value for key, value in cfg.model.items() if key not in ("name", "in_channels")}
    if "num_classes" in arguments:
        raise UserError(
            f"model.num_classes follows from the data: {dataset.name} has {plural(len(dataset.classes), 'class')}"
        )
    channels = cfg.model.get("in_channels") or dataset.in_channels
    if channels != dataset.in_channels:
        raise UserError(f"model.in_channels={channels}, but the images of {dataset.name} have {dataset.in_channels}")
    model = models.build_for(cfg.model, outputs=dataset.outputs, in_channels=channels)
    image_size = cfg.data.image_size or models.usual_size(model, dataset.image_size)
    models.check_image_size(model, image_size)
    for note in models.size_notes(model, image_size):
        say(note, stream)
    if cfg.weights is not None:
        loaded = sources.load(cfg.weights, {"name": cfg.model["name"], **arguments}, cfg.weights_key)
        merge.check_variant(cfg.model, loaded)
        others = loaded.spec is not None and loaded.spec.labels != dataset.classes
        report = merge.merge(model, loaded, cfg.weights_rename, cfg.weights_skip, new_head=others)
        say(report.text(), stream)
        if loaded.spec is None:
            say("\n".join(variants.assumptions(loaded.source, cfg.model, dataset.name, typed_keys(cfg))), stream)
    return model, ModelSpec.of({"name": cfg.model["name"], **arguments}, dataset, image_size)
