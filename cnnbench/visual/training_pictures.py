"""Pictures of a training (`tracking.images=true`): filters as they form, signal and gradient of each stage, and the
worst mistakes at the end. They go to TensorBoard and to the run directory."""

from pathlib import Path

import numpy as np
import torch

from cnnbench import data
from cnnbench.models.layers import CLASS
from cnnbench.output.image_grid import Row, Tile, best_columns, draw_grid
from cnnbench.output.rgb import mosaic
from cnnbench.output.tensorboard import Events
from cnnbench.runtime.device import Normalize
from cnnbench.tasks.classification.mistakes import draw_mistake_cards
from cnnbench.tasks.passes import predictions
from cnnbench.training.callbacks import Callback, EpochResult, View
from cnnbench.training.result import title
from cnnbench.visual import filters
from cnnbench.visual.signal_flow import SignalStatistics, draw_signals

EVERY = 20  # steps between two measurements of signal and gradient
FILMED = 10  # pictures of the filters in a training
STRIP = 16  # filters in filters.png
FRAMES = 6  # epochs in filters.png


class TrainingPictures(Callback):
    """Callback that draws pictures of a training; does nothing unless `tracking.images` is true."""

    events: Events | None = None  # None: no pictures
    statistics: SignalStatistics | None = None

    def on_start(self, view: View) -> None:
        if not view.parts.cfg.tracking.images or view.events is None:
            return
        self.events, state = view.events, view.state
        self.frames: dict[int, list[np.ndarray]] = {}  # epoch -> the filters then
        self.statistics = SignalStatistics(state.model, lambda: state.step % EVERY == 0)
        # Hooks would be compiled with a compiled net, and with cached features the stages do not run.
        if not view.parts.cfg.compile and not view.parts.features:
            self.statistics.attach()
        self._film(view)

    def on_epoch(self, view: View, epoch: EpochResult) -> None:
        if self.events is None or self.statistics is None:
            return
        done, epochs = view.state.progress.epoch, view.parts.cfg.epochs
        scale = view.parts.runtime.scaler.get_scale() or 1.0
        for tag, value in self.statistics.collect(scale).items():
            self.events.add_scalar(tag, value, view.state.step)
        if done in (1, epochs) or done % max(1, epochs // FILMED) == 0:
            self._film(view)

    def on_end(self, view: View) -> None:
        """Draw the pictures of a finished training, and add the run's other pictures, drawn before, to TensorBoard."""
        if self.events is None or self.statistics is None or not view.is_finished:
            return
        path, name = view.parts.directory.path, str(view.parts.cfg.model["name"])
        with view.state.warn_if_undrawn("mistakes.png"):
            _draw_mistakes(view, path / "mistakes.png")
        if self.frames:
            with view.state.warn_if_undrawn("filters.png"):
                filmstrip(self.frames, path / "filters.png", f"{name}: filters of its first layer during training")
        if self.statistics.history:
            with view.state.warn_if_undrawn("signals.png"):
                draw_signals(self.statistics.history, path / "signals.png", f"{name}, stage by stage",
                          aside=list(view.state.model.auxiliary))  # fmt: skip
        for picture in ("train_batch", "confusion_matrix", "val_predictions", "mistakes", "filters", "signals"):
            self.events.add_picture(f"pictures/{picture}", path / f"{picture}.png", view.state.step)

    def close(self) -> None:
        if self.statistics is not None:
            self.statistics.detach()

    def _film(self, view: View) -> None:
        """Draw the current filters of the first convolution."""
        found = list(filters.convolutions(view.state.model).values())
        if self.events is None or not found or found[0].weight.shape[1] not in (1, 3):
            return
        drawn = filters.filter_images(found[0].weight.detach().float().cpu(), together=False)
        self.frames[view.state.progress.epoch] = drawn[:STRIP]
        picture = mosaic(drawn, best_columns(len(drawn)))
        zoom = max(1, 400 // picture.shape[1])
        self.events.add_image("filters", picture.repeat(zoom, 0).repeat(zoom, 1), view.state.step)


def _draw_mistakes(view: View, path: Path) -> None:
    parts, state, dataset, given = view.parts, view.state, view.parts.dataset, view.parts.spec.input
    if given.in_channels not in (1, 3) or parts.task.answers != CLASS:
        return
    state.eval_model.eval()
    batches = data.eval_loader(dataset.val, dataset, image_size=given.image_size, batch_size=parts.batch_size,
                               workers=parts.cfg.data.workers)  # fmt: skip
    normalize = Normalize(parts.runtime, given.mean, given.std)
    answered = predictions(state.eval_model, batches.epoch(0), parts.measuring, normalize)
    logits = torch.cat([logits.float().cpu() for _, _, logits in answered])
    draw_mistake_cards(
        dataset.val, dataset.classes, logits, path, f"{title(parts)}, {dataset.split}, {parts.measuring.precision}"
    )


def filmstrip(frames: dict[int, list[np.ndarray]], path: Path, title: str) -> None:
    """Draw the same filters in several epochs, one row for each epoch."""
    epochs = sorted(frames)
    chosen = [epochs[round(index)] for index in np.linspace(0, len(epochs) - 1, min(FRAMES, len(epochs)))]
    rows = [
        Row([Tile(picture, str(unit) if number == 0 else "") for unit, picture in enumerate(frames[epoch])],
            f"epoch {epoch}" if epoch else "before")
        for number, epoch in enumerate(chosen)
    ]  # fmt: skip
    draw_grid(
        rows, path, title, side=0.6, font=7.5, footer="Middle gray is a weight of zero, each filter on its own scale."
    )
