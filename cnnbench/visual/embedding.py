"""`what=embedding`: the features before the output layer in two dimensions, and in TensorBoard's projector."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from cnnbench.output.figure import new_figure, save_figure, short_label
from cnnbench.output.tables import one_line
from cnnbench.transfer.features import PENULTIMATE, extract_features
from cnnbench.utils.console import warn_if_undrawn
from cnnbench.visual.context import VisualizeContext
from cnnbench.visual.html_page import Picture
from cnnbench.visual.layer_view import spread_indices

# Colours of Okabe and Ito, times shapes: 40 classes can be told apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
SHAPES = ("o", "^", "s", "D", "v")
NAMED = 40  # classes up to which each has its name in the plot
POINTS = 2000  # images: t-SNE of so many takes some ten seconds
COMPONENTS = 50  # principal components that t-SNE begins from
SPRITE = 32  # side of the images in the projector, pixels; the sprite image is at most 8192 pixels wide


def draw_embedding(context: VisualizeContext) -> Iterator[Picture]:
    source, dataset = context.searched, context.dataset
    if len(source) > POINTS:
        source = source.subset(torch.tensor(spread_indices(len(source), POINTS)))
    features = extract_features(context.model, source, dataset, context.spec, context.runtime, [PENULTIMATE],
                       context.workers, context.stream)[PENULTIMATE]  # fmt: skip
    values, targets = features.numpy(), source.targets.numpy()
    agreement = neighbour_agreement(values, targets)
    title = (f"{context.title}: its {values.shape[1]} features of {len(values):,} {context.split} images of "
             f"{context.data_name}, in two dimensions")  # fmt: skip
    legend = (
        f"By t-SNE: images that lie together look alike to the net; distances between clusters mean nothing. Of the "
        f"five nearest neighbours of an image, in all {values.shape[1]} dimensions, {agreement:.0f} % have its class."
    )
    picture = context.new_picture("embedding", "embedding", title, legend)
    plot_points(tsne(values, context.cfg.seed), targets, dataset.classes, picture.path, title)
    small = torch.nn.functional.interpolate(
        context.pixels(source, range(len(source))).float() / 255, SPRITE, mode="area"
    )
    labels = [one_line(dataset.classes[target]) for target in targets]
    with warn_if_undrawn("the points for TensorBoard's projector"):
        write_projector(context.path, features, labels, small.expand(-1, 3, -1, -1))
    yield picture


def write_projector(folder: Path, features: Tensor, labels: list[str], images: Tensor) -> None:
    """Write the files of TensorBoard's projector: points (N, D), a label and an image (N, 3, H, W) in 0..1 for each."""
    from torch.utils.tensorboard.writer import SummaryWriter  # it alone knows these files; our Events write no others

    with SummaryWriter(str(folder)) as writer:
        writer.add_embedding(features, labels, images, tag="features")


def tsne(features: np.ndarray, seed: int) -> np.ndarray:
    """Points (N, 2) of features (N, D) by t-SNE (van der Maaten and Hinton, 2008) of their principal components."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(features) < 4:  # too few for neighbours
        return np.stack([np.arange(len(features)), np.zeros(len(features))], 1)
    centred = features - features.mean(0)
    kept = min(COMPONENTS, *centred.shape)
    components = PCA(kept, random_state=seed).fit_transform(centred)
    perplexity = min(30.0, (len(features) - 1) / 3)
    points: np.ndarray = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(components)
    return points


def neighbour_agreement(features: np.ndarray, targets: np.ndarray, k: int = 5) -> float:
    """Percent of the k nearest neighbours of the features (N, D) that have the class of their image."""
    from sklearn.neighbors import NearestNeighbors

    k = min(k, len(features) - 1)
    nearest = NearestNeighbors(n_neighbors=k + 1).fit(features).kneighbors(features, return_distance=False)[:, 1:]
    return 100 * float((targets[nearest] == targets[:, None]).mean())


def plot_points(points: np.ndarray, targets: np.ndarray, classes: Sequence[str], path: Path, title: str) -> Figure:
    """Scatter plot in the colours and shapes of the classes, with the name of each class at its median."""
    figure = new_figure(9.6, 6.4, title)
    ax = figure.subplots()
    for index in np.unique(targets):
        mine = points[targets == index]
        colour, shape = COLOURS[index % len(COLOURS)], SHAPES[index // len(COLOURS) % len(SHAPES)]
        ax.scatter(mine[:, 0], mine[:, 1], s=16, c=colour, linewidths=0, alpha=0.75, marker=shape,
                   label=short_label(classes[index], 24))  # fmt: skip
    if len(np.unique(targets)) <= NAMED:
        for index in np.unique(targets):
            x, y = np.median(points[targets == index], axis=0)
            ax.text(x, y, short_label(classes[index], 24), ha="center", va="center", fontsize=11, fontweight="bold",
                    path_effects=[withStroke(linewidth=3, foreground="white")])  # fmt: skip
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    ax.set(xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="datalim")
    ax.spines[:].set_color("#CCCCCC")
    return save_figure(figure, path)
