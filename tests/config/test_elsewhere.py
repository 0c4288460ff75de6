"""Nets that other packages have, named where somebody asks for them."""

import torchvision

from cnnbench.config import elsewhere
from cnnbench.models import MODELS


def test_names_are_those_that_torchvision_registers():
    kinds = (torchvision.models, torchvision.models.segmentation)
    assert set(elsewhere.names("torchvision")) == {
        name for one in kinds for name in torchvision.models.list_models(one)
    }
    assert elsewhere.names("no_such_package") == []


def test_hints(cnnbench):
    ours = [*MODELS]
    assert elsewhere.hint("densenet121", ours) == "torchvision has it: model=torchvision model.name=densenet121"
    assert elsewhere.hint("densnet121", ours) == "Did you mean torchvision's, model=torchvision model.name=densenet121?"
    assert [elsewhere.hint(name, ours) for name in ("resnet21", "vgg17", "resnte18", "xyz")] == [""] * 4
    told = cnnbench("train", "model=densenet121")
    first, second = told.err.splitlines()
    assert told.code == 2 and second.startswith("choices: airbench, ")
    assert (
        first == "cnnbench: unknown model 'densenet121'. torchvision has it: model=torchvision model.name=densenet121"
    )
