"""`cnnbench evaluate calibrate=true`: a temperature, fitted on validation images and kept with the weights."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional

import cnnbench as package
from cnnbench import data
from cnnbench.config.parsing import from_plain
from cnnbench.config.sections import DataConfig
from cnnbench.runs import run_directory
from cnnbench.tasks.classification import mistakes, plots
from cnnbench.utils import files
from cnnbench.utils.files import read_json
from cnnbench.weights import checkpoint, fitted, sources
from tests.helpers.runs import Ran, rows, weights
from tests.helpers.trained import digits_run

pytestmark = pytest.mark.usefixtures("no_pictures")

CPU = ("precision=fp32", "device=cpu")
TRAIN = ("train", "data.val_fraction=0.2", "data.image_size=16", *CPU, "run.dir=r")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A resnet8 of two epochs on the digits, of which it has not seen a fifth: its probabilities are too low."""
    from cnnbench.cli import main

    path = tmp_path_factory.mktemp("trained") / "r"
    assert main.main([*TRAIN[:-1], "epochs=2", f"run.dir={path}"]) == 0
    return path


@pytest.fixture(autouse=True)
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in the folder of the test; pictures are not drawn."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "r")
    monkeypatch.setattr(mistakes, "draw_cards", lambda *rest: None)
    for picture in ("plot_confusion_matrix", "plot_calibration", "plot_coverage"):
        monkeypatch.setattr(plots, picture, lambda *rest: None)
    return tmp_path / "r"


def held_out(run: Path) -> tuple[Tensor, Tensor]:
    """Logits and targets of the run's validation images, without `evaluate`."""
    loaded = sources.load(str(run))
    assert loaded.spec is not None and loaded.config is not None
    dataset = data.load_dataset(from_plain(DataConfig, loaded.config["data"]))
    assert isinstance(dataset.val, data.Arrays) and dataset.split == "held-out"
    images = functional.resize(dataset.val.images, [16, 16]).float() / 255
    with torch.no_grad():
        logits = sources.build(loaded)((images - loaded.spec.input.mean[0]) / loaded.spec.input.std[0])
    return logits, dataset.val.targets


def loss_at(logits: Tensor, targets: Tensor, temperature: float) -> float:
    return F.cross_entropy(logits.double() / temperature, targets).item()


