"""`what=mistakes`: the wrong answers that the net was surest of."""

from collections.abc import Iterator

import torch

from cnnbench.engine import predictions
from cnnbench.errors import UserError
from cnnbench.plots import percent
from cnnbench.visual import sheet
from cnnbench.visual.page import Picture
from cnnbench.visual.sheet import Tile, as_picture
from cnnbench.visual.studio import Studio

WORST = 24


def draw_mistakes(studio: Studio) -> Iterator[Picture]:
    source, dataset = studio.looked_through, studio.dataset
    if not studio.classes_fit:
        raise UserError(
            f"what=mistakes needs data of the net's own classes; {studio.source} was trained for others than "
            f"those of {dataset.name}"
        )
    found = []
    with studio.progress(len(source), "mistakes") as advance:
        for _, targets, logits in predictions(studio.model, studio.batches(source), studio.runtime, studio.normalize):
            sure, answer = logits.float().softmax(1).max(1)
            found.append(torch.stack([sure, answer.float(), (answer != targets).float()]).cpu())
            advance(len(targets))
    sure, answers, wrong = torch.cat(found, 1)
    count = int(wrong.sum())
    worst = (sure * wrong).topk(min(WORST, count)).indices.tolist()
    tiles = [
        Tile(as_picture(pixels), f"{dataset.classes[int(source.targets[index])]}",
             f"“{studio.classes[int(answers[index])]}” {percent(sure[index])}")
        for index, pixels in zip(worst, studio.pixels(source, worst) if worst else [], strict=True)
    ]  # fmt: skip
    title = (f"{studio.title}: its worst mistakes, of {count:,} among {len(source):,} {studio.split} images of "
             f"{dataset.name} ({100 * count / len(source):.2f} % wrong)")  # fmt: skip
    legend = "Above, what the image is; below, what the net says and how sure it is: the surest wrong answers."
    picture = studio.picture("mistakes", "mistakes", title, legend)
    blank = Tile(as_picture(torch.full((3, 8, 8), 255, dtype=torch.uint8)), "no mistake")
    sheet.draw(sheet.grid(tiles or [blank]), picture.path, title, side=1.5, footer=legend)
    yield picture
