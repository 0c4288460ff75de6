"""`what=embedding`: the features before the output layer in a plane, and in TensorBoard's projector."""

from collections.abc import Iterator

import torch

from cnnbench.transfer.features import PENULTIMATE, extract
from cnnbench.visual import embedding
from cnnbench.visual.page import Picture
from cnnbench.visual.places import spread
from cnnbench.visual.studio import Studio

POINTS = 2000  # images in the plane: t-SNE of so many takes some ten seconds
SPRITE = 32  # side of the images in the projector, pixels; its sheet of them is at most 8192 pixels wide


def draw_embedding(studio: Studio) -> Iterator[Picture]:
    source, dataset = studio.looked_through, studio.dataset
    if len(source) > POINTS:
        source = source.subset(torch.tensor(spread(len(source), POINTS)))
    features = extract(studio.model, source, dataset, studio.spec, studio.runtime, [PENULTIMATE],
                       studio.workers, studio.stream)[PENULTIMATE]  # fmt: skip
    values, targets = features.numpy(), source.targets.numpy()
    agree = embedding.neighbours_agree(values, targets)
    title = (f"{studio.title}: its {values.shape[1]} features of {len(values):,} {studio.split} images of "
             f"{studio.data_name}, in a plane")  # fmt: skip
    legend = (
        f"By t-SNE: what lies together is alike to the net; distances between heaps mean nothing. Of an image's five "
        f"nearest neighbours, in all {values.shape[1]} dimensions, {agree:.0f} % are of its own class."
    )
    found = studio.picture("embedding", "embedding", title, legend)
    embedding.plot(embedding.plane(values, studio.cfg.seed), targets, dataset.classes, found.path, title)
    small = torch.nn.functional.interpolate(
        studio.pixels(source, range(len(source))).float() / 255, SPRITE, mode="area"
    )
    labels = [dataset.classes[target].replace("\t", " ").replace("\n", " ") for target in targets]
    studio.writer.add_embedding(features, labels, small.expand(-1, 3, -1, -1), tag="features")
    yield found
