"""Small trained nets for the tests, made once for each process, and files that hold them in other ways."""

import atexit
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from cnnbench import data, models
from cnnbench.cli import main
from cnnbench.config.parsing import from_plain
from cnnbench.config.sections import DataConfig
from cnnbench.models.layers import Net
from cnnbench.weights import sources
from tests.helpers.data import class_tree
from tests.helpers.sounds import tone_tree


def _folder() -> Path:
    """A new one, for as long as this process lives."""
    folder = TemporaryDirectory()
    atexit.register(folder.cleanup)
    return Path(folder.name)


@cache
def digits_run() -> Path:
    """The directory of a resnet8 that has seen the digits, at 16 pixels, for three epochs: a fifth is wrong."""
    path = _folder() / "digits"
    done = main.main(["train", "epochs=3", "data.image_size=16", "precision=fp32", "device=cpu", f"run.dir={path}"])
    assert done == 0
    return path


@cache
def photo_run() -> Path:
    """The directory of a resnet8 that has seen nine pictures of cat, dog and fox, at 16 pixels, for an epoch."""
    path = _folder() / "photos"
    for number, split in enumerate(("train", "val")):
        class_tree(path / "d" / split, {"cat": 3, "dog": 3, "fox": 3}, seed=number)
    done = main.main(["train", "model=resnet8", "data=folder", f"data.root={path / 'd'}", "data.image_size=16",
                      "epochs=1", "batch_size=4", "precision=fp32", "device=cpu", "data.workers=0",
                      f"run.dir={path / 'run'}"])  # fmt: skip
    assert done == 0
    return path / "run"


@cache
def colour_run() -> Path:
    """The directory of a resnet8 that has seen three batches of noise: ten classes, three channels, 32 pixels."""
    path = _folder() / "noise"
    done = main.main(["train", "data=synthetic", "data.num_classes=10", "data.num_images=60", "data.image_size=32",
                     "epochs=1", "batch_size=20", "precision=fp32", "device=cpu", f"run.dir={path}"])  # fmt: skip
    assert done == 0
    return path


@cache
def sound_run() -> Path:
    """The directory of a resnet8 that has heard eighteen tones, low, middle and high, at 16 pixels; few are wrong."""
    path = _folder() / "tones"
    tone_tree(path / "d/train", 6)
    tone_tree(path / "d/val", 3, seed=1)
    done = main.main(["train", "data=sounds", f"data.root={path / 'd'}", "data.sound.bands=16", "data.image_size=16",
                      "epochs=12", "batch_size=6", "precision=fp32", "device=cpu",
                      f"run.dir={path / 'run'}"])  # fmt: skip
    assert done == 0
    return path / "run"


def digits_logits() -> tuple[Tensor, Tensor]:
    """Logits and targets of that net on the test set, without `evaluate`: one batch, resized by torchvision."""
    loaded = sources.load(str(digits_run()))
    assert loaded.spec is not None and loaded.config is not None
    given = loaded.spec.input
    dataset = data.load_dataset(from_plain(DataConfig, loaded.config["data"]))
    assert isinstance(dataset.val, data.Arrays)
    images = functional.resize(dataset.val.images, [16, 16]).float() / 255
    with torch.no_grad():
        return sources.build(loaded)((images - given.mean[0]) / given.std[0]), dataset.val.targets


def foreign_file(net: Net, path: Path) -> Path:
    """As a well-known implementation of the CIFAR nets keeps them: wrapped, prefixed, the last layer named `linear`."""
    state = {f"module.{name.replace('fc.', 'linear.')}": value for name, value in net.state_dict().items()}
    torch.save({"state_dict": state, "best_prec1": 91.25, "epoch": 200}, path)
    return path


def random_net(name: str, num_classes: int, **arguments: object) -> Net:
    """With the running statistics of images that it has seen, so that its logits are of a trained net's size."""
    torch.manual_seed(0)
    net = models.build(name, num_classes=num_classes, **arguments)
    norms = [layer for layer in net.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for layer in norms:
        layer.momentum = 1.0
    if norms:
        with torch.no_grad():
            net.train()(torch.randn(8, 3, 96, 96))
    return net.eval()
