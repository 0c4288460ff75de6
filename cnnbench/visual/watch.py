"""Pictures while a net trains (`tracking.images=true`): its filters as they form, what the signal and the gradient are
in each stage, and at the end what it still gets wrong. They go to TensorBoard and into the run's directory."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from cnnbench import data
from cnnbench.output.tensorboard import Events
from cnnbench.runtime import device
from cnnbench.utils.console import warn_if_unwritable
from cnnbench.visual import filters, flow, mistakes, sheet
from cnnbench.visual.sheet import Row, Tile

if TYPE_CHECKING:
    from cnnbench.training.trainer import Training

EVERY = 20  # steps between two that statistics are taken of
FILMED = 10  # times that the filters are drawn in a training
STRIP = 16  # filters in the strip of pictures
FRAMES = 6  # of the strip


class Watch:
    """Follows one training from entering it to leaving it; does nothing unless the training asks for pictures."""

    def __init__(self, training: "Training", writer: Events) -> None:
        self.training, self.writer = training, writer
        self.enabled = training.cfg.tracking.images and training.device.group.main
        self.name = str(training.cfg.model["name"])
        self.statistics = flow.Statistics(training.trainer.model, lambda: training.trainer.step % EVERY == 0)
        self.frames: dict[int, list[np.ndarray]] = {}  # epoch -> the filters then

    def __enter__(self) -> "Watch":
        # In a compiled net hooks would be compiled too, and on cached features the stages do not run.
        if self.enabled and not self.training.cfg.compile and not self.training.cached:
            self.statistics.attach()
        if self.enabled:
            self._film()
        return self

    def __exit__(self, *error: object) -> None:
        self.statistics.detach()

    def after_epoch(self) -> None:
        if not self.enabled:
            return
        epoch, epochs = self.training.progress.epoch, self.training.cfg.epochs
        scale = self.training.device.scaler.get_scale() or 1.0
        for tag, value in self.statistics.collect(scale).items():
            self.writer.add_scalar(tag, value, self.training.trainer.step)
        if epoch in (1, epochs) or epoch % max(1, epochs // FILMED) == 0:
            self._film()

    def end(self) -> None:
        """What is looked at when the training is over; the other pictures of the run are drawn by now."""
        if not self.enabled:
            return
        path, training = self.training.directory.path, self.training
        with warn_if_unwritable("mistakes.png"):
            self._draw_mistakes(path / "mistakes.png")
        if self.frames:
            with warn_if_unwritable("filters.png"):
                filmstrip(self.frames, path / "filters.png", f"{self.name}: filters of its first layer while it learns")
        if self.statistics.history:
            with warn_if_unwritable("signals.png"):
                flow.draw(self.statistics.history, path / "signals.png", f"{self.name}, stage by stage",
                          aside=list(training.trainer.model.auxiliary))  # fmt: skip
        for name in ("train_batch", "confusion_matrix", "val_predictions", "mistakes", "filters", "signals"):
            if (path / f"{name}.png").exists():
                with Image.open(path / f"{name}.png") as image:
                    self._show(f"pictures/{name}", np.asarray(image.convert("RGB")))

    def _film(self) -> None:
        """The first convolution's filters, as they are now."""
        found = list(filters.convolutions(self.training.trainer.model).values())
        if not found or found[0].weight.shape[1] not in (1, 3):
            return
        drawn = filters.pictures(found[0].weight.detach().float().cpu(), together=False)
        self.frames[self.training.progress.epoch] = drawn[:STRIP]
        picture = sheet.mosaic(drawn, sheet.best_columns(len(drawn)))
        zoom = max(1, 400 // picture.shape[1])
        self._show("filters", picture.repeat(zoom, 0).repeat(zoom, 1))

    def _draw_mistakes(self, path: Path) -> None:
        training, dataset, known = self.training, self.training.dataset, self.training.spec
        if known.input.in_channels not in (1, 3):
            return
        loading: dict[str, Any] = {"image_size": known.input.image_size, "batch_size": training.batch_size}
        training.eval_model.eval()
        batches = data.eval_loader(dataset.val, dataset, workers=training.cfg.data.workers, **loading)
        found = mistakes.find(
            training.eval_model,
            batches.epoch(0),
            training.device,
            device.Normalize(training.device, known.input.mean, known.input.std),
        )
        wrong = dataset.val.subset(torch.tensor([index for index, _, _ in found.worst], dtype=torch.int64))
        shown = data.eval_loader(wrong, dataset, workers=0, **loading).epoch(0) if found.worst else ()
        pixels = [image for images, _ in shown for image in images]
        tiles = mistakes.tiles(found, pixels, dataset.val.targets, dataset.classes)
        title = mistakes.title(self.name, found, f"{dataset.split} images of {training.cfg.data.name}")
        sheet.draw(sheet.grid(tiles), path, title, footer=mistakes.LEGEND)

    def _show(self, tag: str, picture: np.ndarray) -> None:
        self.writer.add_image(tag, picture, self.training.trainer.step)


def filmstrip(frames: dict[int, list[np.ndarray]], path: Path, title: str) -> None:
    """The same filters in several epochs, one below the other."""
    epochs = sorted(frames)
    chosen = [epochs[round(index)] for index in np.linspace(0, len(epochs) - 1, min(FRAMES, len(epochs)))]
    rows = [
        Row([Tile(picture, str(unit) if number == 0 else "") for unit, picture in enumerate(frames[epoch])],
            f"epoch {epoch}" if epoch else "before")
        for number, epoch in enumerate(chosen)
    ]  # fmt: skip
    sheet.draw(rows, path, title, side=0.6, font=7.5, footer="Middle gray is a weight of zero, each on its own scale.")
