"""Exported nets whose answer is a picture: images of any height and width, the same numbers as the net itself."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cnnbench import models, tasks
from cnnbench.data.model_spec import InputSpec, ModelSpec
from cnnbench.export import formats
from cnnbench.utils.errors import RunError, UserError
from cnnbench.utils.files import read_json

needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in formats.FORMATS["onnx"].needs), reason="needs the extra onnx"
)
# Net, task, channels, what its spec says more, and how much larger its answer is than the image.
NETS: dict[str, tuple[dict[str, Any], str, int, dict[str, Any], float]] = {
    "fcn8s": ({"name": "fcn8s", "backbone": "resnet8"}, "segmentation", 3, {}, 1),
    "squeezenet": ({"name": "fcn8s", "backbone": "squeezenet1_0"}, "segmentation", 3, {}, 1),
    "alexnet": ({"name": "fcn16s", "backbone": "alexnet"}, "segmentation", 3, {}, 1),
    "unet": ({"name": "unet", "width": 4}, "segmentation", 1, {}, 1),
    "same": ({"name": "unet", "width": 4, "padding": "same"}, "segmentation", 3, {}, 1),
    "lraspp": ({"name": "lraspp_mobilenet_v3_large", "source": "torchvision"}, "segmentation", 3, {}, 1),
    "espcn": ({"name": "espcn", "scale": 2}, "super_resolution", 1, {"outputs": 1, "scale": 2}, 2),
    "srcnn": ({"name": "srcnn", "scale": 3}, "super_resolution", 1, {"outputs": 1, "scale": 3}, 3),
    "colorizer": ({"name": "colorizer", "width": 0.05}, "colorization", 1,
                  {"outputs": 313, "prior": [1 / 313] * 313}, 0.25),
}  # fmt: skip


def made(name: str) -> tuple[Any, ModelSpec]:
    model, task, channels, extra, _ = NETS[name]
    given = InputSpec(image_size=64, in_channels=channels, mean=[0.5] * channels, std=[0.25] * channels)
    spec = ModelSpec(task=task, model=model, labels=list("abc") if task == "segmentation" else [], input=given,
                     extra=extra)  # fmt: skip
    torch.manual_seed(0)
    net = models.build_for(model, outputs=spec.outputs, in_channels=channels)
    for layer in net.modules():  # the classes of an FCN begin at zero
        if isinstance(layer, nn.Conv2d) and not layer.weight.any():
            nn.init.normal_(layer.weight, std=0.1)
    return net.eval(), spec


QUICK = [("fcn8s", "onnx"), ("fcn8s", "exported_program"), ("unet", "torchscript"), ("espcn", "torchscript"),
         ("colorizer", "torchscript")]  # fmt: skip
KINDS = ("onnx", "torchscript", "exported_program")
HELD = [("alexnet", "exported_program"), ("same", "exported_program")]  # torch's solver gives up over their maps
EACH = [pytest.param(name, kind, marks=[*([needs_onnx] if kind == "onnx" else []),
                                        *([] if (name, kind) in QUICK else [pytest.mark.slow])])
        for name in NETS for kind in KINDS if (name, kind) not in HELD]  # fmt: skip


@pytest.mark.parametrize(("name", "format"), EACH)
def test_an_exported_net_takes_images_of_any_size(name: str, format: str, tmp_path: Path) -> None:
    net, spec = made(name)
    out = tmp_path / f"net{formats.FORMATS[format].suffix}"
    difference, size = formats.export_net(net, spec, format, out)
    assert difference < 1e-4 and size == out.stat().st_size
    run, larger = formats.FORMATS[format].read(out), NETS[name][-1]
    for height, width in ((72, 104), (64, 64)):
        images = torch.randn(1, spec.input.in_channels, height, width)
        with torch.no_grad():
            ours = net(images)
        assert ours.shape[2:] == (height * larger, width * larger)
        torch.testing.assert_close(run(images), ours, rtol=1e-4, atol=1e-4)


@needs_onnx
def test_names_and_words_are_the_tasks(tmp_path: Path) -> None:
    import onnx

    net, spec = made("espcn")
    formats.export_net(net, spec, "onnx", tmp_path / "net.onnx")
    graph = onnx.load(str(tmp_path / "net.onnx")).graph
    assert ([one.name for one in graph.input], [one.name for one in graph.output]) == (["images"], ["image"])
    free = [dim.dim_param for dim in graph.input[0].type.tensor_type.shape.dim]
    assert free[1] == "" and all(free[at] for at in (0, 2, 3)), free
    said = read_json(tmp_path / "net.json")
    assert said["output"] == {"name": "image", "shape": ["batch", 1, "2 * height", "2 * width"], "type": "float32"}
    assert said["input"]["shape"] == ["batch", 1, "height", "width"] and said["classes"] == []
    assert not any("softmax" in step or "crop" in step for step in said["steps"])
    for name in NETS:
        _, one = made(name)
        words = tasks.find(one.task).of(one).exported(one)
        assert len(words.shape) == 4 and len(words.steps) == 3 and words.output in ("scores", "image", "logits")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "format"), HELD)
def test_a_size_that_cannot_be_left_free_is_said(name: str, format: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot leave the sides of"):
        formats.export_net(*made(name), format, tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())


def test_a_file_that_answers_otherwise_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, spec = made("espcn")
    before = formats.FORMATS["torchscript"]
    wrong = formats.ExportFormat(".ts", before.write, lambda path: lambda images: net(images) + 1)
    monkeypatch.setitem(formats.FORMATS, "torchscript", wrong)
    with pytest.raises(RunError, match="gives other answers than the net itself for images of 80 x 64 pixels"):
        formats.export_net(net, spec, "torchscript", tmp_path / "net.ts")
    assert not list(tmp_path.iterdir())
