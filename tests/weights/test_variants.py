"""What a file of tensors does not say: found out, said, and tried."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cnnbench import models
from cnnbench.weights import sources
from cnnbench.weights.variants import normalisations, settings, variants
from tests.helpers.runs import Ran
from tests.helpers.trained import digits_run, foreign_file, photo_run

pytestmark = pytest.mark.usefixtures("no_pictures")

ON = ("model=resnet8", "weights_rename={linear: fc}", "data=digits", "data.image_size=16", "device=cpu")


@pytest.mark.parametrize(
    ("name", "arguments", "others"),
    [
        ("resnet20", {}, ["model.shortcut_pad=both", "model=plain20"]),
        ("resnet34", {}, []),
        ("resnet34", {"shortcut": "A"}, ["model.shortcut_pad=both", "model=plain34"]),
        ("resnet50", {}, ["model=resnet50_v1"]),
        ("resnet50_v1", {}, ["model=resnet50"]),
        ("googlenet_tv", {}, ["model.transform_input=true"]),
        ("vgg16", {}, []),
        ("ssd", {}, []),
        ("alexnet", {}, ["model.overlap_pool=false", "model.lrn=false", "model.lrn=false model.overlap_pool=false"]),
    ],
)
def test_variants_share_names_and_shapes_but_not_the_function(
    compose: Callable[..., Any], name: str, arguments: dict[str, Any], others: list[str]
) -> None:
    model = {**compose("summary", f"model={name}").model, **arguments}
    found = variants(model)
    assert [settings(one, model) for one in found] == others
    own = models.build(**{key: value for key, value in model.items() if value is not None}) if found else None
    for one in found[:1]:
        assert own is not None
        net = models.build(**one)
        net.load_state_dict(own.state_dict())
        image = torch.randn(2, 3, net.image_size, net.image_size)
        with torch.no_grad():
            assert not torch.allclose(net.eval()(image), own.eval()(image), atol=1e-6)


def test_normalisations_fit_the_channels_and_come_once() -> None:
    assert normalisations([0.5], [0.5])[:2] == [([0.5], [0.5]), ([0.485], [0.229])]
    found = normalisations([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert len(found) == 6 and found[0][0] == [0.485, 0.456, 0.406]


def foreign_digits(tmp_path: Path) -> str:
    return f"weights={foreign_file(sources.build(sources.load(str(digits_run()))), tmp_path / 'r.th')}"


def test_a_trial_says_which_variant_fits(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    ran = cnnbench("evaluate", foreign_digits(tmp_path), *ON, "model.shortcut_pad=both", "try_variants=true")
    assert ran.code == 0 and "fits best: model.shortcut_pad=end" in ran.out, ran.err
    found = json.loads(cnnbench("evaluate", foreign_digits(tmp_path), *ON, "try_variants=true", "format=json").out)
    assert {"as given", "model.shortcut_pad=both", "model=plain8"} & {row["settings"] for row in found} == {
        "as given", "model.shortcut_pad=both", "model=plain8",
    }  # fmt: skip
    errors = [row["top1_error"] for row in found]
    assert errors == sorted(errors) and errors[0] < 40 < errors[-1]
    assert not (tmp_path / "outputs").exists()
    refused = cnnbench("evaluate", f"weights={digits_run()}", "try_variants=true")
    assert (refused.code, "try_variants is for weights that do not say" in refused.err) == (2, True)


def test_what_is_assumed_is_said_and_guessing_is_a_warning(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    weights = foreign_digits(tmp_path)
    right = cnnbench("evaluate", weights, *ON, "format=json")
    assert right.err.splitlines()[-3:] == [
        f"classes: {tmp_path}/r.th names none, so they are taken to be the data's, in their order",
        f"net: {tmp_path}/r.th may be of a variant with the same names and shapes: model.shortcut_pad=both or "
        "model=plain8",
        "images: normalised as digits usually is; set data.mean and data.std if the weights need others",
    ]
    assert json.loads(right.out)["warnings"] == []
    wrong = cnnbench("evaluate", weights, *ON, "format=json", "data.mean=[1]", "data.std=[0.02]")
    (warning,) = json.loads(wrong.out)["warnings"]
    assert json.loads(wrong.out)["loss"] > math.log(10)
    assert f"warning: {warning}" in wrong.err and "try_variants=true tells which" in warning
    small = ("epochs=1", "data.fraction=0.1", "weights_skip=[fc]")
    typed = ("data.mean=[0.3]", "data.std=[0.38]")
    for command in (("train", *small), ("finetune", "transfer=head", *small, *typed)):
        said = cnnbench(*command, weights, *ON)
        assert said.code == 0 and "may be of a variant" in said.out + said.err, said.err
        assert ("normalised as digits usually is" in said.out + said.err) == (command[0] == "train"), said.out


def test_a_trial_of_few_classes_has_no_top5_error(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    """Of three classes it would always be 0."""
    torch.save(sources.load(str(photo_run())).state, tmp_path / "w.pt")
    ran = cnnbench(
        "evaluate", "weights=w.pt", "model=resnet8", "data=folder", f"data.root={photo_run().parent / 'd'}",
        "data.image_size=16", "device=cpu", "try_variants=true",
    )  # fmt: skip
    assert ran.code == 0 and "top1_error" in ran.out and "top5_error" not in ran.out, ran.err
