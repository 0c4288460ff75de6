"""Files from elsewhere: what is harmless in them is read, all else is named, and nothing in them is run."""

import argparse
import gzip
import io
import json
import os
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from cnnbench import models
from cnnbench.utils.errors import UserError
from cnnbench.weights import checkpoint, sources

NET = models.build("resnet8", num_classes=3)
STATE = NET.state_dict()


class Args:
    """Anything that a project pickles beside its weights."""

    def __init__(self) -> None:
        self.lr = 0.1


class Touch:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


def refusal(file: Path) -> str:
    with pytest.raises(UserError) as error:
        sources.load(str(file))
    text = str(error.value)
    assert 1 <= len(text.splitlines()) <= 3 and str(file) in text
    return text


@pytest.mark.parametrize("legacy", [False, True])
def test_arguments_and_scalars_of_numpy_are_read(tmp_path: Path, legacy: bool) -> None:
    args = argparse.Namespace(lr=0.1, arch="resnet8", milestones=[1, 2])
    scalars = {"best": np.float64(0.25), "n": np.int64(-7), "big": np.dtype(">f4").type(1.5), "yes": np.bool_(True),
               "c": np.complex64(1 + 2j)}  # fmt: skip
    torch.save({"args": args, "state_dict": STATE, **scalars}, tmp_path / "x.th",
               _use_new_zipfile_serialization=not legacy)  # fmt: skip
    found = checkpoint.read(tmp_path / "x.th")
    assert {name: found[name] for name in scalars} == {name: value.item() for name, value in scalars.items()}
    assert found["args"] == args
    assert sources.load(str(tmp_path / "x.th")).state.keys() == STATE.keys()


