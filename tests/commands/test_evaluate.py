"""`cnnbench evaluate`: exact numbers by a named protocol, and what is left behind of them."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import get_model, get_model_weights
from torchvision.transforms.v2 import functional

from cnnbench import data
from cnnbench.config.parsing import restore
from cnnbench.config.sections import DataConfig
from cnnbench.output import image_grid, plots
from cnnbench.tasks.classification import evaluation, report
from cnnbench.tasks.classification.metrics import judge, wilson
from cnnbench.utils.files import read_json
from cnnbench.weights import sources
from tests.helpers.data import data_config, picture
from tests.helpers.runs import Ran
from tests.helpers.trained import colour_run, digits_run, foreign_file, random_net

CPU = ("precision=fp32", "device=cpu")
LEFT = ("result.json", "confusion_matrix.png", "confusion_matrix.csv", "classes.csv", "calibration.png", "mistakes.png")


def evaluated(cnnbench: Callable[..., Ran], *args: str) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:  # the numbers alone: pictures take longer than they do
        for module, picture in ((plots, "confusion_matrix"), (image_grid, "calibration"), (image_grid, "draw")):
            patch.setattr(module, picture, lambda *rest: None)
        ran = cnnbench("evaluate", *args, *CPU, "format=json")
    assert ran.code == 0, ran.err
    assert ran.err == ""
    return json.loads(ran.out)


def digits_logits() -> tuple[Tensor, Tensor]:
    """Of the run's net on the test set, without any of evaluate's ways: one batch, torchvision's resizing."""
    loaded = sources.load(str(digits_run()))
    assert loaded.inference is not None and loaded.config is not None
    known = loaded.inference
    dataset = data.load_dataset(restore(DataConfig, loaded.config["data"]))
    assert isinstance(dataset.val, data.Arrays)
    images = functional.resize(dataset.val.images, [16, 16]).float() / 255
    with torch.no_grad():
        return sources.build(loaded)((images - known.mean[0]) / known.std[0]), dataset.val.targets


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
        "averaged": None,
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
    results = [evaluated(cnnbench, *few, *args, f"batch_size={size}") for size in (9, 300)]
    assert results[0]["crop"] == results[1]["crop"] == text
    assert results[0]["protocol"]["views"] == count
    assert (results[0]["protocol"]["averaged"] is None) == (count == 1)
    keys = ("top1_wrong", "top5_wrong", "n")
    assert [results[0][key] for key in keys] == [results[1][key] for key in keys]
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], rel=1e-4)
    assert "bicubic" in results[0]["protocol"]["interpolation"] or "bicubic" not in args[0]


def test_views_are_averaged_after_the_softmax() -> None:
    logits = torch.randn(5, 10, 3, generator=torch.Generator().manual_seed(0)) * 4
    mean = evaluation.averaged(logits)
    torch.testing.assert_close(mean.exp(), logits.softmax(2).mean(1))
    assert torch.equal(evaluation.averaged(logits[:, :1]), logits[:, 0])


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
    whole = judge(logits, targets)
    shares = [judge(logits[part], targets[part]) for part in (slice(0, 179), slice(179, None))]
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


