"""Features of a net: what they are, and that those on the disk are of the same weights and images."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from cnnbench import models
from cnnbench.data import Arrays, Dataset
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.layers import Net, output_layer
from cnnbench.runtime.device import create_runtime
from cnnbench.transfer import features
from cnnbench.transfer.features import PENULTIMATE


def colours(n: int = 60, classes: int = 3) -> Dataset:
    """Noise in a colour of each class: easy for any features."""
    rng = np.random.default_rng(0)
    targets = torch.arange(n) % classes
    images = torch.from_numpy(rng.integers(0, 120, size=(n, 3, 32, 32), dtype=np.uint8))
    images[torch.arange(n), targets] += 100
    source = Arrays(images, targets)
    few = source.subset(torch.arange(12))
    return Dataset(name="colours", classes=["r", "g", "b"][:classes], mean=(0.5,) * 3, std=(0.25,) * 3, image_size=32,
                   crop_ratio=1.0, in_channels=3, train=source, val=few, split="val")  # fmt: skip


def extractor(model: Net, dataset: Dataset, folder: Path | None = None) -> features.FeatureExtractor:
    spec = ModelSpec.of({"name": "resnet8"}, dataset, 32)
    runtime = create_runtime("cpu", "fp32", 0)
    return features.FeatureExtractor(model, dataset, spec, runtime, folder=folder, workers=0, stream=io.StringIO())


def test_penultimate_features_through_the_output_layer_are_the_logits() -> None:
    dataset = colours()
    for name, arguments in (("resnet8", {}), ("nin_cifar", {"final_relu": False}),
                            ("squeezenet1_0", {"source": "torchvision", "final_relu": False})):  # fmt: skip
        torch.manual_seed(0)
        model = models.build(name, num_classes=3, **arguments)
        found = extractor(model, dataset)(dataset.val, [PENULTIMATE])[PENULTIMATE]
        layer = output_layer(model)
        logits = found @ layer.weight.flatten(1).T + layer.bias
        images = dataset.val.images.float() / 255 / 0.25 - 2
        assert torch.allclose(logits, model.eval()(images), atol=1e-3), name


def test_features_of_stages_are_their_outputs_averaged_over_a_grid() -> None:
    dataset, model = colours(), models.build("resnet8", num_classes=3)
    found = extractor(model, dataset)(dataset.val, ["layer2"])["layer2"]
    images = dataset.val.images.float() / 255 / 0.25 - 2
    model.eval()
    maps = model.layer2(model.layer1(model.relu(model.bn1(model.conv1(images)))))  # 32 x 16 x 16
    blocks = maps.unflatten(2, (8, 2)).unflatten(4, (8, 2)).mean((3, 5))  # 32 x 8 x 8
    assert torch.allclose(found, blocks.flatten(1), atol=1e-4)


def test_features_are_read_from_the_disk_unless_weights_or_images_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, model = colours(), models.build("resnet8", num_classes=3)
    extract, computed = features.extract_features, []
    monkeypatch.setattr(features, "extract_features", lambda *args: computed.append(args[1]) or extract(*args))
    first = extractor(model, dataset, tmp_path)(dataset.train, ["layer1", PENULTIMATE])
    again = extractor(model, dataset, tmp_path)(dataset.train, ["layer1", PENULTIMATE])
    assert len(computed) == 1
    assert all(torch.equal(first[name], again[name]) for name in first)
    with torch.no_grad():
        model.fc.weight += 1  # behind the features
    extractor(model, dataset, tmp_path)(dataset.train, [PENULTIMATE])
    assert len(computed) == 1
    model.bn1.running_mean += 0.1
    extractor(model, dataset, tmp_path)(dataset.train, [PENULTIMATE])
    assert len(computed) == 2
    extractor(model, colours(66), tmp_path)(colours(66).train, [PENULTIMATE])
    assert len(computed) == 3


@pytest.mark.parametrize("damage", ["half", "empty", "zeros", "width", "other layer", "unsealed", "flip", "folder"])
def test_cached_features_that_are_not_what_was_written_are_computed_anew_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    dataset, model = colours(), models.build("resnet8", num_classes=3)
    true = extractor(model, dataset, tmp_path)(dataset.val, [PENULTIMATE])[PENULTIMATE]
    [file] = tmp_path.glob("*.pt")
    content = file.read_bytes()
    if damage == "other layer":
        extractor(model, dataset, tmp_path)(dataset.val, ["layer1"])
        [other] = set(tmp_path.glob("*.pt")) - {file}
        other.replace(file)
    elif damage == "folder":
        file.unlink()
        file.mkdir()
    elif damage in ("zeros", "width", "unsealed"):
        torch.save({"name": file.name, "features": torch.zeros(12, 63 if damage == "width" else 64)}, file)
    else:
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 4
        file.write_bytes({"half": content[: len(content) // 2], "empty": b"", "flip": bytes(flipped)}[damage])
    capsys.readouterr()
    again = extractor(model, dataset, tmp_path)(dataset.val, [PENULTIMATE])[PENULTIMATE]
    assert torch.equal(again, true)
    assert f"{file} is damaged or holds other features: they are computed anew" in capsys.readouterr().err
    extractor(model, dataset, tmp_path)(dataset.val, [PENULTIMATE])
    assert bool(capsys.readouterr().err) is (damage == "folder")  # sealed again
