"""`what=mistakes`: the wrong answers with the highest confidence."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch

from cnnbench.data import image_names, in_classes_of
from cnnbench.tasks.classification.mistakes import LEGEND, draw_mistake_cards
from cnnbench.tasks.measurement import progress
from cnnbench.tasks.passes import check_answers, predictions
from cnnbench.visual.context import VisualizeContext
from cnnbench.visual.html_page import Picture


def draw_mistakes(context: VisualizeContext) -> Iterator[Picture]:
    context.check_channels()
    in_classes_of(context.dataset, context.classes, context.source)  # refuses data with other classes
    source, parts, runtime = context.searched, [], context.runtime
    with progress(len(source), "mistakes") as advance, runtime.cached_weight_casts():
        for batch, _, logits in predictions(context.answering, context.batches(source), runtime, context.normalize):
            parts.append(logits.float().cpu())
            advance(len(batch["index"]))
    logits = torch.cat(parts)
    check_answers(logits, context.source, partial(image_names, source), runtime.precision)
    picture = context.new_picture("mistakes", "mistakes", "mistakes", LEGEND)
    what = f"{context.title} on {context.data_name}, {context.split}, {runtime.precision}"
    title = draw_mistake_cards(source, context.classes, logits, picture.path, what)
    yield replace(picture, title=title)
