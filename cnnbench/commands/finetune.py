"""`cnnbench finetune`: a net that has learnt already, for other images, by the strategy that suits them."""

import copy
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from cnnbench import data, tasks
from cnnbench.config import effects
from cnnbench.config.arguments import command_line, typed_keys
from cnnbench.config.commands import FinetuneConfig
from cnnbench.config.sections import Format, Strategy
from cnnbench.data.model_spec import ModelSpec
from cnnbench.output.figure import save_figure
from cnnbench.output.tables import for_people
from cnnbench.runs.result import select_on
from cnnbench.runs.run_directory import path_for
from cnnbench.runtime.device import create_runtime
from cnnbench.sweeps.pruning import trial_pruner
from cnnbench.training import debug
from cnnbench.training.callbacks import Pruning
from cnnbench.training.run import TrainingJob, check_training, net_and_data_name, run_training
from cnnbench.transfer.choose import StrategyAdvice, choose_strategy
from cnnbench.transfer.comparison import draw_comparison, worth_drawing
from cnnbench.transfer.features import FeatureExtractor
from cnnbench.transfer.inputs import as_heard
from cnnbench.transfer.keep_better import KeepBetter
from cnnbench.transfer.pretrained import choose, prepare
from cnnbench.transfer.strategies import check_task, prepare_transfer
from cnnbench.transfer.trial import summary_of_folds, try_fitted, try_trained
from cnnbench.utils.console import Log, say, warn_if_undrawn
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import json_text, read_json
from cnnbench.utils.named_files import typed_path
from cnnbench.utils.text import slug
from cnnbench.visual.training_pictures import TrainingPictures
from cnnbench.weights.sources import Weights


def run(cfg: FinetuneConfig) -> int:
    """Choose the strategy, prepare the net for it, train or fit. Returns the exit code."""
    with Log() as log:
        return _run(debug.small(cfg), log)


def _run(cfg: FinetuneConfig, log: Log) -> int:
    begin = time.perf_counter()
    stream = for_people(cfg.format)
    runtime = create_runtime(cfg.device, cfg.precision.value, cfg.seed, cfg.deterministic, together=True)
    check_training(cfg)
    dataset = data.load_dataset(cfg.data)
    check_task(cfg.transfer, cfg.task or dataset.task)
    given = choose(cfg)
    dataset = as_heard(cfg, given, dataset, stream)
    dataset = debug.few_images(cfg, tasks.complete(cfg, dataset))
    model, spec, dataset = prepare(cfg, given, dataset, stream)
    extractor = FeatureExtractor(
        model,
        dataset,
        spec,
        runtime,
        folder=typed_path(cfg.run.root) / "features" if cfg.transfer.cache else None,
        workers=cfg.data.workers,
        stream=stream,
    )
    advised = decide(cfg, extractor, dataset, stream)
    if not cfg.transfer.run:
        show_advice(advised, cfg)
        return 0
    if advised and cfg.transfer.name is Strategy.auto:
        code, advised = try_both(cfg, given, extractor, advised)
        if code:
            return code
    about: dict[str, Any] = {
        "strategy": cfg.transfer.name.value,
        "weights": given.source if given else None,
        "advice": advised.as_dict() if advised else None,
    }
    if cfg.folds and not cfg.lr_find:
        code, about["cross_validation"] = cross_validate(cfg, given, extractor, advised, about)
        if code:
            return code
    ready = job(cfg, extractor, spec, advised, about)
    return run_training(cfg, replace(ready, spent=time.perf_counter() - begin, log=log))


# The strategy


def decide(
    cfg: FinetuneConfig, extractor: FeatureExtractor, dataset: data.Dataset, stream: TextIO
) -> StrategyAdvice | None:
    """cfg with a strategy in the place of `auto`, and what it rests on."""
    chosen = cfg.transfer
    if not chosen.run and chosen.name is not Strategy.auto:
        raise UserError(
            f"transfer.run=false gives advice, which transfer={chosen.name.value} needs none of: leave it out"
        )
    if chosen.name is not Strategy.auto:
        return None
    if not tasks.find(dataset.task).linear_head:
        if not chosen.run:
            raise UserError(f"transfer.run=false: for {dataset.task} there is no advice but transfer=full")
        say(f"transfer=auto: for {dataset.task} all stages train, as with transfer=full", stream)
        chosen.name = Strategy.full
        return None
    if chosen.run and cfg.freeze not in (None, "none", []):
        say(f"freeze={cfg.freeze} says what trains: transfer=full with it", stream)
        chosen.name = Strategy.full
        return None
    advised = choose_strategy(extractor, dataset, chosen.many)
    if advised.candidates and not advised.a_lot:
        advised = advised.after(try_fitted(cfg, extractor, advised))
    elif advised.candidates and cfg.lr_find:
        say("lr_find=true: for transfer=full, before partial and full are tried", stream)
        advised = replace(advised, strategy=Strategy.full)
    settle(cfg, advised)
    say("\n".join([advised.text(_command(cfg)), *idle(cfg)]), stream)
    return advised


def settle(cfg: FinetuneConfig, advised: StrategyAdvice) -> None:
    """cfg with the advised strategy and, where it has one, its stage."""
    cfg.transfer.name = advised.strategy
    if advised.strategy is Strategy.deep_features:
        cfg.transfer.layer = advised.earlier


def idle(cfg: FinetuneConfig) -> list[str]:
    """Sentences on typed settings that the strategy does not read, once `auto` has read its own; the others were said
    at the start."""
    open_yet, own = cfg.transfer.name is Strategy.auto, f"only with transfer={Strategy.auto.value}"
    if open_yet:
        return []
    return [text for text in effects.idle(cfg, "transfer.name") if not text.endswith(own)]


