"""`what=batch`: a training batch after augmentation. Needs no trained net."""

from collections.abc import Iterator

from cnnbench import data, tasks
from cnnbench.output.batch_grid import SHOWN
from cnnbench.output.figure import pictures_of
from cnnbench.visual.context import VisualizeContext
from cnnbench.visual.html_page import Picture


def draw_batch(context: VisualizeContext) -> Iterator[Picture]:
    """The first training batch of `seed=`, after augmentation."""
    cfg, dataset, planned = context.cfg, context.dataset, context.planned
    loader = data.train_loader(dataset, planned.augment, image_size=context.size, seed=cfg.seed, workers=0,
                               batch_size=min(SHOWN, len(dataset.train)), sampler=cfg.data.sampler)  # fmt: skip
    batch = next(iter(loader.epoch(0)))
    title = f"{context.data_name}: a training batch, {context.size} × {context.size} pixels, after augmentation"
    picture = context.new_picture("batch", "batch", title, f"{title}: {planned.augmentation}.")
    with pictures_of(context.heading):
        tasks.find(dataset.task).of(context.spec).draw_batch(batch, dataset.classes, picture.path)
    yield picture
