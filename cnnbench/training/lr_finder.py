"""`lr_find=true`: which learning rate suits this net, these images and this batch? 100 steps, then all is discarded.

The range test of Smith (2017, "Cyclical learning rates"): lr rises exponentially from step to step, and the loss tells
where the net begins to learn, where it learns fastest, and where it goes to pieces.
"""

import math
import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cnnbench.config.commands import TrainConfig
from cnnbench.config.data_names import data_name
from cnnbench.config.sections import Format
from cnnbench.output import plots
from cnnbench.output.tables import render
from cnnbench.runs import result
from cnnbench.training.loop import train_epoch
from cnnbench.training.setup import Parts
from cnnbench.training.state import TrainState
from cnnbench.utils.console import say
from cnnbench.utils.errors import RunError, UserError
from cnnbench.utils.files import json_text, write_json
from cnnbench.utils.format import plural

STEPS = 100
LOWEST, HIGHEST = 1e-3, 100.0  # factors on the lr that is set: of the first step and of the last
WIDTH = 3.0  # steps: standard deviation of the bell that smooths the losses, a seventh of a decade of lr
MEMORY = 0.9  # of the running mean that says when to stop
DIVERGED = 4.0  # times the lowest running mean: no larger lr will do better
LEARNED = 0.98  # of the first loss: a net that gets no lower has not learned
DECADE, SAFETY = 10.0, 3.0


