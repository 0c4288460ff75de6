"""Content of a checkpoint, and the restoring of a training exactly where it was."""

import math
from dataclasses import replace
from typing import Any

from torch import Tensor

from cnnbench.config.sections import Identity, Resume
from cnnbench.data.model_spec import FITTED, ModelSpec
from cnnbench.runs import result
from cnnbench.training.limits import StopRule
from cnnbench.training.setup import Parts, thaw
from cnnbench.training.state import Progress, TrainState
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import number_text, plural
from cnnbench.weights.checkpoint_manager import CheckpointManager
from cnnbench.weights.validation import check_training


def checkpoint_of(parts: Parts, state: TrainState) -> dict[str, Any]:
    """Checkpoint: everything that `restore()` needs, and that using the net needs."""
    return {
        "config": parts.plain_config,
        **_identity(parts),
        "spec": measured_spec(parts, state).as_dict(),
        "batch_size": parts.batch_size,
        "versions": result.versions(),
        **state.state_dict(),
    }


def measured_spec(parts: Parts, state: TrainState) -> ModelSpec:
    """Spec with what the last validation tells of the net; without, where it was another net."""
    if state.evaluation is None or state.is_ahead:
        return parts.spec
    return replace(parts.spec, extra={**parts.spec.extra, **state.task.fitted(state.evaluation)})


def restore(
    parts: Parts, state: TrainState, rule: StopRule, manager: CheckpointManager, saved: dict[str, Any]
) -> list[str]:
    """Notes for the user. Puts a training where the checkpoint left it.

    UserError where its data, its net or its optimizer differ.
    """
    check_training(saved, str(manager.newest[1] if manager.newest else manager.last))
    notes = _other_data(parts, saved)
    state.progress = progress = Progress(**saved["progress"])
    thaw(parts, state, progress.epoch)
    try:
        state.load_state_dict(saved)
        _check_optimizer(state)
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError):
        raise UserError("resume=force cannot change the net, the optimizer or what is frozen") from None
    before = saved.get("versions", {})
    if other := [name for name, version in result.versions().items() if before.get(name, version) != version]:
        notes.append(f"this run began with another version of {', '.join(other)}: the last bits may differ")
    if saved["batch_size"] != parts.batch_size:  # a forced change: the epoch under way begins again
        progress.batch, state.step = 0, progress.epoch * len(parts.train_batches)
        state.restart_meter()
    notes += lr_jump(parts, state, saved)
    if not rule.reason(progress, state.step):  # an epoch that a limit had cut is finished now, and written down then
        state.rows = [row for row in state.rows if row["epoch"] <= progress.epoch]
        notes += _no_longer_fits(saved)
    if progress.batch == 0 and progress.best_epoch == progress.epoch > 0:  # a crash may have come between the two
        manager.keep_best()
    elif progress.best_epoch and not manager.best.exists():
        notes.append("checkpoints/best.pt is gone: the next epoch that is better brings it back")
    return notes


def lr_jump(parts: Parts, state: TrainState, saved: dict[str, Any]) -> list[str]:
    """Note where changed settings move the lr: a schedule over more epochs is at another place after the same steps."""
    groups = zip(state.optimizer.param_groups, saved["optimizer"]["param_groups"], strict=True)
    rates = [(before["lr"], float(group["lr"])) for group, before in groups]
    changes = [pair for pair in rates if min(pair) > 0]
    before, now = max(changes, key=lambda pair: abs(math.log(pair[1] / pair[0])), default=(1.0, 1.0))
    if state.step == 0 or math.isclose(before, now, rel_tol=0.05):
        return []
    return [
        f"the settings changed, and the lr with them: {before:.3g} -> {now:.3g} ({number_text(now / before)}x) after "
        f"{plural(state.step, 'step')}; the schedule is one of {plural(parts.cfg.epochs, 'epoch')} now"
    ]


def _check_optimizer(state: TrainState) -> None:
    """ValueError where the optimizer's memory is not of the shape of what it trains."""
    for tensor, memory in state.optimizer.state.items():
        kept = [value for value in memory.values() if isinstance(value, Tensor) and value.ndim]
        if any(value.shape != tensor.shape for value in kept):
            raise ValueError


def _other_data(parts: Parts, saved: dict[str, Any]) -> list[str]:
    """Note on a forced change of the images. UserError where net or data differ. Early versions kept no identity."""
    ours = _identity(parts)
    theirs = {"identity": ours["identity"], **saved, "spec": ModelSpec.from_dict(saved["spec"]).as_trained.as_dict()}
    path = parts.directory.path
    for key, what in (("images", "images"), ("spec", "classes, sizes or normalisation")):
        if _without_file(ours[key]) != _without_file(theirs[key]):
            raise UserError(f"{path} was trained on other data (its {what} differ): give another run.dir")
    if ours["identity"] == theirs["identity"]:
        return []
    what = "their content" if parts.cfg.data.identity is Identity.content else "names or classes"
    text = f"{path} was trained on other images, though on as many ({what} differ)"
    if parts.cfg.resume is not Resume.force:
        raise UserError(f"{text}: give another run.dir, or resume=force to go on with the images that are there now")
    return [f"{text}; resume=force goes on with the images that are there now"]


def _without_file(identity: Any) -> Any:
    """A spec without the file that makes its net, which may have moved, and whose content the configuration names."""
    if not isinstance(identity, dict):
        return identity
    net = {key: value for key, value in identity["model"].items() if key not in ("file", "sha256")}
    return {**identity, "model": net}


def _no_longer_fits(saved: dict[str, Any]) -> list[str]:
    """Note on what was fitted to weights that now train on."""
    names = [name for name in FITTED if name in saved["spec"].get("extra", {})]
    return [f"the {name} of these weights is dropped, since they train on: fit it again afterwards" for name in names]


def _identity(parts: Parts) -> dict[str, Any]:
    """Identity of net and data, which must not change under a run: the same name may mean other data."""
    dataset = parts.dataset
    return {
        "spec": parts.spec.as_dict(),
        "images": [len(dataset.train), len(dataset.val)],
        "identity": dataset.identity,
    }