def test_scalars_as_numpy_1_wrote_them_are_read(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "best": np.float64(0.25)}, tmp_path / "x.th")
    with zipfile.ZipFile(tmp_path / "x.th") as new, zipfile.ZipFile(tmp_path / "old.th", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core.", b"numpy.core."))
    assert checkpoint.read(tmp_path / "old.th")["best"] == 0.25


@pytest.mark.parametrize("value", [np.str_("text"), np.datetime64("2020-01-01"), np.arange(3), np.void(b"abc")])
def test_no_other_value_of_numpy_is(tmp_path: Path, value: Any) -> None:
    torch.save({"state_dict": STATE, "value": value}, tmp_path / "x.th")
    refusal(tmp_path / "x.th")


def test_a_scalar_of_objects_is_no_pointer(tmp_path: Path) -> None:
    """numpy's own functions would take these bytes for the address of an object."""
    dtype = b"cnumpy\ndtype\n(X\x01\x00\x00\x00O\x89\x88tR(K\x03X\x01\x00\x00\x00|"
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    raw = b"c_codecs\nencode\n(X\x08\x00\x00\x00AAAAAAAAX\x06\x00\x00\x00latin1tR"
    torch.save({"a": STATE["conv1.weight"]}, tmp_path / "x.th")
    with zipfile.ZipFile(tmp_path / "x.th") as old, zipfile.ZipFile(tmp_path / "evil.th", "w") as new:
        for name in old.namelist():
            evil = b"\x80\x02cnumpy.core.multiarray\nscalar\n(" + dtype + raw + b"tR."
            new.writestr(name, evil if name.endswith("data.pkl") else old.read(name))
    refusal(tmp_path / "evil.th")


@pytest.mark.parametrize("legacy", [False, True])
def test_what_a_project_pickled_beside_its_weights_is_named_with_the_line_that_saves_them(
    tmp_path: Path, legacy: bool
) -> None:
    file = tmp_path / "x.th"
    torch.save({"epoch": 3, "args": Args(), "net": STATE}, file, _use_new_zipfile_serialization=not legacy)
    text = refusal(file)
    assert "'args' is of type tests.weights.test_foreign.Args" in text
    assert obeyed(text, tmp_path).keys() == STATE.keys()


ARRAYS = {name: value.numpy() for name, value in STATE.items()}


@pytest.mark.parametrize(
    "content",
    [
        ARRAYS,
        {"epoch": 3, "model": ARRAYS},
        {"state_dict": STATE, "curve": np.zeros(3)},
        {**STATE, "args": Args()},
        {"net": STATE, "best": np.str_("fp16")},
        {**STATE, "saved": np.datetime64("2020-01-01")},
    ],
)
def test_the_line_that_saves_the_tensors_is_one_for_this_file(tmp_path: Path, content: dict[str, Any]) -> None:
    file = tmp_path / "x.pt"
    torch.save(content, file)
    text = refusal(file)
    assert "holds more than weights" in text
    assert obeyed(text, tmp_path).keys() == STATE.keys()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_a_whole_pickled_module_is_named_with_the_line_that_saves_its_tensors(
    tmp_path: Path, inside: bool, legacy: bool
) -> None:
    file = tmp_path / "x.pt"
    torch.save({"epoch": 1, "model": NET} if inside else NET, file, _use_new_zipfile_serialization=not legacy)
    text = refusal(file)
    assert ("'model' is of type cnnbench.models" if inside else "a whole pickled object (cnnbench.models") in text
    assert obeyed(text, tmp_path).keys() == STATE.keys()


def test_torchscript_is_named_with_the_line_that_saves_its_tensors(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(NET.eval(), torch.zeros(1, 3, 32, 32)).save(str(tmp_path / "x.pt"))
    text = refusal(tmp_path / "x.pt")
    assert "is TorchScript" in text
    assert obeyed(text, tmp_path).keys() == STATE.keys()


def obeyed(text: str, folder: Path) -> dict[str, torch.Tensor]:
    """The weights once the line of Python was typed that the message gives."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.chdir(folder)
        exec(text.partition('python -c "')[2].removesuffix('"'))
    return sources.load(str(next(folder.glob("*-tensors.pt")))).state


def archive(kind: str) -> bytes:
    found = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(found, "w") as file:
            file.writestr("resnet/notes.txt", "hello")
    else:
        with tarfile.open(fileobj=found, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("resnet/notes.txt"))
    return found.getvalue()


@pytest.mark.parametrize(("content", "said"), [
    (b"", "is empty"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 7\n", "a Git LFS pointer"),
    (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page"),
    (b"\xef\xbb\xbf<HTML lang=en>", "is a web page"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is an XML text"),
    (b"404: Not Found", "is a text, not a file of weights; it begins with '404: Not Found'"),
    (json.dumps({"weight_map": {"a": "b"}}).encode(), "is a text"),
    (archive("zip"), r"is a zip archive of other files, as resnet/notes.txt: unpack it"),
    (archive("tar"), "is an archive (tar)"),
    (gzip.compress(b"x" * 100, mtime=0), "is compressed (gzip)"),
    (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file"),
    (b"\x93NUMPY\x01\x00" + bytes(100), "one array of NumPy"),
    (b"\xff\xd8\xff\xe0" + bytes(100), "is an image"),
    (pickle.dumps({"conv1.weight": [1.0, 2.0]}), "is a pickle that torch.save did not write"),
    (bytes(range(256)) * 8, "is damaged, or no file of weights"),
])  # fmt: skip
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_files_of_another_kind_are_called_by_what_they_are(
    tmp_path: Path, content: bytes, said: str, name: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in refusal(tmp_path / name)


def test_safetensors_are_known_by_what_they_are_not_by_their_name(tmp_path: Path) -> None:
    safetensors.torch.save_file({name: value.contiguous() for name, value in STATE.items()}, tmp_path / "x.bin")
    torch.save(STATE, tmp_path / "x.safetensors")
    for name in ("x.bin", "x.safetensors"):
        assert sources.load(str(tmp_path / name)).state.keys() == STATE.keys()


@pytest.mark.parametrize("content", [[STATE["conv1.weight"]], STATE["conv1.weight"], 3])
def test_tensors_without_names_are_no_weights(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pt")
    assert f"of type {type(content).__name__}" in refusal(tmp_path / "x.pt")


@pytest.mark.parametrize("save", [torch.save, lambda content, file: file.write_bytes(pickle.dumps(content)),
                                  lambda content, file: file.write_bytes(pickle.dumps(content, 2))])  # fmt: skip
def test_nothing_in_a_file_is_run(tmp_path: Path, save: Callable[[Any, Path], Any]) -> None:
    for content in (Touch(tmp_path / "evidence"), {"args": Touch(tmp_path / "evidence"), "state_dict": STATE}):
        save(content, tmp_path / "evil.pt")
        refusal(tmp_path / "evil.pt")
    assert not (tmp_path / "evidence").exists()


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.pt")
    assert "no regular file" in refusal(tmp_path / "x.pt")