def test_an_evaluation_leaves_tables_and_pictures(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    ran = cnnbench("evaluate", f"weights={digits_run()}", "run.dir=e", *CPU)
    assert ran.code == 0, ran.err
    path = tmp_path / "e"
    assert all((path / name).stat().st_size > 0 for name in LEFT)
    logits, targets = digits_logits()
    verdict = judge(logits, targets)
    with (path / "confusion_matrix.csv").open() as file:
        head, *rows = csv.reader(file)
    assert head[1:] == [row[0] for row in rows] == [str(digit) for digit in range(10)]
    assert [[int(count) for count in row[1:]] for row in rows] == verdict.confusion.tolist()
    with (path / "classes.csv").open() as file:
        classes = list(csv.DictReader(file))
    assert sum(int(row["wrong"]) for row in classes) == verdict.top1_wrong
    assert float(classes[3]["error"]) == pytest.approx(100 * int(classes[3]["wrong"]) / int(classes[3]["n"]))
    result = read_json(path / "result.json")
    counts = [pair["images"] for pair in result["confused"]]
    assert counts == sorted(counts, reverse=True) and counts[0] == plots.confused(verdict.confusion.numpy(), 1)[0][0]
    assert "true \\ answer" in ran.out and "Most often confused:" in ran.out
    assert f"top-1 error {verdict.top1_error:.2f} % (95 %: " in ran.out
    assert ran.out.strip().endswith("-> e")

    events = EventAccumulator(str(path), size_guidance={"images": 0})
    events.Reload()
    assert {"top1_error/test", "top5_error/test", "loss/test", "calibration_error/test"} <= set(
        events.Tags()["scalars"]
    )
    assert set(events.Tags()["images"]) == {"confusion_matrix", "calibration", "mistakes"}
    again = cnnbench("evaluate", f"weights={digits_run()}", "run.dir=e", *CPU)
    assert again.code == 0 and len(list(path.glob("events*"))) == 1


def test_a_net_without_mistakes_has_no_sheet_of_them() -> None:
    dataset = data.load_dataset(data_config("digits"))
    logits = F.one_hot(dataset.val.targets, 10).float() * 9
    assert report.mistakes(dataset.val, dataset.classes, logits) == []
    verdict = judge(logits, dataset.val.targets)
    assert report.confused(verdict, dataset.classes) == []
    assert report.headline(verdict)["top1_interval"][1] == pytest.approx(1.06, abs=0.01)


def test_the_worst_mistakes_show_the_truth_and_the_answer() -> None:
    dataset = data.load_dataset(data_config("digits"))
    logits, _ = digits_logits()
    cells = report.mistakes(dataset.val, dataset.classes, logits)
    assert 0 < len(cells) <= report.WORST
    for cell in cells:
        assert cell.picture.shape[2] == 3
        (truth,) = [name for name, _, true in cell.bars if true]
        assert cell.title == truth != cell.bars[0][0]
    losses = [next(p for _, p, true in cell.bars if true) for cell in cells]
    assert losses == sorted(losses)


def test_many_classes_are_listed_by_their_errors() -> None:
    classes = [f"class {index}" for index in range(40)]
    targets = torch.arange(400) % 40
    verdict = judge(F.one_hot((targets * 3) % 40, 40).float(), targets)
    result = {**report.headline(verdict), "crop": "center 8", "split": "val", "images_per_second": 1.0, "shift": None,
              "protocol": {"interpolation": "bilinear", "averaged": None}, "run_dir": "r"}  # fmt: skip
    page = report.page(result, verdict, classes)
    assert "The 10 classes with the largest errors" in page
    assert len(page.splitlines()) < 25
    assert report.page(result, verdict, classes, brief=True).startswith("top-1 error")


def test_names_that_look_the_same_when_shortened_are_not_put_into_one_column() -> None:
    classes = ["Canis lupus familiaris A lupus", "Canis lupus familiaris B lupus"]
    verdict = judge(torch.eye(2), torch.tensor([0, 0]))
    rows = report.per_class(verdict, classes)
    assert [row["n"] for row in rows] == [2, 0] and rows[1]["error"] is None
    assert report._tables(verdict, classes)


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
    result = evaluated(cnnbench, f"weights={file}", "model=resnet20", "weights_rename={linear: fc}", *on)
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
        (tmp_path / "imagenet/train" / name / "0.ppm").symlink_to(tmp_path / "missing")
        picture(number % 40, 30, 24).save(tmp_path / "imagenet/val" / name / "0.ppm")
    result = evaluated(cnnbench, "model=torchvision", "model.name=squeezenet1_1", "weights=imagenet", "data=imagenet",
                       "data.root=.", "data.image_size=32", "data.workers=0", "data.crop_ratio=1.0")  # fmt: skip
    assert (result["n"], result["split"], result["crop"]) == (1000, "val", "center 32")
    transform = get_model_weights("squeezenet1_1").DEFAULT.transforms(crop_size=32, resize_size=32)
    files = [tmp_path / "imagenet/val" / name / "0.ppm" for name in ids]
    with torch.no_grad():
        logits = theirs(torch.stack([transform(Image.open(file)) for file in files]))
    assert result["top1_wrong"] == int((logits.argmax(1) != torch.arange(1000)).sum())
    loaded = sources.load("imagenet", {"source": "torchvision", "name": "squeezenet1_1"})
    assert loaded.inference is not None
    assert (loaded.inference.image_size, loaded.inference.crop_ratio) == (224, 0.875)


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
    ran = cnnbench("evaluate", f"weights={colour_run()}", *on, "data.num_classes=3")
    assert (ran.code, "it has 10 classes, the data 3" in ran.err) == (2, True)
    ran = cnnbench("evaluate", f"weights={colour_run()}", "data=digits")
    assert (ran.code, "it has 'class 0' where the data has '0'" in ran.err) == (2, True)
    ran = cnnbench("evaluate", f"weights={digits_run()}", "model=resnet20")
    assert (ran.code, "is of resnet8, not of resnet20" in ran.err) == (2, True)
    ran = cnnbench("evaluate", f"weights={digits_run()}", "weights_rename={a: b}")
    assert (ran.code, "needs neither" in ran.err) == (2, True)


def test_gray_images_are_given_to_a_net_that_takes_colour(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    assert cnnbench("train", "epochs=1", "max_steps=2", "run.dir=r", "data.image_size=8", *CPU).code == 0
    loaded = sources.load("r")
    assert loaded.inference is not None
    colour = random_net("resnet8", 10)
    inference = replace(loaded.inference, in_channels=3, mean=[0.3] * 3, std=[0.4] * 3)
    sources.save_safetensors(tmp_path / "c.safetensors", colour.state_dict(), inference)
    assert evaluated(cnnbench, "weights=c.safetensors", "data=digits")["n"] == 359


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
