"""Nothing that comes from elsewhere is run: weights, checkpoints, configurations, images."""

import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cnnbench.data import read_image
from cnnbench.utils.errors import UserError
from tests.helpers.runs import SMALL, Ran

pytestmark = pytest.mark.usefixtures("no_pictures")


class Evil:
    """Unpickled, it leaves a folder behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.trace),))


@pytest.mark.parametrize("form", ["torch", "plain pickle", "old torch"])
def test_code_in_weights_and_checkpoints_is_refused(cnnbench: Callable[..., Ran], tmp_path: Path, form: str) -> None:
    assert cnnbench("train", "epochs=1", "max_steps=1", "run.dir=r", *SMALL).code == 0
    last = tmp_path / "r/checkpoints/last.pt"
    evil = {"format": 2, "step": 1, "model": {"w": torch.ones(1)}, "config": Evil(tmp_path / "ran")}
    if form == "plain pickle":
        last.write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil, last, _use_new_zipfile_serialization=form == "torch")
    for path in last.parent.glob("*.pt"):
        if path != last:
            path.unlink()
    (tmp_path / "r/result.json").unlink()
    for command in (
        ("train", "epochs=1", "max_steps=1", "run.dir=r", *SMALL),
        ("train", "weights=r", *SMALL),
        ("evaluate", "weights=r"),
    ):
        ran = cnnbench(*command)
        assert ran.code == 2 and "last.pt" in ran.err and len(ran.err.splitlines()) <= 3
    assert not (tmp_path / "ran").exists()


YAMLS = {
    "a Python tag": "epochs: !!python/object/apply:os.mkdir ['{trace}']\n",
    "a Python name": "epochs: !!python/name:os.mkdir\n",
    "a target": "_target_: os.mkdir\npath: '{trace}'\n",
    "a target of Hydra": "hydra: {{launcher: {{_target_: os.mkdir, path: '{trace}'}}}}\n",
    "a nested target": "data: {{_target_: os.mkdir, path: '{trace}'}}\n",
    "a target in the net": "model: {{name: resnet8, _target_: os.mkdir, path: '{trace}'}}\n",
}


@pytest.mark.parametrize("what", YAMLS)
def test_yaml_of_a_run_names_no_code_to_run(cnnbench: Callable[..., Ran], tmp_path: Path, what: str) -> None:
    """Neither where the run is gone on with, nor where it is replayed."""
    assert cnnbench("train", "epochs=1", "max_steps=1", "run.dir=r", *SMALL).code == 0
    config = tmp_path / "r/config.yaml"
    safe = config.read_text()
    key = YAMLS[what].partition(":")[0]
    kept = "\n".join(block for block in safe.split("\n") if not block.startswith(f"{key}:"))
    if key in ("data", "model"):  # their sections are indented
        kept = "epochs: 1\n"
    config.write_text(kept + "\n" + YAMLS[what].format(trace=tmp_path / "ran"))
    replayed = cnnbench("train", "--config", "r/config.yaml", "run.dir=s")
    assert replayed.code == 2 and 1 <= len(replayed.err.splitlines()) <= 3, replayed.err
    resumed = cnnbench("train", "epochs=1", "max_steps=1", "run.dir=r", *SMALL)
    assert resumed.code in (0, 2) and "Traceback" not in resumed.err
    assert not (tmp_path / "ran").exists() and not (tmp_path / "s").exists()


def test_a_picture_is_read_as_a_picture_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would hand PostScript to an interpreter, whatever the file is called."""
    started: list[object] = []
    monkeypatch.setattr(subprocess, "check_call", lambda *args, **kwargs: started.append(args))
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: started.append(args))
    script = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({tmp_path}/ran) (w) file closefile\nshowpage\n"
    (tmp_path / "a.jpg").write_text(script)
    with pytest.raises(UserError, match=r"a\.jpg': not an image that Pillow can read"):
        read_image(tmp_path / "a.jpg")
    assert not started and not (tmp_path / "ran").exists()


def test_a_pipe_among_the_pictures_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"a\.jpg"):
        read_image(tmp_path / "a.jpg")
