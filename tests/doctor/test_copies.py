"""Copies: exact ones by content, near ones by the cosine of centred features."""

import numpy as np
import torch

from cnnbench.doctor import copies
from cnnbench.doctor.copies import Copy, exact_copies, groups, near_copies


def test_exact_copies_are_paired_with_the_first_of_their_content() -> None:
    found = exact_copies([b"a", b"b", b"a", b"c", b"a", b"c"])
    assert [(pair.first, pair.other) for pair in found] == [(0, 2), (0, 4), (3, 5)]
    assert all(pair.exact and pair.cosine == 1 for pair in found)


def test_near_copies_are_those_of_the_whole_matrix_of_cosines(monkeypatch) -> None:
    monkeypatch.setattr(copies, "ROWS", 7)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 16)) + 5  # far from zero, as behind a ReLU
    for copy, of in ((10, 3), (31, 4), (45, 4), (59, 58)):
        features[copy] = features[of] + 0.05 * rng.normal(size=16)
    labels, parts = np.arange(60) % 4, [np.arange(30), np.arange(30, 60)]
    centred = features - features.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    cosines = np.triu(unit @ unit.T, 1)
    expected = {(i, j) for i, j in zip(*np.nonzero(cosines >= 0.9), strict=True)}
    found = near_copies(torch.from_numpy(features).float(), parts, labels, 0.9)
    assert {(pair.first, pair.other) for pair in found} == expected == {(3, 10), (4, 31), (4, 45), (31, 45), (58, 59)}
    assert [pair.cosine for pair in found] == sorted((pair.cosine for pair in found), reverse=True)
    assert np.allclose([pair.cosine for pair in found], [cosines[pair.first, pair.other] for pair in found], atol=1e-5)


def test_a_copy_with_another_label_or_in_another_split_is_found_beside_nearer_ones() -> None:
    base = torch.eye(8)
    features = torch.cat([base, base[:1], base[:1] + 0.01 * base[1:2], base[:1] + 0.02 * base[2:3]])
    labels = np.array([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 0])
    found = near_copies(features, [np.arange(10), np.array([10])], labels, 0.9)
    pairs = {(pair.first, pair.other) for pair in found}
    assert {(0, 8), (0, 9), (0, 10)} <= pairs


def test_groups_join_copies_of_copies() -> None:
    number = groups(6, [Copy(0, 3, 1.0), Copy(3, 5, 0.95)])
    assert number[0] == number[3] == number[5]
    assert len(set(number)) == 4
    assert len(set(groups(3, []))) == 3
