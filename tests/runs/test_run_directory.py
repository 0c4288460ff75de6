"""Run directories: how they are named and found, and who may write into one."""

import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from cnnbench.runs import run_directory
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import read_json
from tests.helpers.runs import SMALL, Ran

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_the_same_name_for_other_data_is_refused(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    for folder, classes in (("cats", "ab"), ("pets", "cd")):
        for split, name in itertools.product(("train", "val"), classes):
            directory = tmp_path / folder / split / name
            directory.mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (8, 8), (number * 60, ord(name), 0)).save(directory / f"{number}.png")
    command = ("train", "data=folder", "epochs=1", "augment=none", "data.image_size=8", "device=cpu")
    assert cnnbench(*command, "data.root=cats").code == 0
    assert cnnbench(*command, "data.root=pets").code == 0
    runs = sorted((tmp_path / "outputs/train").iterdir())
    assert [path.name[:-8] for path in runs] == [f"resnet8-{folder}-augment_none-" for folder in ("cats", "pets")]
    assert read_json(runs[0] / "result.json")["data"] == "cats"
    assert cnnbench(*command, "data.root=cats", "run.dir=r").code == 0
    refused = cnnbench(*command, "data.root=pets", "run.dir=r")
    assert (refused.code, "trained on other data" in refused.err) == (2, True)


def test_a_run_is_found_by_the_name_it_got_and_paths_need_no_quotes(
    cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    assert cnnbench("train", "epochs=1", "optim.lr=1e-2", "schedule.milestones=[0.3,0.6]", *SMALL).code == 0
    (path,) = (tmp_path / "outputs/train").iterdir()
    assert re.fullmatch(r"[\w.+-]+", path.name)
    assert cnnbench("evaluate", f"weights=outputs/train/{path.name}").code == 0
    odd = "my run=1, it's (new)"
    assert cnnbench("train", "epochs=1", f"run.dir={odd}", *SMALL).code == 0
    assert (tmp_path / odd / "result.json").exists()
    assert cnnbench("evaluate", f"weights={odd}").code == 0


def test_a_long_name_is_cut_between_its_parts_and_keeps_what_a_sweep_compares(
    compose: Callable, tmp_path: Path
) -> None:
    cfg = compose()
    cfg.run.root, cfg.run.overrides = str(tmp_path), ["epochs=3", "augment.cutout=4", "optim.lr=0.3", "seed=7"]
    short = run_directory.path_for("train", cfg, "resnet8-digits")
    cfg.run.overrides.append("weights_skip=[fc]")
    cut = run_directory.path_for("train", cfg, "resnet8-digits")
    cfg.sweep.dir, cfg.sweep.keys = str(tmp_path / "s"), ["seed", "optim.lr"]
    job = run_directory.path_for("train", cfg, "resnet8-digits")
    whole = "resnet8-digits-augment.cutout_4-epochs_3-optim.lr_0.3-seed_7"
    assert re.fullmatch(r"resnet8-digits-augment.cutout_4-epochs_3-\w{8}", short.name)
    assert re.fullmatch(r"resnet8-digits-augment.cutout_4-epochs_3-\w{8}", cut.name) and cut != short
    assert re.fullmatch(r"resnet8-digits-optim.lr_0.3-seed_7-\w{8}", job.name)
    assert max(map(len, (short.name, cut.name, job.name))) <= 50
    (tmp_path / "train" / whole).mkdir(parents=True)  # by an earlier version
    cfg.run.overrides.pop()
    cfg.sweep.dir, cfg.sweep.keys = None, []
    assert run_directory.path_for("train", cfg, "resnet8-digits").name == whole
    assert len(run_directory.path_for("train", cfg, "a" * 80).name) == 50
    old = "sweep-data.fraction_0.2-epochs_1+2+3+4+5+6-optim.lr_0.1-seed_0+1"
    line = ["run.root=" + str(tmp_path), "epochs=1,2,3,4,5,6", "seed=0,1", "data.fraction=0.2", "optim.lr=0.1"]
    assert len(Path(run_directory.sweep_overrides("train", line, [])[-1]).name) <= 51  # with its quote
    of_experiment = ["experiment=shortcuts", *line[1:]]
    names = [run_directory.sweep_overrides("train", order, [])[-1] for order in (of_experiment, of_experiment[::-1])]
    assert "sweep-experiment_shortcuts-" in names[0] and names[0] == names[1]
    (tmp_path / "train" / old).mkdir()
    assert old in run_directory.sweep_overrides("train", line, [])[-1]


def test_two_processes_never_share_a_directory(cnnbench: Callable[..., Ran], tmp_path: Path, compose: Callable) -> None:
    cfg = compose("run.dir=r")
    directory = run_directory.claim(tmp_path / "r", cfg, "auto")
    directory.set_status("running")
    refused = cnnbench("train", "run.dir=r")
    assert refused.code == 2
    assert f"another process ({os.getpid()}) is running r" in refused.err
    assert read_json(tmp_path / "r/status.json")["status"] == "running"
    directory.release()
    run_directory.claim(tmp_path / "r", cfg, "auto").release()


def test_a_folder_of_other_files_is_left_alone(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"x")
    refused = cnnbench("train", "run.dir=photos", *SMALL)
    assert (refused.code, "no run of cnnbench" in refused.err) == (2, True)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.jpg"]


def test_a_file_in_the_place_of_a_directory_is_named(tmp_path: Path, compose: Callable) -> None:
    (tmp_path / "notes.md").write_text("")
    for make in (run_directory.make_for_results, lambda path: run_directory.claim(path, compose(), "auto")):
        with pytest.raises(UserError, match=r"cannot write to .*notes\.md: it is a file; give another run\.dir"):
            make(tmp_path / "notes.md")
