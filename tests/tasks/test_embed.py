"""Embeddings by nets of every task: what the last layer sees, from the command line and from Python."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cnnbench as package
from cnnbench import models
from cnnbench.data.model_spec import InputSpec, ModelSpec
from cnnbench.weights import sources
from tests.helpers.runs import Ran
from tests.helpers.scenes import scene, write_scenes
from tests.helpers.sounds import RATE, tone, write
from tests.helpers.trained import sound_run

SSD = {"name": "ssd", "backbone": "resnet8", "maps": 1, "extras": 1, "pyramid": 32, "smallest": 0.2, "largest": 0.35}
# Net, channels, what its spec says more, and the length of an embedding.
NETS: dict[str, tuple[dict[str, Any], int, dict[str, Any], int]] = {
    "classification": ({"name": "resnet8"}, 3, {}, 64),
    "segmentation": ({"name": "fcn8s", "backbone": "resnet8"}, 3, {}, 64),
    "super_resolution": ({"name": "espcn", "scale": 2}, 1, {"outputs": 1, "scale": 2}, 32),
    "colorization": ({"name": "colorizer", "width": 0.05}, 1, {"outputs": 313, "prior": [1 / 313] * 313}, 13),
    "detection": (SSD, 3, {}, 32),
    "verification": ({"name": "resnet8", "embed": "none"}, 3, {"outputs": 64, "embedding": 64}, 64),
}


def untrained(task: str, file: Path) -> Path:
    """A net of this task in a file, with all that is known of it."""
    model, channels, extra, _ = NETS[task]
    given = InputSpec(image_size=64, in_channels=channels, mean=[0.5] * channels, std=[0.25] * channels)
    spec = ModelSpec(task=task, model=model, labels=[] if extra else list("abc"), input=given, extra=extra)
    torch.manual_seed(0)
    net = models.build_for(model, outputs=spec.outputs, in_channels=channels)
    sources.save_safetensors(file, net.state_dict(), spec)
    return file


@pytest.mark.parametrize("task", NETS)
def test_a_net_of_every_task_embeds_images(cnnbench: Callable[..., Ran], tmp_path: Path, task: str) -> None:
    """Colour, gray, of any size; the same from Python; a file that is no image is named, the others are written."""
    untrained(task, tmp_path / "net.safetensors")
    write_scenes(tmp_path / "photos", 2)
    Image.fromarray(scene(2, 90, 70)).convert("L").save(tmp_path / "photos/third.png")
    ran = cnnbench(
        "predict", "photos", "weights=net.safetensors", "embed=true", "out=x.npz", "device=cpu", "batch_size=2"
    )
    length = NETS[task][-1]
    assert ran.code == 0 and f"3 embeddings of {length} numbers -> x.npz" in ran.out, ran.err
    with np.load(tmp_path / "x.npz") as written:
        files, rows = written["files"].tolist(), written["embeddings"]
    assert files == [f"photos/{name}.png" for name in ("scene0", "scene1", "third")]
    assert rows.shape == (3, length) and rows.dtype == np.float32 and np.isfinite(rows).all()
    assert len(np.unique(rows, axis=0)) == 3
    net = package.load(tmp_path / "net.safetensors", device="cpu")
    assert np.allclose(net.embed(tmp_path / "photos"), rows, atol=1e-5)
    (tmp_path / "photos/broken.png").write_text("no image")
    ran = cnnbench("predict", "photos", "weights=net.safetensors", "embed=true", "out=y.npz", "device=cpu")
    assert ran.code == 1 and "1 of 4 files could not be read" in ran.err and "broken.png" in ran.err
    with np.load(tmp_path / "y.npz") as written:
        assert written["files"].tolist() == files and np.allclose(written["embeddings"], rows, atol=1e-5)


def test_a_net_for_sounds_embeds_sounds(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    """The nearest to a low tone is another low one."""
    for name, hertz in {"low": 300.0, "low_too": 309.0, "high": 2700.0}.items():
        write(tmp_path / f"new/{name}.wav", tone(hertz, seed=77), RATE)
    ran = cnnbench("predict", "new", f"weights={sound_run()}", "embed=true", "out=x.npz", "device=cpu")
    assert ran.code == 0, ran.err
    with np.load(tmp_path / "x.npz") as written:
        names, rows = [Path(file).stem for file in written["files"]], written["embeddings"]
    assert rows.shape == (3, 64) and rows.dtype == np.float32 and names == ["high", "low", "low_too"]
    assert np.linalg.norm(rows[1] - rows[2]) < np.linalg.norm(rows[1] - rows[0])
    assert np.allclose(package.load(sound_run(), device="cpu").embed(tmp_path / "new"), rows, atol=1e-5)


def test_a_cropped_copy_is_nearest(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    """The lines of docs/verification.md."""
    write_scenes(tmp_path / "photos", 12, height=96, width=120)
    image = Image.open(tmp_path / "photos/scene5.png")
    image.crop((6, 5, 114, 92)).save(tmp_path / "photos/copy.jpg", quality=80)
    ran = cnnbench("predict", "photos", "weights=zoo:resnet20-cifar10", "embed=true", "out=x.npz", "device=cpu")
    assert ran.code == 0, ran.err
    found = np.load(tmp_path / "x.npz")
    files, rows = found["files"], found["embeddings"]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    distances = 1 - rows @ rows[files.tolist().index("photos/copy.jpg")]
    assert files[distances.argsort()][:2].tolist() == ["photos/copy.jpg", "photos/scene5.png"], np.sort(distances)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("out=x.json",), "embed=true writes the embeddings into a file: give out=FILE.npz"),
        ((), "embed=true writes the embeddings into a file: give out=FILE.npz"),
        (("out=x.npz", "sheet=s.png"), "and no sheet"),
        (
            ("out=x.npz", "weights=[net.safetensors,net.safetensors]"),
            "embed=true asks one net: give weights=… one only",
        ),
    ],
)
def test_what_does_not_go_with_embeddings_is_refused(
    cnnbench: Callable[..., Ran], tmp_path: Path, keys: tuple[str, ...], said: str
) -> None:
    untrained("classification", tmp_path / "net.safetensors")
    write_scenes(tmp_path / "photos", 1)
    ran = cnnbench("predict", "photos", "weights=net.safetensors", "embed=true", *keys, "device=cpu")
    assert ran.code == 2 and said in ran.err and len(ran.err.splitlines()) == 1, ran.err
    assert not (tmp_path / "x.npz").exists()
