"""Labels that are probably wrong: confident learning (Northcutt, Jiang and Chuang, 2021) on out-of-fold probabilities.

An image is a suspect where a classifier that never saw it finds another class likelier than its label. The suspect is
confident where that class reaches its own threshold: the mean probability of the class among the images with its label.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Suspect:
    """Image whose label is doubted. margin: probability of the label less that of the suggested class."""

    index: int
    label: int
    suggested: int
    p_label: float
    p_suggested: float
    confident: bool

    @property
    def margin(self) -> float:
        return self.p_label - self.p_suggested


def find_suspects(probabilities: np.ndarray, targets: np.ndarray) -> list[Suspect]:
    """Images whose likeliest class is not their label, the likeliest mistake first.

    probabilities (N, K): out-of-fold, of every class; targets (N,) in 0..K-1, each occurring.
    """
    thresholds = np.array([probabilities[targets == k, k].mean() for k in range(probabilities.shape[1])])
    best = probabilities.argmax(1)
    suspects = []
    for index in np.flatnonzero(best != targets):
        row, label, suggested = probabilities[index], int(targets[index]), int(best[index])
        reached = np.where(row >= thresholds, row, -1.0)
        confident = bool(reached.max() >= 0 and reached.argmax() != label)
        suspects.append(Suspect(int(index), label, suggested, float(row[label]), float(row[suggested]), confident))
    return sorted(suspects, key=lambda suspect: suspect.margin)


def judged_classes(targets: np.ndarray, group: np.ndarray, classes: int) -> np.ndarray:
    """Classes with at least two images that are no copies: only these can be judged by other images."""
    firsts = np.unique(group, return_index=True)[1]
    return np.flatnonzero(np.bincount(targets[firsts], minlength=classes) >= 2)
