"""What a checkpoint holds of a training, and how a training goes on from one exactly where it was."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cnnbench.data.model_spec import ModelSpec
from cnnbench.runs import result
from cnnbench.tasks.classification.metrics import Sums
from cnnbench.utils.errors import UserError

if TYPE_CHECKING:
    from cnnbench.training.trainer import Training


def state(training: "Training") -> dict[str, Any]:
    """All of a training that `restore()` needs, and what those need who only use its net."""
    return {
        "config": training.plain_config,
        **_identity(training),
        "progress": asdict(training.progress),
        "rows": training.rows,
        "warned": training.warned,
        "sums": training.sums.state_dict(),
        "images_per_second": training.speed,
        "batch_size": training.batch_size,
        "versions": result.versions(),
        **training.trainer.state_dict(),
    }


def restore(training: "Training", saved: dict[str, Any]) -> None:
    """Put a training whose progress is set where it was. UserError where its data, its net or its optimizer differ."""
    _refuse_other_data(training, saved)
    progress, trainer = training.progress, training.trainer
    training.thaw(progress.epoch)
    try:
        trainer.load_state_dict(saved)
    except (RuntimeError, KeyError, ValueError):
        raise UserError("resume=force cannot change the net, the optimizer or what is frozen") from None
    training.sums.load_state_dict(saved["sums"])
    training.speed = saved.get("images_per_second", 0.0)
    training.rows, training.warned = saved["rows"], saved.get("warned", {})
    before = saved.get("versions", {})
    if other := [name for name, version in result.versions().items() if before.get(name, version) != version]:
        training.notes.append(f"this run began with another version of {', '.join(other)}: the last bits may differ")
    if saved["batch_size"] != training.batch_size:  # a forced change: the epoch under way begins again
        progress.batch, trainer.step = 0, progress.epoch * len(training.train_batches)
        training.sums = Sums(training.device.device, training.device.sum_dtype)
    if not training.stop_reason():  # an epoch that a limit had cut is finished now, and written down then
        training.rows = [row for row in training.rows if row["epoch"] <= progress.epoch]
    if progress.batch == 0 and progress.best_epoch == progress.epoch > 0:  # a crash may have come between the two
        training.keeper.keep_best()
    elif progress.best_epoch and not training.keeper.best.exists():
        training.notes.append("checkpoints/best.pt is gone: the next epoch that is better brings it back")


def _refuse_other_data(training: "Training", saved: dict[str, Any]) -> None:
    ours = _identity(training)
    theirs = {"inference": asdict(ModelSpec(**saved["inference"])), "images": saved["images"]}
    if ours != theirs:
        what = "images" if ours["images"] != theirs["images"] else "classes, sizes or normalisation"
        raise UserError(
            f"{training.directory.path} was trained on other data (its {what} differ): give another run.dir"
        )


def _identity(training: "Training") -> dict[str, Any]:
    """What must not change under a run, whatever its configuration says: the same name may mean other data."""
    images = [len(training.dataset.train), len(training.dataset.val)]
    return {"inference": asdict(training.spec), "images": images}
