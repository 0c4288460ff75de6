"""A detector for other programs: in ONNX with all that makes boxes of its answer, else as it is, with the words."""

from pathlib import Path

import onnxruntime
import pytest
import torch

from cnnbench.data.model_spec import InputSpec, ModelSpec
from cnnbench.export import formats
from cnnbench.export.formats import FORMATS, export_net, sample_images
from cnnbench.models import build
from cnnbench.tasks.detection.decode import detections
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import read_json

MODEL = {"name": "ssd", "backbone": "resnet8", "maps": 1, "extras": 1, "pyramid": 16, "smallest": 0.2, "largest": 0.5}


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_the_file_answers_as_the_net(format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = ModelSpec(task="detection", model=MODEL, labels=["bar", "square"], input=InputSpec(
        image_size=48, in_channels=3, mean=[0.5] * 3, std=[0.25] * 3))  # fmt: skip
    net = build(**MODEL, num_classes=2).eval()
    out = tmp_path / f"net.{'onnx' if format == 'onnx' else 'ts'}"
    difference, _ = export_net(net, spec, format, out)
    said = read_json(tmp_path / "net.json")
    assert (
        difference < 1e-4 and "resize to 48 x 48 pixels, whatever the aspect (bilinear, antialiased)" in said["steps"]
    )
    image = sample_images(spec)[:1]
    if format == "torchscript":
        assert said["output"]["shape"] == ["batch", 11, "boxes"] and said["input"]["shape"] == ["batch", 3, 48, 48]
        assert FORMATS[format].read(out)(image.repeat(3, 1, 1, 1)).shape[:2] == (3, 11)
        return
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    (found,) = session.run(["boxes"], {"images": image.numpy()})
    with torch.no_grad():
        expected = detections(net(image), 48)[0, :20]
    assert said["output"]["shape"] == ["boxes", 6] and said["input"]["shape"] == [1, 3, 48, 48]
    torch.testing.assert_close(torch.from_numpy(found[:20]), expected, rtol=1e-3, atol=1e-2)


def test_a_net_that_finds_its_boxes_itself_is_written_with_all_that_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = {"name": "fasterrcnn_mobilenet_v3_large_320_fpn", "source": "torchvision"}
    net = build(**model, num_classes=2).eval()
    torch.nn.init.normal_(net.scoring.weight, std=0.1)  # scores that differ
    spec = ModelSpec(task="detection", model=model, labels=["bar", "square"], input=InputSpec(
        image_size=64, in_channels=3, mean=[0.5] * 3, std=[0.25] * 3))  # fmt: skip
    monkeypatch.setattr(formats, "sample_images", lambda spec: sample_images(spec)[::7])
    difference, _ = export_net(net, spec, "onnx", tmp_path / "net.onnx")
    assert difference < 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    image = sample_images(spec)[3:4]
    (found,) = session.run(["boxes"], {"images": image.numpy()})
    with torch.no_grad():
        expected = net(image)[0].T
    assert len(expected) > 5
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-3, atol=1e-2)
    assert "class (0 is bar), score, left, top, right, bottom" in read_json(tmp_path / "net.json")["steps"][3]
    for format in ("torchscript", "exported_program"):
        with pytest.raises(UserError, match="as many boxes as it finds: use format=onnx"):
            export_net(net, spec, format, tmp_path / "other")
    export_net(net, spec, "safetensors", tmp_path / "net.safetensors")
    assert "a column for each box: class (0 is bar)" in read_json(tmp_path / "net.json")["steps"][3]