def evaluated(cnnbench: Callable[..., Ran], *args: str) -> dict[str, Any]:
    ran = cnnbench("evaluate", *args, *CPU, "format=json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def kept(where: str) -> float:
    spec = sources.load(where).spec
    assert spec is not None
    return spec.extra["temperature"]


def test_the_temperature_is_that_of_an_independent_fit_and_is_kept(cnnbench: Callable[..., Ran], run: Path) -> None:
    logits, targets = held_out(run)
    found = minimize_scalar(lambda log: loss_at(logits, targets, math.exp(log)), bounds=(-4, 4), method="bounded",
                            options={"xatol": 1e-9})  # fmt: skip
    before = evaluated(cnnbench, "weights=r")
    result = evaluated(cnnbench, "weights=r", "calibrate=true")
    change = result["calibration"]
    assert change["temperature"] == pytest.approx(math.exp(found.x), rel=1e-3)
    assert change["fitted_on"] == {"split": "held-out", "n": len(targets)}
    assert change["loss_before"] == pytest.approx(before["loss"], rel=1e-6)
    assert change["loss_after"] == result["loss"] == pytest.approx(found.fun, rel=1e-4)
    assert change["calibration_error_before"] == before["calibration_error"]
    assert change["calibration_error_after"] == result["calibration_error"] < before["calibration_error"]
    assert (result["top1_wrong"], result["top5_wrong"]) == (before["top1_wrong"], before["top5_wrong"])
    assert result["stored"] == "r/checkpoints/last.pt" and kept("r") == change["temperature"]
    assert result["protocol"]["temperature"] == change["temperature"] and before["protocol"]["temperature"] is None

    after = evaluated(cnnbench, "weights=r")
    assert (after["loss"], after["calibration"]) == (pytest.approx(result["loss"], rel=1e-6), None)
    again = evaluated(cnnbench, "weights=r", "calibrate=true")["calibration"]
    assert again.pop("fitted_on") == change.pop("fitted_on") and again == pytest.approx(change, rel=1e-6)


def test_a_person_is_told_what_it_changed_and_where_it_is(cnnbench: Callable[..., Ran], run: Path) -> None:
    ran = cnnbench("evaluate", "weights=r", "calibrate=true", *CPU)
    line = next(line for line in ran.out.splitlines() if line.startswith("temperature "))
    assert ", fitted on these images: loss " in line and "calibration error" in line and "->" in line
    assert "stored in r/checkpoints/last.pt: evaluate, predict, visualize and export use it from now on" in ran.out
    other = cnnbench("evaluate", "weights=r", "calibrate=true", "split=train", *CPU)
    assert f"fitted on {len(held_out(run)[1])} held-out images: loss " in other.out


@pytest.mark.parametrize("split", ["train", "test"])
def test_on_other_images_the_temperature_is_that_of_the_validation_images(
    cnnbench: Callable[..., Ran], run: Path, split: str
) -> None:
    val = evaluated(cnnbench, "weights=r", "calibrate=true")["calibration"]
    other = evaluated(cnnbench, "weights=r", "calibrate=true", f"split={split}")
    assert other["calibration"]["temperature"] == pytest.approx(val["temperature"], rel=1e-9)
    assert other["calibration"]["fitted_on"] == val["fitted_on"] and other["split"] == split
    assert other["n"] != val["fitted_on"]["n"]


def test_predict_and_export_use_it(cnnbench: Callable[..., Ran], run: Path, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(255, size=(16, 16), dtype=np.uint8)).save("a.png")
    asked = ("predict", "a.png", "weights=r", *CPU, "top=10", "format=json")
    plain = json.loads(cnnbench(*asked).out)[0]["predictions"]
    evaluated(cnnbench, "weights=r", "calibrate=true")
    temperature = kept("r")
    ran = cnnbench(*asked)
    assert ran.err == f"r/checkpoints/last.pt: probabilities by its temperature {temperature:.3g}\n"
    calibrated = json.loads(ran.out)[0]["predictions"]
    assert [one["class"] for one in calibrated] == [one["class"] for one in plain]
    logs = torch.tensor([one["probability"] for one in plain], dtype=torch.float64).log() / temperature
    expected = logs.softmax(0).tolist()
    assert [one["probability"] for one in calibrated] == pytest.approx(expected, rel=1e-4)
    best = package.load("r", device="cpu").predict("a.png")[0].best
    assert best.probability == pytest.approx(expected[0], rel=1e-4)

    ran = cnnbench("export", "weights=r", "format=exported_program", "out=r.pt2")
    assert ran.code == 0 and ran.out.count("temperature") == 1, ran.err
    inputs = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = sources.build(sources.load("r"))(inputs)
        torch.testing.assert_close(torch.export.load("r.pt2").module()(inputs), logits / temperature)
    assert (
        read_json(tmp_path / "r.json")["temperature"] == 1 and "divided" not in read_json(tmp_path / "r.json")["steps"]
    )
    assert cnnbench("export", "weights=r", "format=safetensors", "out=s.safetensors").code == 0
    assert read_json(tmp_path / "s.json")["temperature"] == temperature == kept("s.safetensors")
    assert read_json(tmp_path / "s.json")["steps"][-1].startswith("softmax of the logits, divided by the temperature,")


def test_a_file_of_safetensors_keeps_it_too(cnnbench: Callable[..., Ran], run: Path) -> None:
    assert cnnbench("export", "weights=r", "format=safetensors", "out=s.safetensors").code == 0
    ran = cnnbench("evaluate", "weights=s.safetensors", "data=digits", "data.val_fraction=0.2", "calibrate=true", *CPU)
    assert ran.code == 0 and "does not say on which images its net was trained" in ran.err, ran.err
    copy, before = sources.load("s.safetensors"), sources.load("r")
    assert all(torch.equal(copy.state[name], before.state[name]) for name in before.state)
    evaluated(cnnbench, "weights=r", "calibrate=true")
    assert kept("s.safetensors") == pytest.approx(kept("r"), rel=1e-6)


def test_a_run_trains_on_as_if_it_had_not_been_calibrated(cnnbench: Callable[..., Ran], run: Path) -> None:
    shutil.copytree(run, run.with_name("other"))
    evaluated(cnnbench, "weights=r", "calibrate=true")
    again = cnnbench(*TRAIN, "epochs=2")
    assert again.code == 0 and "already done" in again.err + again.out and "dropped" not in again.err
    assert kept("r") > 0
    more = ("epochs=3", "resume=force")
    ran = cnnbench(*TRAIN, *more)
    assert ran.code == 0, ran.err
    assert "the temperature of these weights is dropped, since they train on: fit it again afterwards" in ran.err
    assert cnnbench(*TRAIN[:-1], "run.dir=other", *more).code == 0
    other = run.with_name("other")
    assert all(torch.equal(one, weights(other)[name]) for name, one in weights(run).items())
    losses = [[row["loss/val"] for row in rows(path)] for path in (run, other)]
    assert losses[0] == losses[1] and len(losses[0]) == 3
    spec = sources.load("r").spec
    assert spec is not None and "temperature" not in spec.extra


def test_a_net_without_validation_images_is_refused(cnnbench: Callable[..., Ran], run: Path) -> None:
    before = (run / "checkpoints/last.pt").read_bytes()
    test = cnnbench("evaluate", "weights=r", "data.val_fraction=0", "calibrate=true", *CPU)
    assert test.code == 2 and "never on a test split" in test.err
    assert "add data.val_fraction=0.2, which this net was trained with" in test.err
    seen = cnnbench("evaluate", "weights=r", "data.val_fraction=0.3", "calibrate=true", *CPU)
    assert seen.code == 2 and "was trained with data.val_fraction=0.2, not 0.3" in seen.err
    never = cnnbench("evaluate", f"weights={digits_run()}", "calibrate=true", *CPU)
    assert never.code == 2 and "train with data.val_fraction=0.2" in never.err
    assert (run / "checkpoints/last.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("weights=[r,r]",), "calibrate fits a temperature to one net"),
        (("weights=r", "crop=six"), "leave crop=six out"),
        (("weights=r", "try_variants=true"), "leave calibrate out"),
        (("weights=r", "weights_key=model"), "weights_key=model: "),
        (("weights=zoo:resnet20-cifar10", "data=cifar10"), "export weights=… format=safetensors out=FILE"),
    ],
)
def test_what_cannot_be_calibrated_is_said_before_the_work(
    cnnbench: Callable[..., Ran], args: tuple[str, ...], said: str
) -> None:
    ran = cnnbench("evaluate", *args, "calibrate=true", *CPU)
    assert ran.code == 2 and said in ran.err and ran.err.count("\n") <= 3, ran.err


