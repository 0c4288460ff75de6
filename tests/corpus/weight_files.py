"""Files of weights from everywhere: other wrappings, other tools, damaged ones, and checkpoints edited by hand."""

import argparse
import copy
import pickle
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cnnbench.weights import checkpoint
from tests.corpus.case import Case, Random
from tests.corpus.edits import ODD_VALUES, edit
from tests.corpus.layouts import NEW, split_tree
from tests.helpers.trained import photo_run

GIVEN = "model=resnet8 prepare.classes=[cat,dog,fox] prepare.image_size=16"
FOREIGN = (
    f"predict d weights=w.pt {GIVEN} device=cpu",
    "evaluate weights=w.pt model=resnet8 data=folder data.root=d data.image_size=16 data.workers=0 device=cpu",
    f"export weights=w.pt {GIVEN} format=safetensors out=x.safetensors",
    f"finetune weights=w.pt {NEW} transfer=head",
)
OWN = (
    "predict d weights=w.pt device=cpu",
    "evaluate weights=w.pt data=folder data.root=d data.workers=0 device=cpu",
    "export weights=w.pt format=safetensors out=x.safetensors",
    "finetune weights=w.pt data=folder data.root=d transfer=head epochs=1 batch_size=4 device=cpu data.workers=0",
    "visualize what=filters weights=w.pt device=cpu",
)
Content = Callable[[dict[str, Any]], Any]  # of a state dict


@cache
def trained() -> dict[str, Any]:
    return checkpoint.load(photo_run() / "checkpoints" / "last.pt")


def state() -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trained()["model"].items()}


def file_of(make: Content) -> Callable[[Path], object]:
    def build(here: Path) -> None:
        split_tree(here / "d")
        torch.save(make(state()), here / "w.pt")

    return build


def bytes_of(text: bytes) -> Callable[[Path], object]:
    def build(here: Path) -> None:
        split_tree(here / "d")
        (here / "w.pt").write_bytes(text)

    return build


def prefixed(prefix: str) -> Content:
    return lambda weights: {f"{prefix}{name}": value for name, value in weights.items()}


def under(key: str, **more: Any) -> Content:
    return lambda weights: {key: weights, **more}


def changed(**tensors: Callable[[torch.Tensor], Any]) -> Content:
    """The state dict with the named tensors replaced; a double underscore stands for a point."""

    def make(weights: dict[str, Any]) -> dict[str, Any]:
        for name, change in tensors.items():
            weights[name.replace("__", ".")] = change(weights[name.replace("__", ".")])
        return weights

    return make


def without(name: str) -> Content:
    return lambda weights: {key: value for key, value in weights.items() if key != name}


def with_nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor.view(-1)[0] = float("nan")
    return tensor


LOADED: dict[str, Content] = {
    "plain": lambda weights: weights,
    **{f"under-{key}": under(key)
       for key in ("state_dict", "model", "net", "model_state_dict", "model_state", "weights")},
    "beside-ema": lambda weights: {"state_dict": weights, "state_dict_ema": weights, "epoch": 3},
    "namespace": lambda weights: {"state_dict": weights, "args": argparse.Namespace(lr=0.1, arch="resnet8")},
    "numpy-scalar": lambda weights: {"state_dict": weights, "best": np.float64(91.2), "epoch": np.int64(3)},
    **{f"prefix-{prefix}": prefixed(f"{prefix}.") for prefix in ("module", "_orig_mod", "net", "backbone", "model")},
    "half": lambda weights: {k: v.half() if v.is_floating_point() else v for k, v in weights.items()},
    "double": lambda weights: {k: v.double() if v.is_floating_point() else v for k, v in weights.items()},
    "parameters": lambda weights: {k: torch.nn.Parameter(v, requires_grad=False) for k, v in weights.items()},
}  # fmt: skip
UNFIT: dict[str, Content] = {
    "nan": changed(conv1__weight=with_nan),
    "inf": changed(fc__bias=lambda tensor: tensor / 0),
    "int8": lambda weights: {k: v.to(torch.int8) for k, v in weights.items()},
    "complex": lambda weights: {k: v.to(torch.complex64) for k, v in weights.items()},
    "shape": changed(conv1__weight=lambda tensor: tensor[:, :, :2]),
    "missing": without("layer2.0.conv1.weight"),
    "no-head": without("fc.weight"),
    "sparse": changed(fc__weight=lambda tensor: tensor.to_sparse()),
    "list": lambda weights: list(weights.values()),
    "tensor": lambda weights: weights["fc.weight"],
    "number": lambda weights: 3,
    "empty": lambda weights: {},
    "numbers": lambda weights: dict(enumerate(weights.values())),
    "others": lambda weights: {f"encoder.block.{number}": value for number, value in enumerate(weights.values())},
    "optimizer": lambda weights: {"optimizer": {"state": weights}, "epoch": 1},
    "zero-size": changed(fc__bias=lambda tensor: tensor[:0]),
    "meta": changed(fc__bias=lambda tensor: tensor.to("meta")),
}
FILES: dict[str, bytes] = {
    "nothing": b"",
    "words": b"these are no weights",
    "html": b"<!DOCTYPE html>\n<html><body>404</body></html>",
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n",
    "zip": b"PK\x05\x06" + b"\0" * 18,
    "pickle": pickle.dumps({"a": print}),
    "code": b"cos\nsystem\n(S'echo owned > owned'\ntR.",
    "hdf5": b"\x89HDF\r\n\x1a\n" + b"\0" * 100,
    "safetensors-named-pt": b"\x02\0\0\0\0\0\0\0{}",
}


