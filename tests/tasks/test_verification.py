"""Verification from the command line: trained, resumed, evaluated, predicted with, and what is refused."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import cnnbench as package
from cnnbench.tasks.verification.predictor import Comparison
from cnnbench.utils.exit_codes import INTERRUPTED
from cnnbench.utils.files import read_json
from cnnbench.weights import sources
from tests.helpers.people import write_pairs, write_people, write_person
from tests.helpers.runs import Ran, assert_same_run, interrupt_after, rows

NET = ("model=sphereface4", "model.image_size=24", "model.width=0.1", "model.embedding=16", "model.bn=true")
TRAIN = ("train", "data=people", "data.root=people", "data.val_fraction=0.3", *NET, "head=cosface", "head.scale=8",
         "batch_size=10", "epochs=2", "device=cpu", "precision=fp32")  # fmt: skip


@pytest.fixture
def people(tmp_path: Path) -> Path:
    return write_people(tmp_path / "people")


def test_a_net_is_trained_on_some_people_and_judged_by_pairs_of_others(
    cnnbench: Callable[..., Ran], people: Path, tmp_path: Path
) -> None:
    ran = cnnbench(*TRAIN, "run.dir=r")
    assert ran.code == 0, ran.err
    result, lines = read_json(tmp_path / "r/result.json"), rows(tmp_path / "r")
    assert (result["task"], result["primary"], result["split"]) == ("verification", "accuracy", "held-out")
    assert (result["train_n"], result["n"]) == (7 * 5, 3 * 5) and "6 people for testing kept" in ran.out
    assert result["best_auc"] == max(line["auc/val"] for line in lines) and "accuracy/train" not in lines[0]
    assert {file.name for file in (tmp_path / "r").glob("*.png")} == {"train_batch.png", "roc.png", "curves.png"}
    loaded = sources.load(str(tmp_path / "r"))
    assert loaded.spec is not None and not loaded.spec.labels
    threshold = loaded.spec.extra["threshold"]
    assert threshold["origin"] == "60 pairs drawn among 3 people, seed 0" and 0 < threshold["distance"] < 2

    judged = cnnbench("evaluate", "weights=r", "split=test", "device=cpu", "run.dir=e", "format=json")
    found = json.loads(judged.out)
    assert (found["n"], found["pairs"], found["split"]) == (30, 24, "test"), judged.err
    assert found["protocol"]["folds"] == 10 and found["protocol"]["pairs"] == "24 pairs of pairs.tsv"
    with (tmp_path / "e/answers.csv").open() as file:
        table = list(csv.DictReader(file))
    far, same, right = (np.array([float(row[key]) for row in table]) for key in ("distance", "same", "right"))
    assert found["auc"] == pytest.approx(roc_auc_score(same, -far), abs=1e-6)
    assert found["stored_threshold"]["accuracy"] == pytest.approx(100 * np.mean((far <= threshold["distance"]) == same))
    by_fold = [100 * np.mean([int(row["right"]) for row in table if row["fold"] == str(fold)]) for fold in range(1, 11)]
    assert found["accuracy"] == pytest.approx(np.mean(by_fold)) and len(right) == 24
    assert found["accuracy_standard_error"] == pytest.approx(np.std(by_fold, ddof=1) / 10**0.5)
    assert all((float(row["distance"]) <= float(row["threshold"])) == (row["same"] == row["right"]) for row in table)
    assert found["pixels"]["auc"] > 0.5 and (tmp_path / "e/roc.png").exists() and (tmp_path / "e/mistakes.png").exists()
    shown = cnnbench("evaluate", "weights=r", "split=test", "device=cpu", "run.dir=e").out
    assert "pixels" in shown and "by the threshold stored with the net" in shown and " ± " in shown
    report = cnnbench("report", "r", "e")
    assert f"{result['accuracy']:.2f}" in report.out and "top-1" not in report.out
    again = cnnbench("evaluate", "weights=r", "device=cpu", "run.dir=v", "format=json")
    assert json.loads(again.out)["auc"] == pytest.approx(result["auc"], abs=1e-6)
    assert json.loads(again.out)["accuracy"] == pytest.approx(result["accuracy"], abs=1e-6)
    fewer = cnnbench("evaluate", "weights=r", "device=cpu", "run.dir=f", "format=json", "data.folds=3")
    assert json.loads(fewer.out)["protocol"]["folds"] == 3, "of the pairs that are drawn too"
    with (tmp_path / "f/answers.csv").open() as file:
        assert len({row["fold"] for row in csv.DictReader(file)}) == 3


@pytest.mark.parametrize(
    "loss", [("head=softmax",), ("head=arcface", "head.scale=8"), ("head=softmax", "loss=contrastive")]
)
def test_it_goes_on_in_mid_epoch_whatever_is_trained_for(
    cnnbench: Callable[..., Ran],
    no_pictures: None,
    people: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loss: tuple[str, ...],
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(patch, step=2)
        assert cnnbench(*TRAIN, *loss, "run.dir=cut").code == INTERRUPTED
    assert cnnbench(*TRAIN, *loss, "run.dir=cut").code == 0
    assert cnnbench(*TRAIN, *loss, "run.dir=whole").code == 0
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_predict_says_whether_two_images_show_one_person(
    cnnbench: Callable[..., Ran], no_pictures: None, people: Path, tmp_path: Path
) -> None:
    assert cnnbench(*TRAIN, "run.dir=r", "epochs=1").code == 0
    files = [f"people/test/b0{person}/00.png" for person in (0, 1, 2)]
    (tmp_path / "broken.png").write_text("no image")
    ran = cnnbench("predict", *files[:2], "weights=r", "device=cpu")
    assert ran.code == 0 and files[1] in ran.out and "one person up to a distance of" in ran.err
    assert "drawn among 3 people, seed 0" in ran.err
    ran = cnnbench("predict", *files, "broken.png", "weights=r", "device=cpu", "sheet=s.png", "format=json")
    assert ran.code == 1 and "broken.png" in ran.err
    said = json.loads(ran.out)
    assert [(one["first"], one["second"]) for one in said] == [(files[0], file) for file in [*files[1:], "broken.png"]]
    assert said[0]["answer"] in ("same", "different") and said[2]["answer"] == "unknown"
    assert (said[0]["distance"] <= said[0]["threshold"]) == (said[0]["answer"] == "same")
    assert said[0]["threshold_origin"] == "60 pairs drawn among 3 people, seed 0" and (tmp_path / "s.png").exists()

    net = package.load(tmp_path / "r", device="cpu")
    paths = [tmp_path / file for file in files]
    found = net.predict(paths)
    assert all(isinstance(one, Comparison) for one in found) and len(found) == 2
    assert found[0].distance == pytest.approx(said[0]["distance"], abs=1e-6)
    twice = net.predict([paths[0], paths[0]])
    assert twice[0].same is True and twice[0].distance == pytest.approx(0, abs=1e-6)
    alone = cnnbench("predict", files[0], "weights=r", "device=cpu")
    assert alone.code == 2 and "is alone: name another one as well" in alone.err


def test_embeddings_are_those_that_are_compared(
    cnnbench: Callable[..., Ran], no_pictures: None, people: Path, tmp_path: Path
) -> None:
    assert cnnbench(*TRAIN, "run.dir=r", "epochs=1").code == 0
    files = [f"people/test/b0{person}/00.png" for person in (0, 1, 2)]
    net = package.load(tmp_path / "r", device="cpu")
    rows = net.embed([tmp_path / file for file in files])
    assert rows.shape == (3, 16) and rows.dtype == np.float32 and np.allclose(np.linalg.norm(rows, axis=1), 1)
    found = net.predict([tmp_path / file for file in files])
    assert [one.distance for one in found] == pytest.approx([1 - rows[0] @ rows[1], 1 - rows[0] @ rows[2]], abs=1e-5)
    ran = cnnbench("predict", *files, "weights=r", "device=cpu", "embed=true", "out=x.npz")
    assert ran.code == 0, ran.err
    with np.load(tmp_path / "x.npz") as written:
        assert written["files"].tolist() == files and np.allclose(written["embeddings"], rows, atol=1e-6)


def refused(ran: Ran, *parts: str) -> None:
    assert ran.code == 2 and all(part in ran.err for part in parts), ran.err
    assert len(ran.err.strip().splitlines()) <= 3


def test_pairs_that_cannot_be_judged_are_refused_before_the_first_step(
    cnnbench: Callable[..., Ran], no_pictures: None, people: Path, tmp_path: Path
) -> None:
    pairs, rest = people / "pairs.tsv", ("run.dir=r",)
    rows = [tuple(line.split("\t")) for line in pairs.read_text().splitlines()[1:]]
    write_pairs(pairs, [*rows, ("test/b00/00.png", "test/b09/77.png", 0)])
    refused(cnnbench(*TRAIN, *rest), "names 'test/b09/77.png', but there is no such file in 'people'", "pair 25")
    write_pairs(pairs, [*rows, ("train/a03/00.png", "test/b00/00.png", 0)])
    refused(cnnbench(*TRAIN, *rest), "are trained on too, as a03 ('people/train/a03/00.png')", "would be too high")
    write_pairs(pairs, [])
    refused(cnnbench(*TRAIN, *rest), "'people/pairs.tsv' names no pairs, only its columns")
    pairs.write_text("")
    refused(cnnbench(*TRAIN, *rest), "'people/pairs.tsv' is empty")
    write_pairs(pairs, [(*row, 0) for row in rows], "first\tsecond\tsame\tfold")
    refused(cnnbench(*TRAIN, *rest), "all pairs of 'people/pairs.tsv' are in one fold", "at least two are needed")
    write_pairs(pairs, [row for row in rows if row[2] == "1"])
    refused(cnnbench(*TRAIN, *rest), "all pairs of 'people/pairs.tsv' are of one person: both kinds are needed")
    write_pairs(pairs, [(first, second, "maybe") for first, second, _ in rows])
    refused(cnnbench(*TRAIN, *rest), "line 2: same is 'maybe', not 1 or 0")
    write_pairs(pairs, [(first, second, 1) for first, second, _ in rows])
    refused(cnnbench(*TRAIN, *rest), "pair 13 of 'people/pairs.tsv' is of one person, but the folders of")
    write_pairs(pairs, [*rows, ("test/b00/00.png", "test/b00/00.png", 1)])
    refused(cnnbench(*TRAIN, *rest), "compares 'test/b00/00.png' with itself")
    write_pairs(pairs, rows, "a\tb\tsame")
    refused(cnnbench(*TRAIN, *rest), "has no column first; it needs first, second and same")
    refused(cnnbench(*TRAIN, *rest, "data.pairs=none.tsv"), "data.pairs=none.tsv: there is no such file")
    assert not (tmp_path / "r").exists()


def test_people_whom_a_net_cannot_learn_from_are_refused(
    cnnbench: Callable[..., Ran], no_pictures: None, people: Path, tmp_path: Path
) -> None:
    for person in range(4):
        write_person(tmp_path / f"single/train/a{person}", person, 1)
    refused(
        cnnbench(*TRAIN, "data.root=single"), "'single/train' has one image of each person, as 'single/train/a0/00.png'"
    )
    write_person(tmp_path / "two/train/a", 0, 3)
    refused(cnnbench(*TRAIN, "data.root=two"), "'two/train' has images of 1 person: at least three are needed")
    refused(cnnbench(*TRAIN, "data.root=nowhere"), "data=people expects in 'nowhere' train/PERSON/*.jpg")
    refused(cnnbench(*TRAIN, "data.val_fraction=0"), "neither trained on nor tested with: set data.val_fraction=0.1")
    refused(cnnbench(*TRAIN, "data.val_fraction=0.9"), "leave fewer than two of 10 people to train on")
    refused(cnnbench(*TRAIN, "data.test_fraction=0.2"), "data.pairs has people to test with")
    refused(cnnbench("train", "task=verification", "data=digits", "model=resnet8"), "data=digits is for classification")
    refused(cnnbench("train", "head=cosface"), "head=cosface is for task=verification, not for classification")
    refused(cnnbench("train", "loss=contrastive"), "loss=contrastive is for task=verification")
    refused(cnnbench(*TRAIN, "loss=contrastive"), "has no head: leave head=cosface out")
    refused(cnnbench(*TRAIN, "head=softmax", "loss=contrastive", "accumulate=2"), "so a batch stays whole")


def test_people_may_be_tested_with_who_are_held_out(
    cnnbench: Callable[..., Ran], no_pictures: None, people: Path, tmp_path: Path
) -> None:
    (people / "pairs.tsv").unlink()
    ran = cnnbench(*TRAIN, "data.test_fraction=0.3", "data.val_fraction=0.2", "epochs=1", "run.dir=r")
    assert ran.code == 0 and "3 people for testing" in ran.out, ran.err
    judged = cnnbench("evaluate", "weights=r", "split=test", "device=cpu", "run.dir=e", "format=json")
    found = json.loads(judged.out)
    assert (found["n"], found["protocol"]["pairs"]) == (15, "60 pairs drawn among 3 people, seed 0"), judged.err


def test_lfws_own_table_is_read(cnnbench: Callable[..., Ran], no_pictures: None, tmp_path: Path) -> None:
    root = tmp_path / "lfw"
    for person in range(8):
        folder = root / ("train" if person < 5 else ".") / f"n{person}"
        for name in write_person(folder, person, 3):
            (folder / name).rename(folder / f"n{person}_{int(name[:2]) + 1:04d}.jpg")
    lines = [f"n{n}\t1\t{k}" for n in (5, 6) for k in (2, 3)], [f"n{n}\t1\tn7\t{k}" for n in (5, 6) for k in (1, 2)]
    first, second = ([*same[:2], *other[:2]] for same, other in ((lines[0], lines[1]), (lines[0][2:], lines[1][2:])))
    (root / "pairs.txt").write_text("\n".join(["2\t2", *first, *second]) + "\n")
    ran = cnnbench(*TRAIN, "data.root=lfw", "epochs=1", "run.dir=r")
    assert ran.code == 0, ran.err
    judged = cnnbench("evaluate", "weights=r", "split=test", "device=cpu", "run.dir=e", "format=json")
    assert json.loads(judged.out)["protocol"]["folds"] == 2
    (root / "pairs.txt").write_text("2\t2\nn5 one 2\n")
    refused(cnnbench(*TRAIN, "data.root=lfw", "run.dir=q"), "line 2: neither NAME 1 2 nor NAME 1 OTHER 2")
