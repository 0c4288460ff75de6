"""The worst mistakes of a net: one ranking and one picture, for `evaluate`, `visualize` and trainings."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnnbench.data.pictures import thumbnail
from cnnbench.data.sources import Arrays, Source, image_names, read_item
from cnnbench.output.prediction_cards import PIXELS, Card, draw_cards
from cnnbench.tasks.classification.metrics import answers, worst_mistakes

WORST = 24  # mistakes that are drawn
LEGEND = "Under each image what it is (✓), then what the net says."


def draw_mistake_cards(source: Source, classes: Sequence[str], logits: Tensor, path: Path, what: str) -> str:
    """Title of the picture that is drawn into the file `path`. what: net and images, as `resnet8 on digits, test`.

    logits: (N, classes) on the CPU, of all images of the source.
    """
    wrong = int((answers(logits)[:, 0] != source.targets.cpu()).sum())
    title = f"The worst mistakes of {what}: {wrong:,} of {len(logits):,} images wrong. {LEGEND}"
    draw_cards(mistake_cards(source, classes, logits) or [NONE], path, title)
    return title


def mistake_cards(source: Source, classes: Sequence[str], logits: Tensor) -> list[Card]:
    """Cards of the wrong answers with the highest confidence, with the true class."""
    cards = []
    for index in worst_mistakes(logits, source.targets.cpu(), WORST).tolist():
        probabilities = logits[index].double().softmax(dim=0)
        best, target = probabilities.topk(min(4, len(classes))).indices.tolist(), int(source.targets[index])
        shown = [*best[:3], target] if target not in best[:3] else best[:4]
        name = image_names(source, torch.tensor([index]))[0]
        cards.append(
            Card(
                picture=thumbnail(read_item(source.item(index)), PIXELS),
                title=classes[target],
                note=f"no. {index}" if isinstance(source, Arrays) and not source.names else Path(name).name,
                bars=[(classes[one], float(probabilities[one]), one == target) for one in shown],
            )
        )
    return cards


NONE = Card(picture=np.full((8, 8, 3), 255, np.uint8), title="no mistakes", note="", bars=[])