def whole_module(here: Path) -> None:
    split_tree(here / "d")
    torch.save(torch.nn.Conv2d(3, 8, 3), here / "w.pt")


def torchscript(here: Path) -> None:
    split_tree(here / "d")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises against TorchScript, in which people have their nets
        net = torch.jit.trace(torch.nn.Conv2d(3, 8, 3), torch.zeros(1, 3, 8, 8))
        torch.jit.save(net, str(here / "w.pt"))


def a_folder(here: Path) -> None:
    split_tree(here / "d")
    (here / "w.pt").mkdir()


def cut(here: Path) -> None:
    file_of(lambda weights: weights)(here)
    text = (here / "w.pt").read_bytes()
    (here / "w.pt").write_bytes(text[: len(text) // 2])


Edit = Callable[[dict[str, Any]], object]


def edited(change: Edit) -> Callable[[Path], object]:
    """Checkpoint of a run whose content was changed and that was sealed again: whole, but wrong."""

    def build(here: Path) -> None:
        split_tree(here / "d")
        content = copy.deepcopy(trained())
        change(content)
        checkpoint.save(here / "w.pt", content)

    return build


def set_at(*path: str, value: Any) -> Edit:
    def change(content: dict[str, Any]) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


EDITS: dict[str, Edit] = {
    "labels-fewer": set_at("spec", "labels", value=["cat"]),
    "labels-more": set_at("spec", "labels", value=list("abcdefgh")),
    "labels-numbers": set_at("spec", "labels", value=[1, 2, 3]),
    "labels-text": set_at("spec", "labels", value="cat"),
    "labels-none": set_at("spec", "labels", value=None),
    "labels-twice": set_at("spec", "labels", value=["cat", "cat", "cat"]),
    **{f"size-{size}": set_at("spec", "input", "image_size", value=size) for size in (0, -1, 10**6, "16", 1.5, None)},
    **{f"channels-{count}": set_at("spec", "input", "in_channels", value=count) for count in (0, 1, 4, "3", None)},
    "mean-two": set_at("spec", "input", "mean", value=[0.5, 0.5]),
    "mean-text": set_at("spec", "input", "mean", value="gray"),
    "mean-nan": set_at("spec", "input", "mean", value=[float("nan")] * 3),
    "std-zero": set_at("spec", "input", "std", value=[0.0] * 3),
    "std-negative": set_at("spec", "input", "std", value=[-1.0] * 3),
    **{f"crop-{ratio}": set_at("spec", "input", "crop_ratio", value=ratio) for ratio in (0, 7, "x", None)},
    "interpolation": set_at("spec", "input", "interpolation", value="psychic"),
    "task": set_at("spec", "task", value="telepathy"),
    "net": set_at("spec", "model", "name", value="resnet9000"),
    "net-none": set_at("spec", "model", value=None),
    "net-other": set_at("spec", "model", value={"name": "vgg11"}),
    "net-argument": set_at("spec", "model", "wings", value=2),
    "spec-list": set_at("spec", value=[]),
    "spec-more": set_at("spec", "wings", value=2),
    "spec-extra": set_at("spec", "extra", value={"outputs": 10**9}),
    "weights-int8": lambda content: content.update(model={k: v.to(torch.int8) for k, v in content["model"].items()}),
    "weights-complex": lambda content: content.update(model={k: v.cfloat() for k, v in content["model"].items()}),
    "weights-empty": set_at("model", value={}),
    "weights-text": set_at("model", "fc.bias", value="heavy"),
    "weights-nan": lambda content: with_nan(content["model"]["fc.weight"]),
    "weights-shape": lambda content: content["model"].update({"fc.bias": torch.zeros(7)}),
    "config-none": set_at("config", value=None),
    "config-list": set_at("config", "data", value=[]),
    "format-text": set_at("format", value="three"),
    "format-future": set_at("format", value=99),
    "progress": set_at("progress", "epoch", value="many"),
}
REFUSED = r"w\.pt|weights"


def cases() -> list[Case]:
    loaded = [Case(f"weights-{name}", file_of(make), FOREIGN, code=0) for name, make in LOADED.items()]
    unfit = [Case(f"unfit-{name}", file_of(make), FOREIGN, REFUSED) for name, make in UNFIT.items()]
    files = [Case(f"file-{name}", bytes_of(text), FOREIGN, REFUSED, code=2) for name, text in FILES.items()]
    others = [
        Case(f"file-{build.__name__}", build, FOREIGN, REFUSED, code=2)
        for build in (whole_module, torchscript, a_folder, cut)
    ]
    own = [Case(f"edited-{name}", edited(change), OWN) for name, change in EDITS.items()]
    return [*loaded, *unfit, *files, *others, *own]


def random_case(number: int) -> Case:
    """A checkpoint with one or two values changed."""
    rng = Random(number)

    def change(content: dict[str, Any]) -> None:
        if rng.random() < 0.3:
            name = rng.choice(sorted(content["model"]))
            content["model"][name] = rng.choice([*ODD_VALUES, torch.zeros(1), content["model"][name].flatten()[:1]])
        else:
            edit(rng.choice([content["spec"], content["spec"], content["config"], content["progress"]]), rng)

    return Case(f"edited-random-{number}", edited(change), (Random(number).choice(OWN),))
