"""Confident learning, against the definition written out with loops."""

import numpy as np

from cnnbench.doctor.labels import find_suspects, judged_classes


def test_suspects_are_ranked_by_margin_and_confident_by_the_thresholds_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    targets = np.arange(200) % 4
    logits = rng.normal(size=(200, 4)) + 2 * np.eye(4)[targets]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    thresholds = [np.mean([p[i, k] for i in range(200) if targets[i] == k]) for k in range(4)]
    wrong, confident = {}, set()
    for i in range(200):
        k = targets[i]
        others = [p[i, j] for j in range(4) if j != k]
        if max(others) > p[i, k]:
            wrong[i] = p[i, k] - max(others)
        reached = [(p[i, j], j) for j in range(4) if p[i, j] >= thresholds[j]]
        if reached and max(reached)[1] != k and i in wrong:
            confident.add(i)
    found = find_suspects(p, targets)
    assert [one.index for one in found] == sorted(wrong, key=lambda i: wrong[i])
    assert {one.index for one in found if one.confident} == confident
    assert 0 < len(confident) < len(wrong)


def test_a_class_is_judged_where_it_has_two_different_images() -> None:
    targets = np.array([0, 0, 1, 2, 2, 2])
    assert judged_classes(targets, np.arange(6), 4).tolist() == [0, 2]
    assert judged_classes(targets, np.array([0, 0, 1, 2, 3, 3]), 4).tolist() == [2]