def _command(cfg: FinetuneConfig) -> str:
    """The command line that the advice stands for."""
    kept = [text for text in cfg.run.overrides if text.partition("=")[0] not in ("transfer", "transfer.run")]
    return command_line("finetune", [*kept, f"transfer={cfg.transfer.name.value}"])


def show_advice(advised: StrategyAdvice | None, cfg: FinetuneConfig) -> None:
    """The advice alone on stdout; the table has been shown already."""
    if advised and cfg.format is not Format.table:
        print(json_text({**advised.as_dict(), "command": _command(cfg)}))


def job(
    cfg: FinetuneConfig,
    extractor: FeatureExtractor,
    spec: ModelSpec,
    advised: StrategyAdvice | None,
    about: dict[str, Any],
) -> TrainingJob:
    plan = prepare_transfer(cfg, extractor, spec, advised, about)
    if plan.probed:
        about["select_on"] = select_on(cfg, extractor.dataset.split, fitted_head=True)
    return TrainingJob(
        runtime=extractor.runtime,
        dataset=extractor.dataset,
        model=plan.model,
        spec=plan.spec,
        directory=path_for("finetune", cfg, base_name(cfg)),
        features=plan.features,
        about=about,
        command="finetune",
        callbacks=[
            *([KeepBetter(plan.model)] if plan.probed else []),
            Pruning(trial_pruner(cfg, spec.task)),
            TrainingPictures(),
        ],
    )


def cross_validate(
    cfg: FinetuneConfig,
    given: Weights | None,
    extractor: FeatureExtractor,
    advised: StrategyAdvice | None,
    about: dict[str, Any],
) -> tuple[int, dict[str, Any]]:
    """Each fold of the training images in turn as validation, in `fold1`, `fold2`, … beside the run.

    Returns the exit code of the fold that was cut, else 0, and the errors. Folds that are done are not done again.
    """
    assert cfg.folds is not None
    dataset, stream = extractor.dataset, extractor.stream
    results = []
    for number, indices in enumerate(data.folds(dataset.train, cfg.folds), start=1):
        say(f"fold {number}/{cfg.folds}", stream)
        run = beside(cfg, "folds", f"fold{number}")
        code = train_on_part(cfg, given, extractor, advised, about, indices, run, f"fold {number}")
        if code:
            return code, {}
        results.append(read_json(run / "result.json"))
    text, found = summary_of_folds(results, tasks.find(dataset.task).metrics[0])
    say(f"cross-validation: {text} over {cfg.folds} folds of "
        f"{len(dataset.train):,} images; now on all of them", stream)  # fmt: skip
    return 0, {**found, "n": len(dataset.train)}


def try_both(
    cfg: FinetuneConfig, given: Weights | None, extractor: FeatureExtractor, advised: StrategyAdvice
) -> tuple[int, StrategyAdvice]:
    """Exit code of a trial that was cut, else 0, and the advice after the candidates were trained, in `partial` and
    `full` beside the run. cfg has the better one."""

    def train(strategy: Strategy, others: Tensor, held: Tensor) -> tuple[int, Path]:
        one, run = copy.deepcopy(cfg), beside(cfg, "tried", strategy.value)
        one.transfer.name = strategy
        about: dict[str, Any] = {"strategy": strategy.value, "weights": given.source if given else None}
        say(f"trying transfer={strategy.value}", extractor.stream)
        return train_on_part(one, given, extractor, advised, about, (others, held), run, "held-out"), run

    code, tried = try_trained(extractor, advised, train)
    if not code:
        advised = advised.after(tried)
        settle(cfg, advised)
        say("\n".join([advised.trial(), *idle(cfg)]), extractor.stream)
    return code, advised


def beside(cfg: FinetuneConfig, what: str, name: str) -> Path:
    """Run directory `RUN-what/name`."""
    directory = path_for("finetune", cfg, base_name(cfg))
    return directory.with_name(f"{directory.name}-{what}") / name


def train_on_part(
    cfg: FinetuneConfig,
    given: Weights | None,
    extractor: FeatureExtractor,
    advised: StrategyAdvice | None,
    about: dict[str, Any],
    indices: tuple[Tensor, Tensor],
    run: Path,
    split: str,
) -> int:
    """Exit code of a training on the first of the training images' indices, which is judged by the second."""
    one, dataset = copy.deepcopy(cfg), extractor.dataset
    one.folds, one.run.dir, one.format = None, str(run), Format.table
    one.sweep.trial = None  # a search judges the training on all of the images, not on parts of them
    train, val = (dataset.train.subset(part) for part in indices)
    part = replace(dataset, train=train, val=val, split=split)
    model, spec, _ = prepare(one, given, dataset, None)
    below = extractor.on(model, part, {id(source): part for source, part in zip((train, val), indices, strict=True)})
    with redirect_stdout(extractor.stream):
        return run_training(one, job(one, below, spec, advised, dict(about)))


def base_name(cfg: FinetuneConfig) -> str:
    """`resnet20-digits`, with the weights where they are not the net's usual ones."""
    source = [Path(cfg.weights).stem] if cfg.weights and "weights" in typed_keys(cfg) else []
    return slug(["-from-".join([net_and_data_name(cfg), *source])])


# Sweeps


def after_sweep(sweep: Path, run_dirs: list[Path]) -> None:
    """Draw error against images and seconds where a sweep ran over several amounts of data."""
    results = [result for path in run_dirs if (result := read_json(path / "result.json"))]
    if worth_drawing(results):
        path = sweep / "transfer.png"
        with warn_if_undrawn(path.name):
            save_figure(draw_comparison(results), path)
            print(f"error against images and seconds -> {path}", file=sys.stderr)
