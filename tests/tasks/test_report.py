"""The report of an evaluation: its table of classes, and the sheet of its mistakes."""

import pytest
import torch
from torch.nn import functional as F

from cnnbench import data
from cnnbench.tasks.classification import mistakes, report
from cnnbench.tasks.classification.metrics import evaluate_scores
from tests.helpers.data import data_config
from tests.helpers.trained import digits_logits


def test_a_net_without_mistakes_has_no_sheet_of_them() -> None:
    dataset = data.load_dataset(data_config("digits"))
    logits = F.one_hot(dataset.val.targets, 10).float() * 9
    assert mistakes.mistake_cards(dataset.val, dataset.classes, logits) == []
    found = evaluate_scores(logits, dataset.val.targets)
    assert report.confused(found, dataset.classes) == []
    assert report.headline(found)["top1_interval"][1] == pytest.approx(1.06, abs=0.01)


def test_the_worst_mistakes_show_the_truth_and_the_answer() -> None:
    dataset = data.load_dataset(data_config("digits"))
    logits, _ = digits_logits()
    cells = mistakes.mistake_cards(dataset.val, dataset.classes, logits)
    assert 0 < len(cells) <= mistakes.WORST
    for cell in cells:
        assert cell.picture.shape[2] == 3
        (truth,) = [name for name, _, true in cell.bars if true]
        assert cell.title == truth != cell.bars[0][0]
    confidences = [cell.bars[0][1] for cell in cells]
    assert confidences == sorted(confidences, reverse=True)


def test_many_classes_are_listed_by_their_errors() -> None:
    classes = [f"class {index}" for index in range(40)]
    targets = torch.arange(400) % 40
    found = evaluate_scores(F.one_hot((targets * 3) % 40, 40).float(), targets)
    result = {**report.headline(found), "crop": "center 8", "split": "val", "images_per_second": 1.0, "shift": None,
              "protocol": {"interpolation": "bilinear", "averaged": None, "temperature": None}, "run_dir": "r",
              "precision": "fp32", "select_on": "last epoch, chosen by held-out images (patience)"}  # fmt: skip
    page = report.page(result, found, classes)
    assert "The 10 classes with the largest errors" in page
    assert len(page.splitlines()) < 25
    assert report.page(result, found, classes, brief=True).startswith("top-1 error")
    assert "chosen by" not in page  # other images did
    page = report.page({**result, "split": "held-out"}, found, classes)
    assert "\nof the last epoch, chosen by held-out images (patience): the error is too low\n" in page


def test_names_that_look_the_same_when_shortened_are_not_put_into_one_column() -> None:
    classes = ["Canis lupus familiaris A lupus", "Canis lupus familiaris B lupus"]
    found = evaluate_scores(torch.eye(2), torch.tensor([0, 0]))
    rows = report.per_class(found, classes)
    assert [row["n"] for row in rows] == [2, 0] and rows[1]["error"] is None
    assert report._tables(found, classes)
