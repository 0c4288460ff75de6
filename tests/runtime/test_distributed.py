"""Two processes that train one net: the same numbers as one, one writer, and one end for all."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cnnbench import models
from cnnbench.runtime import distributed, processes
from cnnbench.tasks.classification import answers
from cnnbench.utils import exit_codes, system
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import read_json
from cnnbench.weights import checkpoint
from tests.helpers import boxes as made
from tests.helpers.paths import ROOT
from tests.helpers.people import write_people
from tests.helpers.processes import bare, children, free_port, held, until, wait_for
from tests.helpers.runs import SMALL, Ran, assert_same_run, rows, weights
from tests.helpers.sounds import tone_tree

pytestmark = pytest.mark.usefixtures("no_pictures")

# Run in each of the processes: command lines, one after the other, with a net that has neither BatchNorm nor dropout.
SCRIPT = """
import json, os, sys
sys.path.insert(0, {root!r})
from tests.helpers.processes import bare, without_dropout
from tests.helpers.runs import without_pictures
from cnnbench import models
from cnnbench.cli import main
from cnnbench.training import loop
without_pictures()
without_dropout()
models.MODELS["resnet14"] = bare
train_step = loop.train_step
def fail(state, *args):
    if command[-1] == {failing!r} and state.step == 2 and state.runtime.group.rank == 1:
        raise ZeroDivisionError("a fault of one")
    train_step(state, *args)
loop.train_step = fail
codes = []
for command in json.loads(sys.argv[1]):
    codes.append(main.main(command))
open(f"../codes{{os.environ['RANK']}}.json", "w").write(json.dumps(codes))
"""
FAILING = "run.dir=../failing"


def together(folder: Path, *commands: tuple[str, ...], size: int = 2) -> list[subprocess.Popen[str]]:
    """The processes, each started as torchrun would."""
    port = free_port()
    script = SCRIPT.format(root=str(ROOT), failing=FAILING)
    return [
        subprocess.Popen(
            [sys.executable, "-c", script, json.dumps(commands)], cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank),
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(size)
    ]  # fmt: skip


def ended(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    return [(p.returncode, out, err) for p, (out, err) in [(p, p.communicate(timeout=120)) for p in processes]]


PLAIN = ("train", "model=resnet14", "epochs=2", *SMALL)
BALANCED = ("data.sampler=balanced", "loss.class_weights=balanced")
MIXED = ("augment=trivial", "augment.mixup=0.4", "augment.cutmix=1", "augment.erase=0.3")
PARTS = (*PLAIN, "accumulate=3", "ema=0.9", "optim.clip=1", *BALANCED, *MIXED)
FEW = (*PLAIN, "batch_size=300", "swa=0")  # the images of an epoch make up less than one batch
NORMED = ("train", "epochs=3", "swa=0.4", *SMALL)
LARGER = ("train", "task=super_resolution", "data=synthetic", "data.num_classes=2", "data.num_images=54", "model=espcn",
          "model.scale=2", "data.image_size=24", "augment=turn_flip", "batch_size=10", "epochs=1", "precision=fp32",
          "device=cpu")  # fmt: skip
PEOPLE = ("train", "task=verification", "data.val_fraction=0.3", "model=sphereface4", "model.image_size=24",
          "model.width=0.1", "model.embedding=16", "head=cosface", "head.scale=8", "batch_size=10", "epochs=2",
          "device=cpu", "precision=fp32")  # fmt: skip
FOUND = ("train", "task=detection", "data=voc", "model=ssd", "model.backbone=squeezenet1_0", "model.maps=1",
         "model.extras=1", "model.pyramid=1", "data.image_size=64", "data.workers=0", "augment=none", "batch_size=6",
         "optim.lr=0.001", "optim.lr_batch=null", "epochs=2", "precision=fp32", "device=cpu")  # fmt: skip
HEARD = ("train", "model=resnet14", "data=sounds", "data.root=../tones", "data.sound.bands=8", "data.image_size=8",
         "epochs=2", "batch_size=6", "precision=fp32", "device=cpu")  # fmt: skip
JUDGED = ("evaluate", "weights=normed", "run.dir=judged", "shift=2", "device=cpu", "precision=fp32", "format=json")


def tones(folder: Path) -> None:
    tone_tree(folder.parent / "tones/train", 6)
    tone_tree(folder.parent / "tones/val", 2, seed=1)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Argument that names a folder of people."""
    return f"data.root={write_people(tmp_path_factory.mktemp('people') / 'people')}"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, people: str) -> Path:
    """Runs of two processes, all of one pair of them."""
    folder = tmp_path_factory.mktemp("several") / "two"
    folder.mkdir()
    boxes = (*FOUND, f"data.root={few_boxes(tmp_path_factory.mktemp('boxes'))}")
    commands = {"plain": PLAIN, "parts": PARTS, "few": FEW, "larger": LARGER, "boxes": boxes, "normed": NORMED,
                "verified": (*PEOPLE, people), "heard": HEARD}  # fmt: skip
    tones(folder)
    lines = [(*command, f"run.dir={name}") for name, command in commands.items()]
    results = ended(together(folder, *lines, JUDGED, (*PLAIN, "freeze=nothing"), (*PLAIN, FAILING)))
    for rank, (code, _, err) in enumerate(results):
        (folder.parent / f"err{rank}.txt").write_text(err)
        assert code == 0 and json.loads((folder.parent / f"codes{rank}.json").read_text()) == [*[0] * 9, 2, 1], err
    assert len(re.findall(r"(?m)^top-1 error [\d.]+ %", results[0][1])) == 5 and not results[1][1], "one of them speaks"
    return folder


