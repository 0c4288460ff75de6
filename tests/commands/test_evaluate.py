"""`cnnbench evaluate`: exact numbers by a named protocol, and what is left behind of them."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional as F
from torchvision.models import get_model, get_model_weights

from cnnbench import data
from cnnbench.data.model_spec import InputSpec, ModelSpec
from cnnbench.runtime import device
from cnnbench.tasks.classification import answers, asking, evaluation, plots
from cnnbench.tasks.classification.metrics import evaluate_scores
from cnnbench.utils.files import read_json
from cnnbench.utils.statistics import wilson
from cnnbench.weights import sources
from tests.helpers.data import class_tree, data_config, picture
from tests.helpers.runs import SMALL, Ran, rows, without_evaluations_pictures
from tests.helpers.trained import colour_run, digits_logits, digits_run, foreign_file, photo_run, random_net

pytestmark = pytest.mark.usefixtures("no_pictures")

CPU = ("precision=fp32", "device=cpu")
LEFT = (
    "result.json",
    "answers.csv",
    "confusion_matrix.png",
    "confusion_matrix.csv",
    "classes.csv",
    "calibration.png",
    "coverage.png",
    "mistakes.png",
)


def judged(cnnbench: Callable[..., Ran], *args: str) -> tuple[dict[str, Any], str]:
    """The result, and what was said on stderr."""
    with pytest.MonkeyPatch.context() as patch:  # the numbers alone: pictures take longer than they do
        without_evaluations_pictures(patch.setattr)
        ran = cnnbench("evaluate", *args, *CPU, "format=json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out), ran.err


def evaluated(cnnbench: Callable[..., Ran], *args: str, said: str = "") -> dict[str, Any]:
    found, err = judged(cnnbench, *args)
    foreign = "weights_rename={linear: fc}" in args  # a file of which not all is known
    assert said in err if said else foreign or err == ""
    return found


# The numbers


def test_the_integers_are_exact_at_any_batch_size(cnnbench: Callable[..., Ran]) -> None:
    logits, targets = digits_logits()
    wrong = int((logits.argmax(1) != targets).sum())
    assert 0 < wrong < 200
    for batch_size in (7, 400):
        result = evaluated(cnnbench, f"weights={digits_run()}", f"batch_size={batch_size}")
        assert (result["top1_wrong"], result["n"]) == (wrong, 359)
        assert result["top1_error"] == 100 * wrong / 359
        assert result["top1_interval"] == list(wilson(wrong, 359))
        assert result["loss"] == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-4)
    assert result["protocol"] == {
        "name": "center", "views": 1, "nets": 1, "scales": [16], "resize": "shorter", "interpolation": "bilinear",
        "temperature": None, "averaged": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("args", "text", "count"),
    [
        (("crop=ten", "data.crop_ratio=0.8"), "ten 16 of 20", 10),
        (("crop=144",), "144 crops of 16 at 18, 21, 23, 25, mirrored", 144),
        (("crop=multi_scale_dense",), "dense at 18, 27, 37, mirrored", 6),
        (("crop.resize=squash", "data.crop_ratio=0.8"), "center 16 of 20, squashed", 1),
        (("data.interpolation=bicubic",), "center 16", 1),
    ],
)
def test_protocols_give_the_same_integers_at_any_batch_size(
    cnnbench: Callable[..., Ran], args: tuple[str, ...], text: str, count: int
) -> None:
    few = (f"weights={digits_run()}", "data.val_fraction=0.03")  # 43 images
    said = "data.val_fraction=0.03, but 0 in the training: it has seen images that are judged now"
    results = [evaluated(cnnbench, *few, *args, f"batch_size={size}", said=said) for size in (9, 300)]
    assert results[0]["crop"] == results[1]["crop"] == text
    assert results[0]["protocol"]["views"] == count
    assert (results[0]["protocol"]["averaged"] is None) == (count == 1)
    keys = ("top1_wrong", "top5_wrong", "n")
    assert [results[0][key] for key in keys] == [results[1][key] for key in keys]
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], rel=1e-4)
    assert "bicubic" in results[0]["protocol"]["interpolation"] or "bicubic" not in args[0]


def test_views_are_averaged_after_the_softmax() -> None:
    logits = torch.randn(5, 10, 3, generator=torch.Generator().manual_seed(0)) * 4
    mean = asking.averaged(logits)
    torch.testing.assert_close(mean.exp(), logits.softmax(2).mean(1))
    assert torch.equal(asking.averaged(logits[:, :1]), logits[:, 0])


def test_an_ensemble_is_the_mean_of_its_nets(cnnbench: Callable[..., Ran]) -> None:
    run = digits_run()
    both = f"weights=[{run},{run}/checkpoints/best.pt]"
    result = evaluated(cnnbench, both)
    alone = [evaluated(cnnbench, f"weights={where}") for where in (run, run / "checkpoints/best.pt")]
    assert result["protocol"]["nets"] == 2 and result["protocol"]["averaged"] == "softmax of 2 nets"
    assert result["params"] == 2 * alone[0]["params"]
    assert result["weights"] == [one["weights"] for one in alone]
    assert result["loss"] <= max(one["loss"] for one in alone)  # the mean of probabilities is never worse than both
    same = evaluated(cnnbench, f"weights=[{run},{run}]", "run.name=same")
    assert (same["top1_wrong"], same["loss"]) == (alone[0]["top1_wrong"], pytest.approx(alone[0]["loss"], rel=1e-5))


def test_two_processes_together_count_what_one_counts() -> None:
    """Shares of the images, judged apart and added, are the whole: the counts are integers."""
    logits, targets = digits_logits()
    whole = evaluate_scores(logits, targets)
    shares = [evaluate_scores(logits[part], targets[part]) for part in (slice(0, 179), slice(179, None))]
    assert sum(share.top1_wrong for share in shares) == whole.top1_wrong
    assert torch.equal(sum(share.confusion for share in shares), whole.confusion)


def test_shifts_say_how_many_answers_survive(cnnbench: Callable[..., Ran]) -> None:
    result = evaluated(cnnbench, f"weights={digits_run()}", "shift=2")
    shift = result["shift"]
    assert shift["pixels"] == 2 and len(shift["directions"]) == 8
    assert 0 < shift["survived"] < 100
    assert shift["survived"] == pytest.approx(sum(shift["directions"].values()) / 8)
    text = cnnbench("evaluate", f"weights={digits_run()}", "shift=2", *CPU).out
    assert f"shifted by 2 pixels: {shift['survived']:.2f} % of the answers survive" in text
    assert evaluated(cnnbench, f"weights={digits_run()}")["shift"] is None
    refused = cnnbench("evaluate", f"weights=[{digits_run()},{digits_run()}]", "shift=2")
    assert (refused.code, "a single net" in refused.err) == (2, True)
    assert "moves everything out" in cnnbench("evaluate", f"weights={digits_run()}", "shift=16").err


# What is left behind


@pytest.mark.usefixtures("pictures")
def test_an_evaluation_leaves_tables_and_pictures(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    ran = cnnbench("evaluate", f"weights={digits_run()}", "run.dir=e", *CPU)
    assert ran.code == 0, ran.err
    path = tmp_path / "e"
    assert all((path / name).stat().st_size > 0 for name in LEFT)
    logits, targets = digits_logits()
    found = evaluate_scores(logits, targets)
    with (path / "confusion_matrix.csv").open() as file:
        head, *rows = csv.reader(file)
    assert head[1:] == [row[0] for row in rows] == [str(digit) for digit in range(10)]
    assert [[int(count) for count in row[1:]] for row in rows] == found.confusion.tolist()
    with (path / "classes.csv").open() as file:
        classes = list(csv.DictReader(file))
    assert sum(int(row["wrong"]) for row in classes) == found.top1_wrong
    assert float(classes[3]["error"]) == pytest.approx(100 * int(classes[3]["wrong"]) / int(classes[3]["n"]))
    with (path / "answers.csv").open() as file:
        said = list(csv.DictReader(file))
    assert [row["image"] for row in said] == [str(index) for index in range(359)]
    assert [int(row["truth"]) for row in said] == targets.tolist()
    assert [int(row["answer"]) for row in said] == logits.argmax(1).tolist()
    losses = F.cross_entropy(logits, targets, reduction="none").tolist()
    assert [float(row["loss"]) for row in said] == pytest.approx(losses, rel=1e-3, abs=1e-5)
    result = read_json(path / "result.json")
    assert sum(int(row["truth_rank"]) > 5 for row in said) == result["top5_wrong"]
    counts = [pair["images"] for pair in result["confused"]]
    assert (
        counts == sorted(counts, reverse=True) and counts[0] == plots.confused_pairs(found.confusion.numpy(), 1)[0][0]
    )
    assert "true \\ answer" in ran.out and "Most often confused:" in ran.out
    assert f"top-1 error {found.top1_error:.2f} % (95 %: " in ran.out
    assert ran.out.strip().endswith("-> e")

    events = EventAccumulator(str(path), size_guidance={"images": 0})
    events.Reload()
    assert {"top1_error/test", "top5_error/test", "loss/test", "calibration_error/test"} <= set(
        events.Tags()["scalars"]
    )
    assert set(events.Tags()["images"]) == {"confusion_matrix", "calibration", "coverage", "mistakes"}
    again = cnnbench("evaluate", f"weights={digits_run()}", "run.dir=e", *CPU)
    assert again.code == 0 and len(list(path.glob("events*"))) == 1


# Weights from elsewhere


def synthetic_truth(net: Any, images: int = 30) -> tuple[int, int]:
    """How many of the synthetic validation images the net gets wrong, by a plain forward pass."""
    dataset = data.load_dataset(data_config("synthetic", num_classes=10, num_images=10 * images, image_size=32))
    assert isinstance(dataset.val, data.Arrays)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (dataset.mean, dataset.std))
    with torch.no_grad():
        answers = net((dataset.val.images / 255 - mean) / std).argmax(1)
    return int((answers != dataset.val.targets).sum()), images


def test_a_file_of_another_implementation_is_evaluated_as_its_author_did(
    cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    """`state_dict`, `module.`, `linear`: as the CIFAR nets of a well-known repository are kept."""
    net = random_net("resnet20", 10)
    file = foreign_file(net, tmp_path / "resnet20-12fca82f.th")
    on = ("data=synthetic", "data.num_classes=10", "data.num_images=300", "data.image_size=32")
    result = evaluated(cnnbench, f"weights={file}", "model=resnet20", "weights_rename={linear: fc}", *on,
                       said="names in the file begin with 'module.': taken off")  # fmt: skip
    assert (result["top1_wrong"], result["n"]) == synthetic_truth(net)
    assert (result["model"], result["epochs"], result["seed"]) == ("resnet20", None, None)
    unnamed = cnnbench("evaluate", f"weights={file}", "model=resnet20", *on)
    assert unnamed.code == 2 and "linear.weight" in unnamed.err and "weights_rename" in unnamed.err
    wrong = cnnbench("evaluate", f"weights={file}", "model=resnet32", "weights_rename={linear: fc}", *on)
    assert wrong.code == 2 and "does not fit resnet32" in wrong.err
    skipped = cnnbench("evaluate", f"weights={file}", "model=resnet20", "weights_rename={linear: fc}",
                       "weights_skip=[layer1]", *on)  # fmt: skip
    assert skipped.code == 2 and "gives layer1.0.conv1.weight no weights" in skipped.err
    assert "add model=" in cnnbench("evaluate", f"weights={file}", *on).err
    assert "add data=" in cnnbench("evaluate", f"weights={file}", "model=resnet20").err
    few = cnnbench("evaluate", f"weights={file}", "model=resnet20", "weights_rename={linear: fc}", "data=synthetic",
                   "data.num_classes=7", "data.image_size=32", "data.num_images=70")  # fmt: skip
    assert few.code == 2 and "tells 10 classes apart, but 7 are named" in few.err


def test_published_weights_on_imagenet_keep_their_own_preprocessing(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the file and for the data set (its class folders, an image in each): names and transform are real.

    The numbers are those that torchvision's own net and transform give.
    """
    torch.manual_seed(0)
    theirs = get_model("squeezenet1_1").eval()
    torch.save(theirs.state_dict(), tmp_path / "squeezenet.pth")
    monkeypatch.setattr(sources, "fetched", lambda url: tmp_path / "squeezenet.pth")
    ids = ["n01440764", *(f"n02{number:06d}" for number in range(998)), "n15075141"]
    for number, name in enumerate(ids):
        for split in ("train", "val"):
            (tmp_path / "imagenet" / split / name).mkdir(parents=True)
        image = tmp_path / "imagenet/val" / name / "0.ppm"
        picture(number % 40, 30, 24).save(image)
        (tmp_path / "imagenet/train" / name / "0.ppm").symlink_to(image)
    result = evaluated(cnnbench, "model=torchvision", "model.name=squeezenet1_1", "weights=imagenet", "data=imagenet",
                       "data.root=.", "data.image_size=32", "data.workers=0", "data.crop_ratio=1.0",
                       said="no better than guessing")  # fmt: skip
    assert (result["n"], result["split"], result["crop"]) == (1000, "val", "center 32")
    transform = get_model_weights("squeezenet1_1").DEFAULT.transforms(crop_size=32, resize_size=32)
    files = [tmp_path / "imagenet/val" / name / "0.ppm" for name in ids]
    with torch.no_grad():
        logits = theirs(torch.stack([transform(Image.open(file)) for file in files]))
    assert result["top1_wrong"] == int((logits.argmax(1) != torch.arange(1000)).sum())
    loaded = sources.load("imagenet", {"source": "torchvision", "name": "squeezenet1_1"})
    assert loaded.spec is not None
    assert (loaded.spec.input.image_size, loaded.spec.input.crop_ratio) == (224, 0.875)


