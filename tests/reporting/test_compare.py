"""Whether nets differ: what `report` says of answers to the same images, and of those that cannot be compared."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cnnbench.config.sections import Compare
from cnnbench.reporting import compare
from cnnbench.reporting.gather import gather_runs
from cnnbench.reporting.group import group_runs
from cnnbench.tasks.classification.answers import COLUMNS
from tests.helpers.runs import Ran

N = 400
HARD = np.random.default_rng(0).normal(size=N)


def wrong(share: float, seed: int) -> list[bool]:
    """Answers of a net that gets about this share wrong, mostly images that are hard for all."""
    luck = np.random.default_rng(seed).normal(size=N)
    return (0.8 * HARD + 0.6 * luck > stats.norm.isf(share)).tolist()


@pytest.fixture
def judged(tmp_path: Path) -> Callable[..., Path]:
    """A run directory as `evaluate` leaves it: result.json and answers.csv."""

    def judged(name: str, wrong: list[bool], *, model: str = "", seed: int = 0, data: str = "digits",
               split: str = "test", image: str = "{}") -> Path:  # fmt: skip
        path = tmp_path / "runs" / name
        path.mkdir(parents=True)
        result = {"top1_error": 100 * np.mean(wrong), "n": len(wrong), "split": split, "crop": "center 8", "seed": seed,
                  "model": model or name, "data": data, "weights": f"{name}.pt", "trained": []}  # fmt: skip
        (path / "result.json").write_text(json.dumps(result))
        rows = [[image.format(index), "a", "b" if bad else "a", 0.9, 0.1 if bad else 0.9, 1 + bad, 1]
                for index, bad in enumerate(wrong)]  # fmt: skip
        with (path / "answers.csv").open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
        return path

    return judged


def compared(tmp_path: Path, how: Compare = Compare.auto) -> compare.Comparison:
    return compare.compare(group_runs(gather_runs([tmp_path / "runs"]).runs), how)


def test_two_nets_are_compared_by_the_images_that_one_alone_gets_wrong(
    judged: Callable, tmp_path: Path, cnnbench: Callable[..., Ran]
) -> None:
    first, second = wrong(0.05, 1), wrong(0.12, 2)
    paths = judged("a", first), judged("b", second)
    alone = [sum(x > y for x, y in zip(*pair, strict=True)) for pair in ((first, second), (second, first))]
    p = stats.binomtest(min(alone), sum(alone), 0.5).pvalue
    ran = cnnbench("report", *map(str, paths), "format=json")
    (pair,) = json.loads(ran.out)["comparisons"]
    assert (pair["first"], pair["second"], pair["n"], pair["alone"], pair["runs"]) == ("a", "b", N, alone, [1, 1])
    assert pair["p"] == pair["corrected"] == pytest.approx(p) and pair["differs"] == (p < 0.05)
    assert pair["difference"] == pytest.approx(100 * (np.mean(second) - np.mean(first)))
    assert pair["interval"][0] < pair["difference"] < pair["interval"][1]
    text = " ".join(cnnbench("report", *map(str, paths)).out.split())
    assert f"a and b differ: {100 * np.mean(first):.2f} and {100 * np.mean(second):.2f} % of the same 400" in text
    assert (
        f"a alone gets {alone[0]} of them wrong, b alone {alone[1]} (exact McNemar test, interval by Newcombe)." in text
    )


def test_several_seeds_are_compared_by_their_means(judged: Callable, tmp_path: Path) -> None:
    for seed in range(3):
        judged(f"a{seed}", wrong(0.05, seed), model="a", seed=seed)
        judged(f"b{seed}", wrong(0.20, 10 + seed), model="b", seed=seed)
    (pair,) = compared(tmp_path).pairs
    assert pair.runs == (3, 3) and pair.alone is None and pair.differs
    means = [np.mean([wrong(share, start + seed) for seed in range(3)]) for share, start in ((0.05, 0), (0.20, 10))]
    assert pair.difference == pytest.approx(100 * (means[1] - means[0]))
    assert 0 < pair.interval[0] < pair.difference < pair.interval[1]
    assert "differ: " in compare.sentence(pair) and "paired bootstrap over seeds and images" in compare.sentence(pair)


def test_all_pairs_of_a_sweep_are_corrected_for_their_number(
    judged: Callable, tmp_path: Path, cnnbench: Callable[..., Ran]
) -> None:
    shares = {"a": 0.05, "b": 0.09, "c": 0.09, "d": 0.30}
    for seed, (name, share) in enumerate(shares.items()):
        judged(name, wrong(share, seed))
    pairs = compared(tmp_path).pairs
    assert len(pairs) == 6
    ordered = sorted(pairs, key=lambda pair: pair.p)
    steps = np.maximum.accumulate([min(1, (6 - rank) * pair.p) for rank, pair in enumerate(ordered)])
    assert [pair.corrected for pair in ordered] == pytest.approx(steps.tolist())
    ran = cnnbench("report", str(tmp_path / "runs"), "out=page.html")
    assert "corrected for 6 pairs (Holm)" in " ".join(ran.out.split())
    assert sum("not shown" in line or line.endswith("yes") for line in ran.out.splitlines()) == 6
    assert "Do they differ?" in (tmp_path / "page.html").read_text()
    assert "difference" in cnnbench("report", str(tmp_path / "runs"), "format=markdown").out
    assert "corrected" not in cnnbench("report", str(tmp_path / "runs"), "compare=none").out


def test_many_pairs_are_compared_when_asked_for(judged: Callable, tmp_path: Path) -> None:
    for number in range(7):
        judged(f"n{number}", wrong(0.1, number))
    found = compared(tmp_path)
    assert not found.pairs and found.notes == [
        "compare=all says which of these 21 pairs of nets differ by more than chance"
    ]
    assert len(compared(tmp_path, Compare.all).pairs) == 21


def test_two_seeds_of_one_net_are_compared_with_each_other(judged: Callable, tmp_path: Path) -> None:
    for seed in range(2):
        judged(f"seed{seed}", wrong(0.1, seed), model="a", seed=seed)
    (pair,) = compared(tmp_path).pairs
    assert {pair.first, pair.second} == {"seed0", "seed1"} and pair.alone is not None
    judged("seed2", wrong(0.1, 2), model="a", seed=2)
    assert not compared(tmp_path).pairs and not compared(tmp_path).notes
    assert len(compared(tmp_path, Compare.all).pairs) == 3


OTHER: dict[str, dict[str, Any]] = {
    "other files": {"image": "val/x{}.jpg"}, "another data set": {"data": "cifar10"}, "another split": {"split": "val"},
}  # fmt: skip


@pytest.mark.parametrize("other", OTHER)
def test_different_images_are_said_to_be_different(judged: Callable, tmp_path: Path, other: str) -> None:
    judged("a", wrong(0.1, 1))
    judged("b", wrong(0.1, 2), **OTHER[other])
    found = compared(tmp_path)
    split = OTHER[other].get("split", "test")
    assert not found.pairs
    (note,) = found.notes
    assert note.startswith("not compared: a and b were judged on different images (")
    assert f"{N} {split}" in note


def test_files_are_the_same_in_another_folder(judged: Callable, tmp_path: Path) -> None:
    judged("a", wrong(0.1, 1), data="photos", image="photos/val/cats/{}.jpg")
    judged("b", wrong(0.1, 2), data="pictures", image="/home/me/pictures/test/cats/{}.jpg")
    assert len(compared(tmp_path).pairs) == 1


def test_what_is_missing_or_damaged_is_said_once(
    judged: Callable, tmp_path: Path, cnnbench: Callable[..., Ran]
) -> None:
    """The report itself is as it was."""
    paths = [judged(name, wrong(0.1, seed)) for seed, name in enumerate("abcd")]
    (paths[0] / "answers.csv").unlink()
    (paths[1] / "answers.csv").write_text("image,truth\n0,cat\n")
    result = paths[2] / "result.json"
    result.write_text(result.read_text().replace('"top1_error": ', '"top1_error": 1'))
    ran = cnnbench("report", str(tmp_path / "runs"))
    assert ran.code == 0 and len(ran.out.splitlines()) > 4
    assert "1 run without answers.csv, which this writes: cnnbench evaluate weights=a.pt" in ran.err
    assert f"{paths[1] / 'answers.csv'} is damaged (it is no table of answers)" in ran.err
    assert f"{paths[2] / 'answers.csv'} is damaged (it does not have the errors of result.json)" in ran.err
    assert ran.err.count("not compared") == 3