@pytest.mark.parametrize("name", ["plain", "parts", "few"])
def test_two_processes_train_as_one_does(
    cnnbench: Callable[..., Ran], tmp_path: Path, two: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Without BatchNorm: loss and weights to float tolerance, with a ragged last batch (37 images), counts exactly."""
    monkeypatch.setitem(models.MODELS, "resnet14", bare)
    assert cnnbench(*{"plain": PLAIN, "parts": PARTS, "few": FEW}[name], "run.dir=one").code == 0
    ours, theirs = rows(two / name), rows(tmp_path / "one")
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["step"] == other["step"] and mine["lr"] == other["lr"]
        for key in ("loss/train", "loss/val"):
            assert mine[key] == pytest.approx(other[key], rel=1e-5)
        for key in ("top1_error/train", "top1_error/val", "top5_error/train", "top5_error/val"):
            assert mine[key] == other[key]
    last = [checkpoint.load(path / "checkpoints/last.pt") for path in (two / name, tmp_path / "one")]
    assert last[0]["meter"]["n"] == last[1]["meter"]["n"]
    for key, value in last[0]["ema"].items() if name == "parts" else last[0]["model"].items():
        torch.testing.assert_close(value, last[1]["ema" if name == "parts" else "model"][key], rtol=1e-4, atol=1e-5)
    assert read_json(two / name / "result.json")["n"] == 359
    mine, other = (answers.read(path / "answers.csv") for path in (two / name, tmp_path / "one"))
    assert len(mine.images) == 359 and mine.same_images(other) and mine.wrong.tolist() == other.wrong.tolist()


def test_two_processes_train_a_net_that_enlarges_as_one_does(
    cnnbench: Callable[..., Ran], tmp_path: Path, two: Path
) -> None:
    """Each image's own PSNR and SSIM are summed, whichever process judged it."""
    assert cnnbench(*LARGER, "run.dir=one").code == 0
    ours, theirs = read_json(two / "larger/result.json"), read_json(tmp_path / "one/result.json")
    assert ours["n"] == theirs["n"] == 5 and ours["train_n"] == theirs["train_n"] == 54
    for key in ("loss", "train_loss", "psnr_y", "bicubic_psnr_y", "ssim_y", "consistency"):
        assert ours[key] == pytest.approx(theirs[key], rel=1e-4), key
    for key, value in weights(two / "larger").items():
        torch.testing.assert_close(value, weights(tmp_path / "one")[key], rtol=1e-4, atol=1e-5)


def test_two_processes_learn_to_compare_people_as_one_does(
    cnnbench: Callable[..., Ran], tmp_path: Path, two: Path, people: str
) -> None:
    """A pair is judged though its images were embedded by two processes; 15 images, so one of them twice."""
    assert cnnbench(*PEOPLE, people, "run.dir=one").code == 0
    ours, theirs = read_json(two / "verified/result.json"), read_json(tmp_path / "one/result.json")
    assert ours["n"] == theirs["n"] == 15 and ours["train_n"] == theirs["train_n"] == 35
    for key in ("loss", "train_loss", "accuracy", "auc", "best_auc", "eer", "tar_at_far_1e-2"):
        assert ours[key] == pytest.approx(theirs[key], rel=1e-4), key
    for key, value in weights(two / "verified").items():
        torch.testing.assert_close(value, weights(tmp_path / "one")[key], rtol=1e-4, atol=1e-5)
    spec = [checkpoint.load(path / "checkpoints/best.pt")["spec"] for path in (two / "verified", tmp_path / "one")]
    thresholds = [one["extra"]["threshold"] for one in spec]
    assert thresholds[0]["distance"] == pytest.approx(thresholds[1]["distance"], rel=1e-4)


def test_two_processes_train_a_detector_as_one_does(
    cnnbench: Callable[..., Ran], tmp_path: Path, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without BatchNorm and dropout; validated on one image, of which one of the processes has none."""
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, x: x)
    assert cnnbench(*FOUND, f"data.root={few_boxes(tmp_path / 'set')}", "run.dir=one").code == 0
    ours, theirs = read_json(two / "boxes/result.json"), read_json(tmp_path / "one/result.json")
    assert ours["n"] == theirs["n"] == 1 and ours["train_n"] == theirs["train_n"] == 13
    for key in ("loss", "train_loss", "map", "ap50"):
        assert ours[key] == pytest.approx(theirs[key], rel=1e-6), key
    for key, value in weights(two / "boxes").items():
        torch.testing.assert_close(value, weights(tmp_path / "one")[key], rtol=0, atol=1e-6)


def few_boxes(folder: Path) -> Path:
    """Images with boxes; one of them, with four, is the validation."""
    made.write_voc(folder, {"train": 13, "val": 4})
    (folder / "ImageSets/Main/val.txt").write_text("val03\n")
    return folder


def test_two_processes_train_a_net_that_hears_as_one_does(
    cnnbench: Callable[..., Ran], tmp_path: Path, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sounds of three classes: of so few, no top-5 error is measured, whoever counts."""
    monkeypatch.setitem(models.MODELS, "resnet14", bare)
    monkeypatch.chdir(two)
    assert cnnbench(*HEARD, f"run.dir={tmp_path / 'one'}").code == 0
    for mine, other in zip(rows(two / "heard"), rows(tmp_path / "one"), strict=True):
        assert mine.keys() == other.keys() and "top5_error/train" not in mine
        assert mine["loss/val"] == pytest.approx(other["loss/val"], rel=1e-5)
        assert mine["top1_error/train"] == other["top1_error/train"]
    ours, theirs = (weights(path) for path in (two / "heard", tmp_path / "one"))
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-4, atol=1e-5)


def test_one_run_directory_with_one_writer(two: Path) -> None:
    assert {path.name for path in two.iterdir()} == {
        "plain",
        "parts",
        "few",
        "larger",
        "boxes",
        "normed",
        "verified",
        "heard",
        "judged",
    }
    assert len(list((two / "normed").glob("events.out.*"))) == 1
    assert read_json(two / "normed/status.json")["status"] == "done"


def test_two_processes_judge_as_one_does(
    cnnbench: Callable[..., Ran], two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(two)
    ran = cnnbench(*(text.replace("judged", "../judged") for text in JUDGED))
    assert ran.code == 0, ran.err
    ours, theirs = json.loads(ran.out), read_json(two / "judged/result.json")
    for key in ("top1_error", "top5_error", "n", "protocol", "shift", "weights"):
        assert ours[key] == theirs[key], key
    assert ours["loss"] == pytest.approx(theirs["loss"])
    mine, other = (answers.read(two / path / "answers.csv") for path in ("../judged", "judged"))
    assert len(mine.images) == 359 and mine.same_images(other) and mine.wrong.tolist() == other.wrong.tolist()


def test_a_run_of_two_processes_that_was_cut_goes_on_with_the_same_bits(
    cnnbench: Callable[..., Ran], tmp_path: Path, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """devices=2 starts them: one is killed and all end; then a scheduler stops them; then they finish."""
    monkeypatch.setattr(system, "cores", lambda: 2)
    command = (*NORMED, "devices=2", "run.dir=cut", "checkpoint.every=1")
    last = tmp_path / "cut/checkpoints/last.pt"
    with held(tmp_path, monkeypatch):
        process = start(tmp_path, command)
        wait_for(last)
        victim = next(pid for pid in children(process.pid) if environment(pid).get("RANK") == "1")
        os.kill(victim, signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "process 2 of 2 was killed by SIGKILL" in err, err

    with held(tmp_path, monkeypatch):
        process = start(tmp_path, command)
        before = checkpoint.load(last)["step"]
        until("another step", lambda: checkpoint.load(last)["step"] > before)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
        assert process.returncode == exit_codes.PREEMPTED, err
        assert read_json(tmp_path / "cut/status.json")["status"] == "preempted"
    ran = cnnbench(*command)
    assert ran.code == 0, ran.err
    assert_same_run(tmp_path / "cut", two / "normed")


def start(folder: Path, command: tuple[str, ...]) -> subprocess.Popen[str]:
    """As a user does. Two processes fit any machine here."""
    script = (
        "import sys; from cnnbench.cli import main; from cnnbench.utils import system; "
        "system.cores = lambda: 2; sys.exit(main.main(sys.argv[1:]))"
    )
    return subprocess.Popen([sys.executable, "-c", script, *command], cwd=folder, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)  # fmt: skip


def environment(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_a_process_that_fails_ends_all_with_its_own_traceback(two: Path) -> None:
    """What all find wrong is said once; and the next command goes on with the same processes."""
    first, second = ((two.parent / f"err{rank}.txt").read_text() for rank in (0, 1))
    assert first.count("cnnbench: unknown stage 'nothing'.") == 1 and "nothing" not in second
    assert "process 2 of 2 failed: ZeroDivisionError: a fault of one" in first
    assert "in fail" in first, "the traceback"
    status = read_json(two.parent / "failing/status.json")
    assert status["status"] == "failed" and "a fault of one" in status["reason"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("devices=8",), "devices=8 is too many: this machine has no GPU, and 2 cores for processes on the CPU"),
        (("devices=two",), "devices=two: give a number, or all"),
        (("devices=2", "device=cuda:1"), "not with device=cuda:1"),
        (("devices=0",), "devices=0 is out of range"),
    ],
)
def test_devices_that_are_not_there(
    cnnbench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(system, "cores", lambda: 2)
    monkeypatch.setattr(processes, "visible_gpus", list)
    ran = cnnbench("train", *arguments)
    assert ran.code == exit_codes.MISTAKE and said in ran.err and len(ran.err.splitlines()) <= 3


def test_gpus_are_counted_without_torch(monkeypatch: pytest.MonkeyPatch, compose: Callable[..., Any]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert processes.visible_gpus() == ["3", "5"]
    assert processes.process_count(compose("devices=all")) == 2
    with pytest.raises(UserError, match="this machine has 2 GPUs"):
        processes.process_count(compose("devices=3"))


SRUN = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2",
        "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_STEP_NODELIST": "none[07-08],x1", "SLURM_JOB_ID": "17",
        "SLURM_STEP_ID": "0", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7"}  # fmt: skip


def test_places_are_read_from_whoever_started_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("RANK", "WORLD_SIZE", "SUBMITIT_LOCAL_NTASKS", *SRUN):
        monkeypatch.delenv(key, raising=False)
    assert processes.process_info() == processes.ProcessInfo()
    asked: list[str] = []

    def unknown(name: str) -> str:
        asked.append(name)
        raise OSError

    monkeypatch.setattr(socket, "gethostbyname", unknown)
    for key, value in SRUN.items():
        monkeypatch.setenv(key, value)
    info = processes.process_info()
    assert (info.rank, info.size, info.local_rank, info.local_size) == (5, 8, 1, 4)
    assert info.address and info.address[0] == "10.0.0.7" and 20000 <= info.address[1] < 40000
    assert asked == ["none07"]
    monkeypatch.delenv("SLURM_LAUNCH_NODE_IPADDR")
    with pytest.raises(UserError, match="cannot resolve the host name none07"):
        processes.process_info()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")  # a job of one process, or the batch script itself
    assert processes.process_info().size == 1
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (processes.process_info().rank, processes.process_info().size) == (1, 2)


@pytest.mark.parametrize(
    "variables",
    ["RANK=abc WORLD_SIZE=2", "RANK=2 WORLD_SIZE=2", "RANK=0 WORLD_SIZE=0", "RANK=0 WORLD_SIZE=1 LOCAL_RANK=q",
     "RANK=-1 WORLD_SIZE=2", "RANK= WORLD_SIZE=", "RANK=0 WORLD_SIZE=2 MASTER_PORT=q",
     "RANK=0 WORLD_SIZE=2 MASTER_PORT=99999", "SLURM_PROCID=a SLURM_STEP_NUM_TASKS=2",
     "SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=z", "SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=2 SLURM_LOCALID=q",
     "SUBMITIT_LOCAL_NTASKS=2"],
)  # fmt: skip
def test_what_is_no_place_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, cnnbench: Callable[..., Ran], variables: str
) -> None:
    for name, value in (text.split("=") for text in variables.split()):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        processes.process_info()
    assert str(caught.value).startswith("the environment variable ")
    ran = cnnbench("train", "max_steps=1")
    assert (ran.code, ran.err) == (2, f"cnnbench: {caught.value}\n")


def test_nobody_there_to_meet_is_said_within_the_time_out(
    cnnbench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(distributed, "MEET", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        ran = cnnbench(*PLAIN)
        assert (ran.code, "is in use: set MASTER_PORT to another one" in ran.err) == (2, True), ran.err
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    ran = cnnbench(*PLAIN)
    assert (ran.code, "process 1 of 2 waited 1 s for the others at 127.0.0.1:" in ran.err) == (2, True), ran.err