def test_the_weights_preprocessing_holds_unless_it_is_typed(cnnbench: Callable[..., Ran]) -> None:
    """The data's own file says crop_ratio, mean and so on too: they are for training."""
    run = colour_run()
    on = (f"weights={run}", "data=synthetic", "data.num_classes=10", "data.num_images=100", "data.image_size=32")
    plain = evaluated(cnnbench, *on)
    assert evaluated(cnnbench, *on, "data.std=[0.9,0.9,0.9]")["loss"] != plain["loss"]
    assert evaluated(cnnbench, *on, "data.crop_ratio=0.8")["crop"] == "center 32 of 40"


# Mistakes


def test_other_classes_are_refused(cnnbench: Callable[..., Ran]) -> None:
    on = ("data=synthetic", "data.num_images=40", "data.image_size=16")
    ran = cnnbench("evaluate", f"weights={colour_run()}", *on, "data.num_classes=11")
    assert (ran.code, "no class of the net is called 'class 10'" in ran.err) == (2, True)
    ran = cnnbench("evaluate", f"weights={colour_run()}", "data=digits")
    assert (ran.code, "the data 10 ('0', '1', '2' and 7 more)" in ran.err) == (2, True)
    ran = cnnbench("evaluate", f"weights={digits_run()}", "model=resnet20")
    assert (ran.code, "is of resnet8, not of resnet20" in ran.err) == (2, True)
    ran = cnnbench("evaluate", f"weights={digits_run()}", "weights_rename={a: b}")
    assert (ran.code, "needs neither" in ran.err) == (2, True)


