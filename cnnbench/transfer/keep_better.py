"""Keeps the better of two nets: the one with the fitted head, with which a fine-tuning began, and what became of it."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from cnnbench.models.layers import Net
from cnnbench.runs.result import LIMITS
from cnnbench.runs.stop_requests import StopRequests
from cnnbench.training.callbacks import Callback, EpochResult, View
from cnnbench.training.trainer import validate


class KeepBetter(Callback):
    """Puts the fitted head back after the last epoch where it errs less on the validation images than the trained net.

    The last row then has its numbers, before anything is saved: a run that is cut here goes on with both.
    """

    def __init__(self, model: Net) -> None:
        self.fitted = _copied(model)

    def on_epoch(self, view: View, epoch: EpochResult) -> None:
        state, parts, reason = view.state, view.parts, view.stop_reason()
        if not reason or reason.startswith(LIMITS) or state.progress.pruned:  # the training goes on, or may go on
            return
        trained, judged, aim = _copied(state.eval_model), state.evaluation, parts.task.aim
        state.eval_model.load_state_dict(self.fitted)
        val = validate(replace(view, stop=StopRequests(group=parts.runtime.group))).compute()
        if not aim.better(val[aim.name], epoch.val[aim.name]):
            state.eval_model.load_state_dict(trained)
            state.evaluation = judged
            return
        state.model.load_state_dict(self.fitted)
        better, worse = (aim.brief(values[aim.name]) for values in (val, epoch.val))
        state.warn("kept", f"training made the net worse than its fitted head was, {better} -> {worse} on the "
                   f"{parts.dataset.split} images: the net with the fitted head is kept")  # fmt: skip
        epoch.row.update({f"{name}/val": value for name, value in val.items() if f"{name}/val" in epoch.row})
        epoch.val.update(val)
        if aim.better(val[aim.name], state.progress.best):
            state.progress.best, state.progress.best_epoch = val[aim.name], epoch.number


def _copied(model: Any) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
