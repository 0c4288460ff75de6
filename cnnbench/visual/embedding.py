"""The features that the output layer sees, in two dimensions: images that lie together are alike to the net."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from cnnbench.output.figure import label, new_figure, save

# Okabe and Ito's colours, and shapes beside them: with both, 40 classes can be told apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
SHAPES = ("o", "^", "s", "D", "v")
NAMED = 40  # classes up to which each has its name in the plot
COMPONENTS = 50  # principal components that t-SNE begins from


def plane(features: np.ndarray, seed: int) -> np.ndarray:
    """(N, D) to (N, 2) by t-SNE (van der Maaten and Hinton, 2008), from the first principal components."""
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


def neighbours_agree(features: np.ndarray, targets: np.ndarray, k: int = 5) -> float:
    """Percent of the k nearest neighbours, in all dimensions, that are of an image's own class."""
    from sklearn.neighbors import NearestNeighbors

    k = min(k, len(features) - 1)
    nearest = NearestNeighbors(n_neighbors=k + 1).fit(features).kneighbors(features, return_distance=False)[:, 1:]
    return 100 * float((targets[nearest] == targets[:, None]).mean())


def plot(points: np.ndarray, targets: np.ndarray, classes: Sequence[str], path: Path, title: str) -> Figure:
    """Every image a dot in the colour and shape of its class, whose name stands in its middle."""
    figure = new_figure(9.6, 6.4, title)
    ax = figure.subplots()
    for index in np.unique(targets):
        mine = points[targets == index]
        ax.scatter(mine[:, 0], mine[:, 1], s=16, c=COLOURS[index % len(COLOURS)], linewidths=0, alpha=0.75,
                   marker=SHAPES[index // len(COLOURS) % len(SHAPES)], label=label(classes[index], 24))  # fmt: skip
    if len(np.unique(targets)) <= NAMED:
        for index in np.unique(targets):
            x, y = np.median(points[targets == index], axis=0)
            ax.text(x, y, label(classes[index], 24), ha="center", va="center", fontsize=11, fontweight="bold",
                    path_effects=[withStroke(linewidth=3, foreground="white")])  # fmt: skip
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    ax.set(xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="datalim")
    ax.spines[:].set_color("#CCCCCC")
    return save(figure, path)