def test_classes_are_matched_by_name_and_may_be_a_part_of_the_nets(
    cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    """Classes in another order, and spelt otherwise, change no number."""
    names, order = ["ant", "bee", "hot_dog", "yak"], [2, 0, 3, 1]
    for number, name in enumerate(names):
        for split in ("train", "val"):
            (tmp_path / "d" / split / name).mkdir(parents=True)
            for index in range(6):
                picture(7 * index + number, 32, 32).save(tmp_path / "d" / split / name / f"{index}.png")
    state = random_net("resnet8", 4).state_dict()
    given = InputSpec(image_size=32, in_channels=3, mean=[0.5] * 3, std=[0.25] * 3)
    spec = ModelSpec(model={"name": "resnet8"}, labels=names, input=given)
    sources.save_safetensors(tmp_path / "same.safetensors", state, spec)
    state |= {name: state[name][order] for name in ("fc.weight", "fc.bias")}
    spec = replace(spec, labels=[["Hot Dog", "Ant", "YAK", "bee"][number] for number in range(4)])
    sources.save_safetensors(tmp_path / "other.safetensors", state, spec)
    on = ("data=folder", "data.root=d", "data.workers=0", "format=json", *CPU)
    ran = [cnnbench("evaluate", *on, f"weights={name}.safetensors") for name in ("same", "other")]
    same, other = (json.loads(one.out) for one in ran)
    assert 0 < same["top1_wrong"] < 24 and same["top1_wrong"] == other["top1_wrong"]
    assert same["loss"] == pytest.approx(other["loss"], rel=1e-6)
    assert "matched" not in ran[0].err
    assert "the 4 of folder are matched by name, since the net has them in another" in ran[1].err
    both = json.loads(cnnbench("evaluate", *on, "weights=[same.safetensors,other.safetensors]").out)
    assert both["top1_wrong"] == same["top1_wrong"]  # two times the same net
    for split in ("train", "val"):
        shutil.rmtree(tmp_path / "d" / split / "bee")
    part = cnnbench("evaluate", *on, "weights=other.safetensors")
    assert json.loads(part.out)["n"] == 18 and "among the net's 4, and the net may answer any of these" in part.err


def test_gray_images_are_given_to_a_net_that_takes_colour(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    assert cnnbench("train", "epochs=1", "max_steps=2", "run.dir=r", "data.image_size=8", *CPU).code == 0
    loaded = sources.load("r")
    assert loaded.spec is not None
    colour = random_net("resnet8", 10)
    spec = replace(loaded.spec, input=replace(loaded.spec.input, in_channels=3, mean=[0.3] * 3, std=[0.4] * 3))
    sources.save_safetensors(tmp_path / "c.safetensors", colour.state_dict(), spec)
    assert evaluated(cnnbench, "weights=c.safetensors", "data=digits", said="no better than guessing")["n"] == 359


def test_a_place_that_cannot_be_written_to_is_said_before_the_work(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(evaluation, "scores", lambda *args: pytest.fail("it worked first"))
    ran = cnnbench("evaluate", f"weights={digits_run()}", "run.dir=file/e")
    assert (ran.code, "cannot write to file/e" in ran.err) == (2, True)


def test_a_sweep_over_crops_prints_one_table(cnnbench: Callable[..., Ran]) -> None:
    ran = cnnbench("evaluate", "-m", f"weights={digits_run()}", "data.crop_ratio=0.8", "crop=center,ten", *CPU)
    assert ran.code == 0, ran.err
    assert sum(line.startswith("crop=") for line in ran.out.splitlines()) == 2
    assert "true \\ answer" not in ran.out


# Runs of `train`


def test_evaluate_repeats_the_runs_own_numbers(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    assert cnnbench("train", "epochs=2", "ema=0.5", "run.dir=r", *SMALL).code == 0
    trained = read_json(tmp_path / "r/result.json")
    for batch_size in (1, 7, 400):
        ran = cnnbench(
            "evaluate", "weights=r", f"batch_size={batch_size}", "precision=fp32", "device=cpu", "format=json"
        )
        assert ran.code == 0, ran.err
        result = json.loads(ran.out)
        assert (result["top1_error"], result["top5_error"], result["n"]) == (
            trained["top1_error"],
            trained["top5_error"],
            359,
        )
        assert result["loss"] == pytest.approx(trained["loss"], rel=1e-5)
        ours, theirs = (answers.read(Path(path) / "answers.csv") for path in ("r", result["run_dir"]))
        assert ours.same_images(theirs) and ours.wrong.tolist() == theirs.wrong.tolist()
    train_split = json.loads(cnnbench("evaluate", "weights=r/checkpoints/last.pt", "split=train", "format=json").out)
    assert (train_split["n"], train_split["split"]) == (287, "train")  # a fifth of each class


# Which images


def test_the_test_split_is_judged_at_the_end(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    """The digits' test images, of a run that was validated on training images and stopped by them."""
    trained = cnnbench("train", "epochs=2", "patience=2", "data.val_fraction=0.1", "run.dir=r", *SMALL)
    assert "held-out images, 10 classes; its test images kept for evaluate split=test" in trained.out, trained.err
    val, said = judged(cnnbench, "weights=r")
    test, nothing = judged(cnnbench, "weights=r", "split=test")
    assert (val["split"], val["n"], test["split"], test["n"]) == ("held-out", 143, "test", 359)
    assert (said, nothing) == ("not judged: its test images (split=test)\n", "")
    assert val["select_on"] == test["select_on"] == "last epoch, chosen by held-out images (patience)"
    assert test["top1_error"] != val["top1_error"] == read_json(tmp_path / "r/result.json")["top1_error"]
    best, _ = judged(cnnbench, "weights=r/checkpoints/best.pt", "split=test")
    assert best["select_on"] == "best epoch, chosen by held-out images"


def test_a_folder_of_classes_alone_is_judged_as_a_whole(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    run = photo_run()
    others = class_tree(tmp_path / "others", {"cat": 2, "dog": 3, "fox": 4}, seed=5)
    found, err = judged(cnnbench, f"weights={run}", f"data.root={others}")
    assert (found["n"], found["split"], found["warnings"], err) == (9, "given", [], "")
    shutil.rmtree(others / "fox")
    found, err = judged(cnnbench, f"weights={run}", f"data.root={others}")
    assert found["n"] == 5 and "the 2 of folder are matched by name among the net's 3" in err
    shutil.rmtree(others / "cat")
    found, err = judged(cnnbench, f"weights={run}", f"data.root={others}")
    assert found["n"] == 3 and "the 1 of folder are matched" in err
    elsewhere = shutil.copytree(others, tmp_path / "more" / "others")
    where = judged(cnnbench, f"weights={run}", f"data.root={elsewhere}")[0]["run_dir"]
    assert where.startswith("outputs/evaluate/run-more-others") and where != found["run_dir"]  # both are kept
    (others / "dog").rename(others / "cow")
    refused = cnnbench("evaluate", f"weights={run}", f"data.root={others}")
    assert refused.code == 2 and "no class of the net is called 'cow'" in refused.err
    refused = cnnbench("evaluate", f"weights={run}", f"data.root={others}", "split=test")
    assert refused.code == 2 and "split=test: folder has no test images" in refused.err


def test_a_sampler_is_refused_where_nothing_trains(cnnbench: Callable[..., Ran]) -> None:
    said = "data.sampler=balanced changes nothing here: it is for train and finetune"
    for command in (
        ["evaluate", f"weights={digits_run()}"],
        ["benchmark", "model=resnet8", "data=digits"],
        ["prepare", "data=folder", "data.root=d"],
        ["doctor", "data", "data=digits"],
        ["visualize", "what=filters", f"weights={digits_run()}"],
    ):
        ran = cnnbench(*command, "data.sampler=balanced")
        assert (ran.code, said in ran.err) == (2, True), ran.err


def test_images_that_the_net_was_trained_on_are_said(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    """Under the same paths, or copied under other names."""
    run = photo_run()
    said = "of the 9 given images are training images of this net: the error on them is too low"
    found, err = judged(cnnbench, f"weights={run}", f"data.root={run.parent / 'd/train'}")
    assert found["warnings"] == [f"9 {said}"] and said in err
    refused = cnnbench("evaluate", f"weights={run}", f"data.root={run.parent / 'd/train'}", "calibrate=true")
    assert refused.code == 2
    assert "calibrate fits on images that did not train the net: 9 of the 9 given images are training" in refused.err
    copies = shutil.copytree(run.parent / "d/val", tmp_path / "copies")
    for number in range(2):
        shutil.copy(run.parent / f"d/train/cat/{number}.jpg", copies / f"dog/{number}.jpg")
    assert judged(cnnbench, f"weights={run}", f"data.root={copies}")[0]["warnings"] == [f"2 {said}"]


def test_the_images_of_the_training_are_held_out_again(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    """Wherever their folder lies now; with another image in it, it is another set."""
    root = class_tree(tmp_path / "d", {"cat": 10, "dog": 10})
    parts = ("data.val_fraction=0.2", "data.test_fraction=0.3")
    ran = cnnbench("train", "model=resnet8", "data=folder", f"data.root={root}", *parts, "run.dir=r", "epochs=1",
                   "data.image_size=16", "data.workers=0", "batch_size=5", *CPU)  # fmt: skip
    assert "10 training and 4 held-out images, 2 classes; 6 test images kept for" in ran.out, ran.err
    trained = read_json(tmp_path / "r/result.json")
    moved = root.rename(tmp_path / "moved")
    for typed in ((f"data.root={moved}",), ("data=folder", f"data.root={moved}")):
        found = judged(cnnbench, "weights=r", *typed)[0]
        assert (found["n"], found["split"], found["loss"]) == (4, "held-out", pytest.approx(trained["loss"]))
        assert judged(cnnbench, "weights=r", "split=test", *typed)[0]["n"] == 6
    picture(99).save(moved / "cat" / "new.jpg")
    assert judged(cnnbench, "weights=r", f"data.root={moved}")[0]["n"] == 21


BF16 = ("data.image_size=16", "data.fraction=0.2", "batch_size=50", "device=cpu", "run.dir=r")


@pytest.mark.parametrize(
    "command",
    [
        ("train", "epochs=1"),
        ("train", "epochs=2", "ema=0.9", "max_steps=9"),
        ("train", "epochs=1", "crop=six", "data.crop_ratio=0.9"),
        ("finetune", "transfer=svm", "weights=zoo:resnet20-cifar10", "transfer.c=[0.001]"),
        ("finetune", "transfer=head", "epochs=1", "weights=zoo:resnet20-cifar10", "transfer.probe=false"),
    ],
)
def test_a_training_in_bf16_is_measured_in_fp32_as_evaluate_does(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(device, "_best_dtype", lambda device: torch.bfloat16)  # also where a CPU has no bf16
    crop = [text for text in command if text.startswith("crop=")]
    ran = cnnbench(*command, *BF16)
    assert ran.code == 0, ran.err
    assert "bf16" in ran.out and "; the result measured in fp32" in ran.out and "fp32) " in ran.out.splitlines()[-1]
    trained, last = read_json(tmp_path / "r/result.json"), rows(tmp_path / "r")[-1]
    assert (trained["precision"], trained["training_precision"]) == ("fp32", "bf16")
    assert last["loss/val"] != trained["loss"]  # validated in bf16 after each epoch, which is faster
    judged = cnnbench("evaluate", "weights=r", "device=cpu", "format=json", *crop)
    found = json.loads(judged.out)
    same = ("top1_error", "top5_error", "n", "precision", "crop")
    assert {key: found[key] for key in same} == {key: trained[key] for key in same}
    assert found["loss"] == pytest.approx(trained["loss"], rel=1e-5)


def test_a_precision_that_training_was_told_by_name_is_that_of_its_numbers(
    cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    ran = cnnbench("train", "epochs=1", "precision=bf16", *BF16)
    assert ran.code == 0 and "measured in" not in ran.out, ran.err
    trained = read_json(tmp_path / "r/result.json")
    assert trained["precision"] == trained["training_precision"] == "bf16"
    assert trained["loss"] == rows(tmp_path / "r")[-1]["loss/val"]
    for args, precision in (([], "bf16"), (["precision=fp32"], "fp32")):
        judged = cnnbench("evaluate", "weights=r", "device=cpu", *args)
        assert f"measured: center 16, bilinear, {precision}; 359 test images" in judged.out, judged.err
    told = cnnbench("report", "outputs", "r")
    assert "bf16" in told.out and "fp32" in told.out


def test_evaluations_do_not_overwrite_each_other_or_the_training(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert cnnbench("train", "epochs=1", f"run.name={name}", *SMALL).code == 0
    weights = [f"outputs/train/{name}" for name in ("one", "two", "two/checkpoints/best.pt")]
    ran = cnnbench("evaluate", "-m", f"weights={','.join(weights)}", "sweep.dir=s")
    assert ran.code == 0, ran.err
    assert len([path for path in (tmp_path / "s").iterdir() if path.is_dir() and path.name != ".sweep"]) == 3
    assert "top1_error" in ran.out.splitlines()[-4] and "-" not in ran.out.splitlines()[-1].split()[2]
    refused = cnnbench("evaluate", "weights=outputs/train/one", "run.dir=outputs/train/one")
    assert (refused.code, "holds a training" in refused.err) == (2, True)


def test_evaluate_takes_another_size_and_normalisation(cnnbench: Callable[..., Ran]) -> None:
    assert cnnbench("train", "epochs=1", "run.dir=r", *SMALL).code == 0
    command = ("evaluate", "weights=r", "precision=fp32", "format=json")
    plain, other = (json.loads(cnnbench(*command, *more).out) for more in ((), ("data.mean=[0.9]",)))
    assert plain["loss"] != other["loss"]
    assert json.loads(cnnbench(*command, "data.image_size=16").out)["crop"] == "center 16"
    ran = cnnbench(*command, "data.root=photos")
    assert ran.err.count("data.root=photos has no effect with data=digits") == 1, (
        "the weights say that it is the digits"
    )


def test_evaluate_refuses_data_with_other_classes(cnnbench: Callable[..., Ran]) -> None:
    assert cnnbench("train", "epochs=1", "run.dir=r", *SMALL).code == 0
    ran = cnnbench("evaluate", "weights=r", "data=synthetic", "data.num_images=40")
    assert (ran.code, "was trained for other classes than those of synthetic" in ran.err) == (2, True)


def test_of_two_classes_no_top_5_error_is_printed_or_kept(
    cnnbench: Callable[..., Ran], tmp_path: Path, no_pictures: None
) -> None:
    """By a training, its report, and `evaluate`; and a search for it is refused by what there is."""
    on = ("data=synthetic", "data.num_classes=2", "data.num_images=40", "data.image_size=8")
    trained = cnnbench("train", *on, "model=resnet8", "epochs=1", "batch_size=20", "run.dir=r", *CPU)
    judged = cnnbench("evaluate", "weights=r", "run.dir=e", *CPU)
    report = cnnbench("report", "r", "e")
    for ran in (trained, judged, report):
        assert ran.code == 0 and "top-1" in ran.out, ran.err
        assert "top-5" not in ran.out
    for folder in ("r", "e"):
        result = read_json(tmp_path / folder / "result.json")
        assert "top5_error" not in result and [one["name"] for one in result["metrics"]] == ["top1_error"]
        assert answers.read(tmp_path / folder / "answers.csv").images == ["0", "1", "2", "3"]
