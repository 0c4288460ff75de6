"""answers.csv: a row for each image, in order, exact, whatever the names; and what a report reads of it."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch.nn import functional as F

from cnnbench.data.sources import Arrays, Files, image_ids
from cnnbench.tasks.classification import answers
from cnnbench.tasks.classification.metrics import kept_answers
from cnnbench.tasks.classification.task import Classification
from cnnbench.utils.text import printable


def written(
    path: Path, logits: torch.Tensor, targets: torch.Tensor, source: Arrays | Files, classes: list[str]
) -> list:
    Classification().write_answers(kept_answers(logits, targets), source, classes, path)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_is_what_the_logits_say(tmp_path: Path) -> None:
    logits, targets = 3 * torch.randn(40, 7, generator=torch.Generator().manual_seed(2)), torch.arange(40) % 7
    classes = [f'a "{index}",\n' for index in range(7)]
    rows = written(tmp_path / "a.csv", logits, targets, Arrays(torch.zeros(40, 1, 2, 2), targets), classes)
    assert [row["image"] for row in rows] == [str(index) for index in range(40)]
    order, shares = logits.argsort(dim=1, descending=True), logits.double().softmax(dim=1)
    assert np.mean([float(row["loss"]) for row in rows]) == pytest.approx(log_loss(targets, shares), rel=1e-5)
    for row, target, best, share in zip(rows, targets.tolist(), order.tolist(), shares.tolist(), strict=True):
        assert (row["truth"], int(row["truth_rank"])) == (classes[target], best.index(target) + 1)
        assert float(row["truth_probability"]) == pytest.approx(share[target], rel=1e-5)
        five = [row["answer"], *(row[f"answer_{place}"] for place in range(2, 6))]
        assert five == [classes[index] for index in best[:5]]
        chances = [row["probability"], *(row[f"probability_{place}"] for place in range(2, 6))]
        assert [float(one) for one in chances] == pytest.approx([share[index] for index in best[:5]], rel=1e-5)
    found = answers.read(tmp_path / "a.csv")
    assert found.wrong.tolist() == (logits.argmax(dim=1) != targets).tolist()
    assert found.truths == [classes[target] for target in targets.tolist()] and found.numbered


def test_two_classes_have_two_answers(tmp_path: Path) -> None:
    rows = written(
        tmp_path / "a.csv", torch.eye(2), torch.tensor([0, 0]), Arrays(torch.zeros(2, 1), torch.zeros(2)), list("ab")
    )
    assert list(rows[0]) == [*answers.COLUMNS, "answer_2", "probability_2"]
    assert [row["truth_rank"] for row in rows] == ["1", "2"]


def test_files_keep_their_names_and_are_known_again_where_their_folder_moved(tmp_path: Path) -> None:
    targets, logits = torch.tensor([0, 0, 1]), F.one_hot(torch.tensor([0, 1, 1])).float()
    names = ["ants/a, 1.jpg", "ants/b\udcff.jpg", "bees/=c.jpg"]  # one that is not UTF-8
    found = []
    for number, root in enumerate(("photos/val", "/elsewhere/photos/test", "./val")):
        source = Files([f"{root}/{name}" for name in names], targets)
        path = tmp_path / f"{number}.csv"
        rows = written(path, logits, targets, source, ["ants", "bees"])
        assert [row["image"] for row in rows] == [printable(file) for file in image_ids(source)]
        found.append(answers.read(path))
        assert found[-1].images == [printable(name) for name in names] and not found[-1].numbered
    assert all(one.same_images(found[0]) for one in found)
    other = Files(["val/ants/a.jpg", "val/ants/d.jpg", "val/bees/c.jpg"], targets)
    written(tmp_path / "other.csv", logits, targets, other, ["ants", "bees"])
    assert not answers.read(tmp_path / "other.csv").same_images(found[0])


HEAD = ",".join(answers.COLUMNS) + "\n"


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", HEAD, f"{HEAD}0,a,a,1,1,1\n", f"{HEAD}0,a,a,1,1,x,0\n"])
def test_a_damaged_file_is_no_table_of_answers(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(ValueError, match=r"no table|invalid literal"):
        answers.read(tmp_path / "a.csv")
