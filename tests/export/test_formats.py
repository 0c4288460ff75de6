"""`cnnbench export`: every family as every kind of file, the same numbers as the net itself, and how it is told of."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
import torch
from PIL import Image
from torch import Tensor, nn

import cnnbench as package
from cnnbench.data.model_spec import InputSpec, ModelSpec
from cnnbench.export import formats
from cnnbench.utils.errors import RunError, UserError
from tests.helpers.runs import Ran
from tests.helpers.trained import colour_run, digits_run, random_net

needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in formats.FORMATS["onnx"].needs), reason="needs the extra onnx"
)
KINDS = [pytest.param(kind, marks=needs_onnx if kind == "onnx" else ()) for kind in formats.FORMATS]
PHOTOS = Path(sklearn.__file__).parent / "datasets" / "images"

# The smallest net of each family, at the smallest size that is quick. Those of a hundred million parameters are slow.
FAMILIES: dict[str, tuple[int, dict[str, Any]]] = {
    "resnet8": (32, {}),
    "preact_resnet20": (32, {}),
    "nin_cifar": (32, {}),
    "googlenet": (64, {}),
}
LARGE: dict[str, tuple[int, dict[str, Any]]] = {
    "bn_inception": (64, {}),
    "alexnet": (96, {}),
    "alexnet_owt": (96, {}),
    "vgg11": (64, {}),
    "vgg11_bn": (64, {}),
    "nin": (128, {}),
    "googlenet_tv": (96, {"transform_input": True}),
    "inception_v3": (96, {}),
    "resnet18": (64, {}),
    "resnet50": (64, {}),
    "plain18": (64, {}),
    "preact_resnet50": (64, {}),
    "deepface": (152, {}),
    "squeezenet1_0": (64, {"source": "torchvision"}),
    "mobilenet_v2": (64, {"source": "torchvision"}),
    "densenet121": (64, {"source": "torchvision"}),
    "vit_b_16": (224, {"source": "torchvision"}),
}


def spec(name: str, size: int, channels: int = 3, **arguments: Any) -> ModelSpec:
    return ModelSpec(
        model={"name": name, **arguments},
        labels=list("abcdefg"),
        input=InputSpec(
            image_size=size, in_channels=channels, mean=[0.5] * channels, std=[0.25] * channels, crop_ratio=0.875
        ),
    )


@needs_onnx
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_exports_to_onnx(name: str, tmp_path: Path) -> None:
    size, arguments = FAMILIES[name]
    _export(name, size, arguments, "onnx", tmp_path)


@pytest.mark.parametrize("kind", ["torchscript", "exported_program", "safetensors"])
@pytest.mark.parametrize("name", ["resnet8", "nin_cifar", "googlenet"])
def test_families_export_to_the_other_kinds(name: str, kind: str, tmp_path: Path) -> None:
    size, arguments = FAMILIES[name]
    _export(name, size, arguments, kind, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*FAMILIES, *LARGE])
def test_every_family_exports_to_every_kind(name: str, kind: str, tmp_path: Path) -> None:
    size, arguments = {**FAMILIES, **LARGE}[name]
    _export(name, size, arguments, kind, tmp_path)


def _export(name: str, size: int, arguments: dict[str, Any], kind: str, folder: Path) -> None:
    """`export` compares already; here the file is read once more, and asked about another number of images."""
    net, out = random_net(name, 7, **arguments), folder / f"net{formats.FORMATS[kind].suffix}"
    formats.export_net(net, spec(name, size, **arguments), kind, out)
    images = torch.randn(3, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(formats.FORMATS[kind].read(out)(images), net(images), atol=1e-4, rtol=1e-4)
    assert sorted(path.name for path in folder.iterdir()) == sorted([out.name, "net.json"])


# From the command line, to somebody without cnnbench


@needs_onnx
def test_the_file_and_its_json_are_all_that_another_program_needs(cnnbench: Callable[..., Ran]) -> None:
    """Pillow, numpy and onnxruntime alone, by what the JSON says, answer as cnnbench does: real photographs."""
    import onnxruntime

    ran = cnnbench("export", f"weights={colour_run()}", "out=net.onnx")
    assert ran.code == 0, ran.err
    assert "-> net.onnx" in ran.out and "net.json" in ran.out
    told = json.loads(Path("net.json").read_text())
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    expected = package.load(colour_run(), device="cpu").predict(str(PHOTOS))
    assert len(expected) == 2
    for answer in expected:
        image = Image.open(str(answer.file)).convert("RGB")
        scale = told["resize_shorter_side"] / min(image.size)
        image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (round((side - told["crop"]) / 2) for side in image.size)
        pixels = np.asarray(image.crop((left, top, left + told["crop"], top + told["crop"]))) / 255
        tensor = ((pixels - told["mean"]) / told["std"]).transpose(2, 0, 1)[None].astype(np.float32)
        (logits,) = session.run([told["output"]["name"]], {told["input"]["name"]: tensor})
        order = logits[0].argsort()[::-1][:5]
        assert [told["classes"][index] for index in order] == [found.name for found in answer.predictions]
    assert list(session.get_inputs()[0].shape) == ["batch", 3, 32, 32] == told["input"]["shape"]


def test_safetensors_are_weights_for_every_command(cnnbench: Callable[..., Ran]) -> None:
    assert cnnbench("export", f"weights={digits_run()}", "format=safetensors").code == 0
    file = "outputs/export/digits.safetensors"
    keys = ("top1_wrong", "loss", "n")
    first, second = (
        json.loads(cnnbench("evaluate", f"weights={where}", "data=digits", "precision=fp32", "format=json").out)
        for where in (file, digits_run())
    )
    assert [first[key] for key in keys] == [second[key] for key in keys]
    assert cnnbench("predict", f"input={PHOTOS}", f"weights={file}").code == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("format=onx",), "Did you mean 'onnx'?"),
        (("format=safetensors", "out=net.onnx"), "is named *.safetensors"),
        (("format=safetensors", "out=no/net.safetensors"), "out=no/net.safetensors: there is no folder no"),
        (("format=safetensors", "model=resnet20"), "is of resnet8, not of resnet20"),
    ],
)
def test_mistakes(cnnbench: Callable[..., Ran], tmp_path: Path, args: tuple[str, ...], words: str) -> None:
    ran = cnnbench("export", f"weights={digits_run()}", *args)
    assert (ran.code, words in ran.err) == (2, True), ran.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(UserError, match=r"format=onnx needs onnxruntime: pip install 'cnnbench\[onnx\]'"):
        formats.check_packages("onnx")


# The comparison


class Wrong(nn.Module):
    def __init__(self, net: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.change = net, change

    def forward(self, images: Tensor) -> Tensor:
        return self.change(self.net(images))


@pytest.mark.parametrize(
    "change",
    [lambda logits: logits + 2e-3, lambda logits: logits.flip(1), lambda logits: logits[:1], lambda logits: logits * 0],
)
def test_an_export_that_computes_something_else_is_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensor], Tensor]
) -> None:
    kind = formats.FORMATS["safetensors"]
    monkeypatch.setitem(
        formats.FORMATS, "safetensors",
        formats.ExportFormat(kind.suffix, kind.write, lambda path: Wrong(kind.read(path), change)),  # type: ignore[arg-type]
    )  # fmt: skip
    with pytest.raises(RunError, match="nothing was written"):
        formats.export_net(random_net("resnet8", 7), spec("resnet8", 32), "safetensors", tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_equal_logits_may_change_places() -> None:
    class Ties(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([[1.0, 1.0 + 1e-6, 0, -1, -2, -3, -4]]).expand(len(images), -1)

    def rounded(images: Tensor) -> Tensor:
        logits: Tensor = Ties()(images).round(decimals=5)
        return logits

    assert formats.compare_logits(Ties(), rounded, torch.zeros(2, 3, 8, 8)) < 1e-5  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_samples_are_photographs_prepared_as_the_nets_own_images(channels: int) -> None:
    images = formats.sample_images(spec("resnet8", 32, channels))
    assert images.shape == (20, channels, 32, 32)
    assert images.abs().max() < 2.001 and images.std() > 0.3