@dataclass(frozen=True)
class Range:
    """Result of a range test. The lists have a value for each step: its lr, its loss, and the loss smoothed."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    steepest: float | None  # the lr at which the smoothed loss falls fastest; None where it does not fall
    lowest: float | None  # the lr at which it is lowest
    stopped: str

    @property
    def candidates(self) -> dict[str, float]:
        """Three lrs, each by the rule that it is named after; empty where the loss does not fall."""
        if self.steepest is None or self.lowest is None:
            return {}
        return {
            "steepest descent": self.steepest,
            "a decade below the lowest loss": self.lowest / DECADE,
            "a third of the lr of the lowest loss": self.lowest / SAFETY,
        }

    @property
    def rule(self) -> str:
        """Rule of the suggestion: the lr where the loss falls fastest, but at least a tenth and at most a third of the
        lr where it is lowest.

        At the minimum the steps are as long as the net can bear for a moment; a training needs some distance from
        there, also for the curvature that comes later. The steepest descent alone is often too careful, as a net first
        unlearns the guesses that it was initialised with.
        """
        return sorted(self.candidates, key=self.candidates.__getitem__)[1] if self.candidates else "none"

    @property
    def lr(self) -> float | None:
        """The suggestion."""
        return self.candidates.get(self.rule)


def check(cfg: TrainConfig, directory: Path, alone: bool) -> None:
    """UserError where there is nothing to search for, or no place for what is found."""
    if cfg.epochs == 0:
        raise UserError("lr_find=true: this strategy fits its head, without steps and without lr: leave lr_find out")
    if cfg.debug:
        raise UserError("lr_find=true and debug= each stand for a short run of their own: give one of them")
    if not alone:
        raise UserError("lr_find=true runs in one process: leave devices out; the batch, and so the lr, is the same")
    if (directory / "config.yaml").exists():
        raise UserError(f"{directory} holds a training: give another run.dir")


def run(parts: Parts, state: TrainState, path: Path) -> int:
    """Search, show, and leave lr_find.json and .png in the folder `path`. RunError where no lr makes the loss fall."""
    cfg, found = parts.cfg, search(parts, state)
    about = describe(parts, found)
    plots.plot_lr_range(found.rates, found.losses, found.smoothed, found.lr, path / "lr_find.png", _title(about))
    write_json(path / "lr_find.json", about)
    if found.lr is None:
        raise RunError(
            f"lr_find=true: the loss falls at no lr from {found.rates[0]:.0e} to {found.rates[-1]:.2g} "
            f"({path / 'lr_find.png'}): try debug=overfit, which tells whether the net learns at all"
        )
    if cfg.format is Format.table:
        say(_text(found, about), parts.stream)
    elif cfg.sweep.dir is None:
        flat = {key: value for key, value in about.items() if not isinstance(value, dict | list)}
        print(json_text(about) if cfg.format is Format.json else render([flat], cfg.format))
    say(f"nothing was trained or saved -> {path / 'lr_find.png'}", sys.stderr)
    return 0


def search(parts: Parts, state: TrainState) -> Range:
    """Train with a rising lr until the loss diverges or all steps are done. The net is spoilt afterwards."""
    base = parts.lr
    rates = np.geomspace(LOWEST * base, HIGHEST * base, STEPS).tolist()
    state.schedule = lambda step: rates[step] / base
    state.ema = None  # it is the net itself that learns or not
    losses: list[float] = []
    seen = [0.0, 0]  # the sum of the losses up to the last step, and the images that it is over
    watch = Divergence()

    def after_step() -> bool:
        total, images = state.meter.loss.item(), state.meter.n - int(state.meter.left_out)
        losses.append((total - seen[0]) / (images - seen[1]) if images > seen[1] else math.nan)
        seen[:] = total, images
        bar.update()
        return not watch.sees(losses[-1]) and len(losses) < STEPS

    with tqdm(total=STEPS, desc="lr_find", unit="step", leave=False, disable=None) as bar:
        for epoch in count():
            train_epoch(state, parts.train_batches.epoch(epoch), after_step)
            if watch.reason or len(losses) >= STEPS:
                break
    return read(rates[: len(losses)], losses, watch.reason)


class Divergence:
    """Notices when a loss that has been followed from the start goes up for good."""

    def __init__(self) -> None:
        self.mean, self.lowest, self.steps, self.reason = 0.0, math.inf, 0, ""

    def sees(self, loss: float) -> bool:
        if not math.isfinite(loss):
            self.reason = "the loss is not finite"
            return True
        self.steps += 1
        self.mean = MEMORY * self.mean + (1 - MEMORY) * loss
        mean = self.mean / (1 - MEMORY**self.steps)  # the first ones are not drawn towards zero
        self.lowest = min(self.lowest, mean)
        if mean > DIVERGED * self.lowest:
            self.reason = f"the loss is {DIVERGED:g} times its lowest"
        return bool(self.reason)


def read(rates: list[float], losses: list[float], stopped: str = "") -> Range:
    """Range that the losses show. The last one may be not finite: it is left out of the curve."""
    known = [loss for loss in losses if math.isfinite(loss)]
    curve = smooth(known)
    steepest, lowest = None, None
    if len(curve) > 2:
        bottom = int(curve.argmin())
        if curve[bottom] < LEARNED * curve[0]:
            slope = np.gradient(curve, np.log10(rates[: len(curve)]))
            steepest, lowest = rates[int(slope[: bottom + 1].argmin())], rates[bottom]
    return Range(rates, losses, curve.tolist(), steepest, lowest, stopped or f"lr has risen to {rates[-1]:g}")


def smooth(losses: list[float]) -> np.ndarray:
    """Each loss as the mean of its neighbours, weighted by a bell that is cut off at the ends."""
    steps = np.arange(len(losses))
    weights = np.exp(-0.5 * ((steps[:, None] - steps[None, :]) / WIDTH) ** 2)
    return (weights @ np.asarray(losses, dtype=float)) / weights.sum(axis=1) if losses else np.zeros(0)


def describe(parts: Parts, found: Range) -> dict[str, Any]:
    """Content of lr_find.json. `lr` is the lr of a step of this batch, `optim.lr` what to type for it."""
    cfg, size = parts.cfg, parts.batch_size
    per_typed = parts.lr / cfg.optim.lr
    lr = None if found.lr is None else _two_digits(found.lr)
    return {
        "lr": lr,
        "optim.lr": None if found.lr is None else _two_digits(found.lr / per_typed),
        "rule": found.rule,
        "steepest": found.steepest,
        "lowest": found.lowest,
        "steps": len(found.losses),
        "stopped": found.stopped,
        "model": cfg.model["name"],
        "data": data_name(parts.dataset.name, cfg.data.root, cfg.data.file),
        "batch_size": size,
        "lr_batch": cfg.optim.lr_batch,
        "optimizer": cfg.optim.name.value,
        "seed": cfg.seed,
        "overrides": cfg.run.overrides,
        **result.environment(parts.runtime),
        "rates": found.rates,
        "losses": found.losses,
        "smoothed": found.smoothed,
    }


def _two_digits(lr: float) -> float:
    """Rounded to two digits: a range test can tell no more."""
    return float(f"{lr:.2g}")


def _title(about: dict[str, Any]) -> str:
    found = _suggestion(about) if about["lr"] else "no lr makes the loss fall"
    return (
        f"{about['model']} on {about['data']}, batch {about['batch_size']}, {about['optimizer']}: "
        f"learning-rate range test\n{found}"
    )


def _text(found: Range, about: dict[str, Any]) -> str:
    return (
        f"loss lowest at lr {found.lowest:.2g}, falling fastest at {found.steepest:.2g}; "
        f"stopped after {plural(about['steps'], 'step')}: {found.stopped}\n"
        f"try {_suggestion(about)}"
    )


def _suggestion(about: dict[str, Any]) -> str:
    scaled = about["lr"] != about["optim.lr"]
    batch = f", which is lr {about['lr']:g} at batch {about['batch_size']}" if scaled else ""
    return f"optim.lr={about['optim.lr']:g}{batch} ({about['rule']})"