def test_a_run_that_is_training_is_left_alone(cnnbench: Callable[..., Ran], run: Path) -> None:
    lock = files.try_lock(run / ".lock")
    assert lock is not None
    with lock:
        ran = cnnbench("evaluate", "weights=r", "calibrate=true", *CPU)
    assert ran.code == 2 and "another process is training r: wait until it is done" in ran.err


def test_what_cannot_be_stored_costs_no_result(
    cnnbench: Callable[..., Ran], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (run / "checkpoints/last.pt").read_bytes()

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_zip_with_checksum", full)
    ran = cnnbench("evaluate", "weights=r", "calibrate=true", "run.dir=e", *CPU)
    result = read_json(run.with_name("e") / "result.json")
    assert ran.code == 1 and "what was fitted is not stored" in ran.err and "No space left" in ran.err
    assert result["stored"] is None and len(result["warnings"]) == 1 and result["calibration"]["temperature"] > 0
    assert "stored in" not in ran.out and (run / "checkpoints/last.pt").read_bytes() == before


def test_weights_that_have_changed_meanwhile_are_not_given_it(run: Path) -> None:
    before = sources.load("r")
    content = checkpoint.load(run / "checkpoints/last.pt")
    content["model"] = {name: value + 1 for name, value in content["model"].items()}
    checkpoint.save(run / "checkpoints/last.pt", content)
    with pytest.raises(ValueError, match="holds other weights by now"):
        fitted.store(before, {"temperature": 2.0})
    with run_directory.at_rest(run / "checkpoints/last.pt"):
        fitted.store(sources.load("r"), {"temperature": 2.0})
    assert kept("r") == 2.0 and kept("r/checkpoints/last.pt") == 2.0


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, "2"])
def test_a_temperature_that_is_none_is_refused(run: Path, value: Any) -> None:
    content = checkpoint.load(run / "checkpoints/last.pt")
    content["spec"]["extra"]["temperature"] = value
    checkpoint.save(run / "checkpoints/last.pt", content)
    with pytest.raises(ValueError, match=r"spec\.extra\.temperature is .*, not a finite number above 0\.001"):
        sources.load("r")
