"""`cnnbench report`: what it makes of run directories, whole and broken, and what a reader sees of it."""

import fcntl
import json
import math
import os
import re
import shutil
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from cnnbench.config.parsing import to_plain
from cnnbench.output.figure import round_numbers
from cnnbench.reporting import charts, group, text
from cnnbench.reporting.compare import Comparison
from cnnbench.reporting.gather import gather_runs
from cnnbench.reporting.page import write_report_page
from cnnbench.sweeps import jobs
from cnnbench.sweeps.jobs import SweepJob
from cnnbench.tasks.classification.published import HISTORY
from tests.helpers.runs import Ran
from tests.helpers.steps import count_steps

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
COMPOSED: dict[tuple[str, ...], dict[str, Any]] = {}  # configurations by their overrides, as they take a while


def metrics(epochs: int, last: float) -> list[dict[str, float]]:
    """Lines of metrics.jsonl that come down to an error of `last` percent."""
    return [{"epoch": epoch, "step": epoch, "top1_error/val": last + 2.0 * (epochs - epoch),
             "top1_error/train": last / 2 + 2.0 * (epochs - epoch), "top5_error/val": 1.0 + epochs - epoch,
             "top5_error/train": 0.5, "loss/train": 1.0, "loss/val": 1.0, "lr": 0.1}
            for epoch in range(1, epochs + 1)]  # fmt: skip


@pytest.fixture
def make(tmp_path: Path, compose: Callable[..., Any]) -> Callable[..., Path]:
    """A run directory as a training leaves it, without the training."""

    def make(name: str, *overrides: str, error: float | None = 10.0, status: str = "done", epochs: int = 3) -> Path:
        path = tmp_path / "runs" / name
        path.mkdir(parents=True)
        if overrides not in COMPOSED:
            COMPOSED[overrides] = to_plain(compose(*overrides))
        config = {**COMPOSED[overrides], "run": {"overrides": [*overrides]}}
        (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        (path / "overrides").write_text("".join(f"{text}\n" for text in overrides))
        (path / "status.json").write_text(json.dumps({"status": status, "reason": "why it is so", "pid": 1}))
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics(epochs, error or 50.0)))
        if error is not None:
            result = {"top1_error": error, "top5_error": 1.0, "train_top1_error": error / 2, "n": 10_000,
                      "split": "test", "crop": "center 32", "select_on": "last epoch", "seed": config["seed"],
                      "model": config["model"]["name"], "data": config["data"]["name"], "epochs": epochs,
                      "params": 269_722, "macs": 40_551_040, "wall_seconds": 60.0 + error, "device": "a CPU",
                      "train_n": 50_000, "run_dir": str(path)}  # fmt: skip
            (path / "result.json").write_text(json.dumps(result))
        return path

    return make


@pytest.fixture
def report(cnnbench: Callable[..., Ran], tmp_path: Path) -> Callable[..., Any]:
    """The object of `cnnbench report format=json`."""

    def report(*args: str) -> Any:
        ran = cnnbench("report", str(tmp_path / "runs"), "format=json", *args)
        assert ran.code == 0, ran.err
        return json.loads(ran.out)

    return report


RESNET = ("model=resnet20", "data=cifar10")
PLAIN = ("model=plain20", "data=cifar10")


def test_seeds_are_averaged_and_the_published_number_stands_beside(make: Callable, report: Callable) -> None:
    errors = [8.5, 8.9, 9.3]
    for seed, error in enumerate(errors):
        make(f"r{seed}", *RESNET, f"seed={seed}", error=error)
        make(f"p{seed}", *PLAIN, f"seed={seed}", error=error + 1)
    best, second = report()["groups"]
    assert (best["model"], second["model"]) == ("resnet20", "plain20")
    assert best["top1_error"] == pytest.approx(statistics.mean(errors))
    assert best["top1_error_std"] == pytest.approx(statistics.stdev(errors))
    assert (best["runs"], best["seeds"]) == (3, [0, 1, 2])
    assert best["published_top1_error"] == 8.75 and best["published_protocol"] == "CIFAR-10 test"
    assert best["top1_difference"] == pytest.approx(8.9 - 8.75)
    assert (best["crop"], best["split"], best["n"], best["select_on"]) == ("center 32", "test", 10_000, "last epoch")
    assert second["published_top1_error"] is None  # the paper shows plain nets of this kind in a figure only
    assert best["command_line"] == "cnnbench train -m model=resnet20 data=cifar10 seed=0,1,2"
    assert [report("sort=-top1_error")["groups"][0]["model"], report("sort=model")["groups"][0]["model"]] == [
        "plain20", "plain20"]  # fmt: skip


@pytest.mark.parametrize("change", ["model.shortcut=B", "data=cifar100", "data=digits"])
def test_other_nets_and_other_images_have_no_published_number(make: Callable, report: Callable, change: str) -> None:
    make("r", "model=resnet20", *(["data=cifar10"] if "data" not in change else []), change)
    assert report()["groups"][0]["published_top1_error"] is None


def test_columns_are_what_somebody_typed_and_not_what_follows_from_it(make: Callable, report: Callable) -> None:
    """Nets choose their own learning rates: to say so in ten columns would hide what was compared."""
    make("a", "model=alexnet", "data=cifar10", "optim.weight_decay=0.001")
    make("b", "model=resnet20", "data=cifar10", "optim.weight_decay=0.001")
    make("c", "model=resnet20", "data=cifar10", "optim.weight_decay=0.002")
    make("d", "model=resnet20", "data=cifar10", "optim.weight_decay=0.002", "optim=adamw")
    groups = report()["groups"]
    assert len(groups) == 4
    keys = list(groups[0])[: list(groups[0]).index("runs")]
    assert keys == ["model", "data", "optim", "optim.weight_decay"]


def test_where_and_how_a_run_runs_does_not_set_it_apart(make: Callable, report: Callable) -> None:
    make("a", *RESNET, "seed=0", "data.workers=0", "checkpoint.keep=3")
    make("b", *RESNET, "seed=1", "data.workers=2", "device=cpu")
    assert [one["runs"] for one in report()["groups"]] == [2]


def test_what_is_not_done_is_counted_and_says_how_far_it_is(make: Callable, cnnbench: Callable, tmp_path: Path) -> None:
    make("done", *RESNET, "seed=0", error=9.0)
    make("cut", *RESNET, "seed=1", error=None, status="interrupted")
    make("failed", *PLAIN, error=None, status="failed")
    killed = make("killed", "data=cifar10", "model=resnet32", error=None, status="running")
    alive = make("alive", "data=cifar10", "model=resnet44", "epochs=7", error=None, status="running")
    with (alive / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = cnnbench("report", str(tmp_path / "runs"))
    assert ran.code == 0
    assert (
        "1/5 done, 1 running, 1 cut, 2 failed: failed: why it is so; killed: its process is gone (killed?)" in ran.err
    )
    assert re.search(r"resnet44 .*0/1, 1 running: epoch 3/7, top-1 error 50\.00 %", ran.out)
    assert re.search(r"resnet20 .* 9\.00 ", ran.out)  # of the run that is done alone
    assert not (killed / "result.json").exists()


def test_a_sweep_says_what_its_books_say(make: Callable, cnnbench: Callable, tmp_path: Path) -> None:
    """A job that never came to have a directory is known from the sweep alone."""
    path = make("r0", *RESNET, "seed=0")
    for number in range(3):
        job = SweepJob(sweep=str(path.parent), name=f"seed_{number}", number=number, command="train",
                  overrides=[*RESNET, f"seed={number}"])  # fmt: skip
        job.begin()
        job.end(*[(0, "", str(path)), (1, "out of memory", None), (75, "", None)][number])
    ran = cnnbench("report", str(tmp_path / "runs"))
    assert ran.code == 1  # a job failed
    assert "1/3 done, 1 cut, 1 failed: seed=1: out of memory" in ran.err
    assert len(ran.err.splitlines()) == 1  # the run is not counted twice
    assert re.search(r"job without a result +status +reason\nseed=1 +failed +out of memory\nseed=2 +cut", ran.out)
    assert text.GO_ON in ran.out
    write_report_page(tmp_path / "r.html", "", gather_runs([tmp_path / "runs"]), [], Comparison(), history=False)
    assert ">seed=2</td><td>cut</td>" in (tmp_path / "r.html").read_text().replace(' data-value=""', "")
    (path.parent / jobs.FOLDER / "odd.json").write_text('{"name": "x"}')
    odd = cnnbench("report", str(tmp_path / "runs"))
    assert odd.code == 0 and "the sweep's job records are damaged" in odd.err
    many = [
        SweepJob(sweep="", name=str(n), number=n, command="train", overrides=[f"seed={n}"], status="failed", reason="x")
        for n in range(50)
    ]
    assert jobs.progress_line(many).endswith("; 42 more")


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "config cut": (lambda run: (run / "config.yaml").write_text("model:\n  name: res\n x"), "config.yaml is damaged"),
    "config binary": (lambda run: (run / "config.yaml").write_bytes(b"\xff\x00\x81"), "config.yaml is damaged"),
    "config an alias bomb": (
        lambda run: (run / "config.yaml").write_text("a: &a [1]\nb: [*a]\n"),
        "config.yaml is damaged",
    ),
    "config recursive": (lambda run: (run / "config.yaml").write_text("a: &a\n  b: *a\n"), "config.yaml is damaged"),
    "config a list": (lambda run: (run / "config.yaml").write_text("- 1\n- 2\n"), "config.yaml is damaged"),
    "result cut": (lambda run: (run / "result.json").write_text('{"top1_err'), "result.json is damaged"),
    "result without error": (lambda run: (run / "result.json").write_text('{"n": 1}'), "has no top1_error"),
    "result of a wrong type": (lambda run: (run / "result.json").write_text('{"top1_error": "x"}'), "no top1_error"),
    "status cut": (lambda run: (run / "status.json").write_text("{"), "status.json is damaged"),
    "result gone": (lambda run: (run / "result.json").unlink(), "the run is done, but result.json is missing"),
    "all gone": (lambda run: [(run / name).unlink() for name in ("config.yaml", "result.json")], "is missing"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_named_and_the_others_are_shown(
    make: Callable, cnnbench: Callable, tmp_path: Path, damage: str
) -> None:
    make("whole", *RESNET)
    harm, said = DAMAGE[damage]
    harm(make("broken", *PLAIN))
    ran = cnnbench("report", str(tmp_path / "runs"), "out=report.md")
    assert ran.code == 0
    assert f"damaged: {tmp_path / 'runs' / 'broken'}: " in ran.err and said in ran.err
    assert "resnet20" in ran.out and "Traceback" not in ran.err
    assert said in (tmp_path / "report.md").read_text()


def result_with(**values: Any) -> Callable[[Path], Any]:
    def change(run: Path) -> None:
        content = json.loads((run / "result.json").read_text())
        (run / "result.json").write_text(json.dumps({**content, **values}))

    return change


def replaced(name: str, make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return lambda run: [(run / name).unlink(), make(run / name)]


def linked_out(file: Path) -> None:
    secret = file.parents[2] / "secret.json"
    secret.write_text('{"top1_error": 0.0, "model": "secret", "data": "cifar10"}')
    file.symlink_to(secret)


HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nan": (result_with(top1_error=math.nan), "result.json has no top1_error"),
    "huge": (result_with(top1_error=10**400), "result.json has no top1_error"),
    "huge size": (result_with(macs=10**400), "result.json: macs is not a number"),
    "number as text": (result_with(wall_seconds="long"), "result.json: wall_seconds is not a number"),
    "share above all": (result_with(top1_error=1e9), "result.json: top1_error is 1e+09 %, not from 0 to 100"),
    "share below 0": (result_with(train_top1_error=-5), "result.json: train_top1_error is -5 %, not from 0 to 100"),
    "text as list": (result_with(model=["a"]), "result.json: model is not text"),
    "list as number": (result_with(warnings=7), "result.json: warnings is not a list"),
    "nested": (lambda run: (run / "result.json").write_text("[" * 100_000), "result.json is damaged"),
    "nested value": (result_with(protocol=json.loads("[" * 200 + "]" * 200)), "result.json is damaged"),
    "long": (lambda run: (run / "result.json").write_text(" " * 5_000_000), "result.json cannot be read: too large"),
    "fifo": (replaced("result.json", os.mkfifo), "result.json cannot be read: not a regular file"),
    "folder": (replaced("result.json", lambda file: file.mkdir()), "result.json cannot be read: is a directory"),
    "link": (replaced("result.json", linked_out), "result.json is a link to a place outside"),
    "config fifo": (replaced("config.yaml", os.mkfifo), "config.yaml cannot be read: not a regular file"),
    "config deep": (lambda run: (run / "config.yaml").write_text("a: " + "[" * 5000), "config.yaml is damaged"),
    "config bomb": (
        lambda run: (run / "config.yaml").write_text(
            "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
        ),
        "config.yaml is damaged",
    ),
    "status fifo": (replaced("status.json", os.mkfifo), "status.json cannot be read: not a regular file"),
}


@pytest.mark.parametrize("harm", HOSTILE)
def test_a_hostile_run_is_named_in_a_line_and_the_others_are_shown(
    make: Callable, cnnbench: Callable, tmp_path: Path, harm: str
) -> None:
    make("whole", *RESNET)
    change, said = HOSTILE[harm]
    change(make("bad", *PLAIN))
    for args in (("format=json",), ("format=csv",), ("out=report.md",)):
        ran = cnnbench("report", str(tmp_path / "runs"), *args)
        assert ran.code == 0 and "resnet20" in ran.out and "secret" not in ran.out
        assert f"damaged: {tmp_path / 'runs' / 'bad'}: {said}\n" in ran.err


def test_what_waits_forever_is_not_waited_for(make: Callable, report: Callable) -> None:
    run = make("r", *RESNET, error=None, status="running")
    for name in ("metrics.jsonl", "overrides"):
        replaced(name, os.mkfifo)(run)
    os.mkfifo(run / ".lock")
    assert report()["runs"][0]["reason"] == "its process is gone (killed?)"


def test_links_do_not_lead_out_of_the_directory(make: Callable, cnnbench: Callable, tmp_path: Path) -> None:
    inside, outside = make("r", *RESNET), make("../elsewhere", *PLAIN)
    (inside.parent / "again").symlink_to(inside)
    (inside.parent / "out").symlink_to(outside)
    ran = cnnbench("report", str(inside.parent))
    assert "1/1 done" in ran.err and "plain20" not in ran.out
    assert f"1 link is not followed, as {inside.parent / 'out'}: what lies elsewhere is named by itself" in ran.err
    assert "plain20" in cnnbench("report", str(inside.parent), str(outside)).out


def test_what_is_no_result_is_said_once(make: Callable, cnnbench: Callable, tmp_path: Path) -> None:
    make("r", *RESNET)
    for number in range(2):
        make(f"fast{number}", *PLAIN, "debug=fast", f"seed={number}")
    measured = tmp_path / "runs" / "benchmark"
    measured.mkdir()
    (measured / "result.json").write_text('{"nets": [{"model": "resnet20"}], "run_dir": "x"}')
    ran = cnnbench("report", str(tmp_path / "runs"))
    assert ran.code == 0 and "plain20" not in ran.out
    assert ran.err.splitlines()[1:] == [
        f"1 benchmark is not in the table, as {measured}: see its benchmark.md",
        f"2 runs with debug= are not in the table, as {tmp_path / 'runs' / 'fast0'}: what debug= leaves is no result",
    ]
    ran = cnnbench("report", str(measured))
    assert ran.code == 2
    assert ran.err == (
        f"cnnbench: no runs in {measured}\n1 benchmark is not in the table, as {measured}: see its benchmark.md\n"
    )


def test_a_table_has_no_row_of_0_runs(make: Callable, cnnbench: Callable, tmp_path: Path) -> None:
    make("done", *RESNET, error=9.0)
    make("failed", *PLAIN, error=None, status="failed")
    ran = cnnbench("report", str(tmp_path / "runs"))
    assert re.search(r"\n\nnot finished +data +state\nplain20 +cifar10 +0/1, 1 failed: epoch 3/\d+, top-1", ran.out)
    assert "plain20" not in cnnbench("report", str(tmp_path / "runs"), "format=csv").out


def test_odd_lines_of_metrics_break_nothing(make: Callable, cnnbench: Callable, tmp_path: Path) -> None:
    run = make("r", *RESNET, error=None, status="interrupted")
    rows = [*metrics(3, 20.0), {"epoch": 4, "top1_error/val": math.nan, "top1_error/train": None}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    for cut in ("", text, text + '{"epoch": 5, "top1', text + "\x00\n", "garbage\n" + text, "[1]\n" + text):
        (run / "metrics.jsonl").write_text(cut)
        ran = cnnbench("report", str(tmp_path / "runs"))
        assert ran.code == 0 and "Traceback" not in ran.err, ran.err
        figure = charts.draw_learning_curves(group.group_runs(gather_runs([tmp_path / "runs"]).runs), ["r"], "")
        assert (figure is None) == (cut[:3] in ("", "gar"))


def test_what_evaluate_leaves_is_part_of_it_and_pictures_are_not(
    make: Callable, report: Callable, tmp_path: Path
) -> None:
    make("r", *RESNET, error=9.0)
    for seed, error in enumerate((7.0, 7.4)):
        path = tmp_path / "runs" / "evaluate" / f"e{seed}"
        path.mkdir(parents=True)
        result = {"top1_error": error, "top5_error": 0.3, "n": 10_000, "split": "test", "crop": "ten 32 of 36",
                  "protocol": {"name": "ten", "views": 10}, "model": "resnet20", "data": "cifar10", "seed": seed,
                  "weights": f"r{seed}/best.pt", "arguments": {"shortcut": "A"},
                  "trained": [*RESNET, f"seed={seed}", f"run.dir=r{seed}"],
                  "params": 269_722, "macs": 40_551_040, "wall_seconds": 1.0, "device": "a CPU"}  # fmt: skip
        (path / "result.json").write_text(json.dumps(result))
    (tmp_path / "runs" / "pictures").mkdir()
    (tmp_path / "runs" / "pictures" / "result.json").write_text('{"pictures": []}')
    found = report()
    assert found["damaged"] == []
    ten, one = found["groups"]
    assert (ten["command"], ten["runs"], ten["seeds"], ten["crop"]) == ("evaluate", 2, [0, 1], "ten 32 of 36")
    assert (one["command"], one["runs"], one["top1_error"]) == ("train", 1, 9.0)
    assert len(report("where=command=evaluate")["groups"]) == 1
    assert ten["published_top1_error"] == 8.75
    result["arguments"] = {"shortcut": "B"}  # not the paper's net
    (tmp_path / "runs" / "evaluate" / "e1" / "result.json").write_text(json.dumps(result))
    assert [one["published_top1_error"] for one in report("where=command=evaluate")["groups"]] == [8.75, None]


def test_runs_are_chosen_by_their_settings(make: Callable, report: Callable) -> None:
    make("a", *RESNET, "optim.lr=0.1")
    make("b", *RESNET, "optim.lr=0.2")
    make("c", *PLAIN, "optim.lr=0.2")
    assert [one["model"] for one in report("where=model=plain*")["groups"]] == ["plain20"]
    assert len(report("where=model=resnet20,optim.lr=0.2")["groups"]) == 1


def test_what_trainings_were_judged_on_is_shown_beside_evaluations(
    make: Callable, report: Callable, tmp_path: Path
) -> None:
    """Of a training the split is no setting, of an evaluation it is; both say it in their results."""
    make("a", *RESNET)
    for split, temperature in (("test", None), ("held-out", 0.5964345952276701)):
        path = tmp_path / "runs" / split
        path.mkdir()
        result = {"model": "resnet20", "data": "cifar10", "seed": 0, "split": split, "top1_error": 9.0, "n": 10,
                  "protocol": {"temperature": temperature}, "weights": "w.pt"}  # fmt: skip
        (path / "result.json").write_text(json.dumps(result))
    groups = report()["groups"]
    assert {one["split"] for one in groups} == {"test", "held-out"}
    assert 0.5964 in [one["protocol.temperature"] for one in groups if "protocol.temperature" in one]


def test_the_same_seed_twice_is_said(make: Callable, cnnbench: Callable, tmp_path: Path) -> None:
    make("a", *RESNET, "seed=3")
    make("b", *RESNET, "seed=3")
    assert "seed 3 occurs more than once" in cnnbench("report", str(tmp_path / "runs")).err


MISTAKES = {
    "sort=eror": "unknown column 'eror'",
    "where=model": "write KEY=VALUE",
    "where=modell=x": "unknown key in where 'modell'. Did you mean",
    "where=model=vgg16": "none of the 1 run",
    "out=report.pdf": "give a name that ends in .html",
    "out=nowhere/report.html": "there is no folder nowhere",
    "cancel=true": "there is none in",
    "there": "no such directory",
}


@pytest.mark.parametrize("args", MISTAKES)
def test_a_mistake_is_one_clear_sentence(make: Callable, cnnbench: Callable, tmp_path: Path, args: str) -> None:
    make("r", *RESNET)
    ran = cnnbench("report", str(tmp_path / "runs"), args)
    assert ran.code == 2 and MISTAKES[args] in ran.err and not ran.out
    (tmp_path / "empty").mkdir()
    assert "no runs in" in cnnbench("report", str(tmp_path / "empty")).err


def test_every_format_says_the_same(make: Callable, cnnbench: Callable, tmp_path: Path) -> None:
    for seed, error in enumerate((8.5, 9.5)):
        make(f"r{seed}", *RESNET, f"seed={seed}", error=error)
    where = str(tmp_path / "runs")
    table, markdown, csv = (cnnbench("report", where, f"format={name}").out for name in ("table", "markdown", "csv"))
    assert "9.00 ± 0.71" in table and "8.75" in table and "+0.25" in table
    assert "n = 10,000" in table and "CIFAR-10 test" in table
    assert "| 9.00 ± 0.71 |" in markdown and "`cnnbench train -m model=resnet20 data=cifar10 seed=0,1`" in markdown
    heads, values = csv.splitlines()
    assert "top1_error," in heads and ",9.0," in values
    assert cnnbench("report", where, "out=r.md").code == 0
    assert (tmp_path / "r.md").read_text() == markdown
    assert cnnbench("report", where, "out=curves.png").code == 0
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 800


def test_five_times_the_runs_take_five_times_the_work(make: Callable, tmp_path: Path) -> None:
    source = make("source", *RESNET, "optim.lr=0.1", "seed=0")
    text = (source / "config.yaml").read_text()
    groups: list[group.RunGroup] = []

    def work(folder: Path) -> None:
        groups[:] = group.sort_groups(group.group_runs(gather_runs([folder]).runs), "top1_error")

    steps = []
    for runs in (5, 20, 100):  # the first for what is imported and computed once
        copies(source, text, tmp_path / str(runs), runs)
        steps.append(count_steps(lambda folder=tmp_path / str(runs): work(folder)))  # type: ignore[misc]
        assert len(groups) == runs // 5 and all(one.seeds == [0, 1, 2, 3, 4] for one in groups)
    assert steps[2] <= 5 * steps[1]


def copies(source: Path, text: str, folder: Path, count: int) -> None:
    """So many runs with these settings, each five of another learning rate."""
    for number in range(count):
        path = folder / f"r{number}"
        shutil.copytree(source, path)
        lr = 0.01 * (1 + number // 5)
        (path / "config.yaml").write_text(text.replace("lr: 0.1\n", f"lr: {lr:g}\n").replace(
            "\nseed: 0", f"\nseed: {number % 5}"))  # fmt: skip


# What a reader sees


def clicked(page: Path, column: str, times: int) -> list[str]:
    """The first cells of the results, from above, after clicks on a heading, as a browser has them."""
    text = page.read_text()
    assert "script-src 'sha256-" in text
    button = f"[...document.querySelectorAll('th button')].find(button => button.textContent === '{column}')"
    click = f"for (let i = 0; i < {times}; i++) {button}.click();"
    copy = page.with_name("clicked.html")
    copy.write_text(re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", f"<script>{click}</script></body>"))
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         f"--user-data-dir={page.parent}/u", "--dump-dom", f"file://{copy}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    table = done.stdout.partition("<tbody>")[2].partition("</tbody>")[0]
    return re.findall(r"<tr><td[^>]*>([^<]*)<", table)


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_sorts_the_page_by_any_column(make: Callable, cnnbench: Callable, tmp_path: Path) -> None:
    for name, error in (("resnet20", 9.0), ("resnet110", 10.5), ("resnet32", 8.0)):
        make(name, f"model={name}", "data=cifar10", error=error)
    make("resnet44", "model=resnet44", "data=cifar10", error=None, status="failed")
    page = tmp_path / "page.html"
    assert cnnbench("report", str(tmp_path / "runs"), f"out={page}").code == 0
    assert clicked(page, "model", 1) == ["resnet20", "resnet32", "resnet110"]  # what failed stands below
    assert clicked(page, "top-1 error", 2) == ["resnet110", "resnet20", "resnet32"]


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_shows_the_page_as_it_is_and_loads_nothing(
    pictures: None, make: Callable, cnnbench: Callable, tmp_path: Path
) -> None:
    make("r", *RESNET)
    make("<b>&", *PLAIN)
    page, shot = tmp_path / "page.html", tmp_path / "shot.png"
    assert cnnbench("report", str(tmp_path / "runs"), f"out={page}", "history=true").code == 0
    text = page.read_text()
    assert "<b>&" not in text and "&lt;b&gt;&amp;" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:image/png|#)", text)
    assert text.count("data:image/png") == 3  # curves, costs, the challenge
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         f"--user-data-dir={tmp_path}/u", "--window-size=1250,3000", "--hide-scrollbars", f"--screenshot={shot}",
         "--enable-logging=stderr", "--v=0", f"file://{page}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "Refused to" not in done.stderr and "net::ERR" not in done.stderr
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels.max(2).astype(int) - pixels.min(2) > 60).mean() > 0.005


def test_the_challenge_is_as_the_lecture_shows_it(make: Callable, cnnbench: Callable, tmp_path: Path) -> None:
    ran = cnnbench("report", "history=true", "format=json")
    assert ran.code == 0
    rows = json.loads(ran.out)
    assert [row["top-5 error"] for row in rows] == [28.2, 25.8, 16.4, 11.7, 7.3, 6.7, 3.57, 5.1]
    assert [row["layers"] for row in rows] == [None, None, 8, 8, 19, 22, 152, None]
    with Image.open(tmp_path / "outputs" / "imagenet-history.png") as picture:
        assert picture.width > 1000
    make("mine", "model=resnet34", "data=imagenet")
    rows = json.loads(cnnbench("report", str(tmp_path / "runs"), "history=true", "format=json").out)
    assert (rows[-1]["team"], rows[-1]["net"], rows[-1]["layers"]) == ("here", "resnet34", 34)
    assert len(charts.draw_history([("resnet34", 9.0)]).axes[0].patches) == len(HISTORY) + 1


def test_curves_are_means_over_runs_of_unequal_length(make: Callable, tmp_path: Path) -> None:
    make("a", *RESNET, "seed=0", error=10.0, epochs=3)
    make("b", *RESNET, "seed=1", error=20.0, epochs=2, status="done")
    groups = group.group_runs(gather_runs([tmp_path / "runs"]).runs)
    curve = charts.mean_curve(groups[0], "top1_error/val")
    assert curve.epochs.tolist() == [1, 2, 3]
    assert curve.mean.tolist() == [(14 + 22) / 2, (12 + 20) / 2, 10]
    assert (curve.low.tolist(), curve.high.tolist()) == ([14, 12, 10], [22, 20, 10])


@pytest.mark.parametrize(("low", "high"), [(1e5, 2e5), (11.9e6, 26e6), (16.0, 53.0), (10, 1e9), (269_000, 270_000)])
def test_a_logarithmic_axis_has_a_few_round_numbers(low: float, high: float) -> None:
    found = round_numbers(0.9 * low, 1.1 * high)
    assert 1 <= len(found) <= 5 and all(0.9 * low <= value <= 1.1 * high for value in found)


def test_a_page_shows_first_what_differs_and_draws_no_single_point(make: Callable, tmp_path: Path) -> None:
    changes = ["optim.lr=0.2", "optim.momentum=0.8", "optim.weight_decay=0.01", "label_smoothing=0.2", "batch_size=64"]
    for number in range(2):
        make(f"r{number}", "model=resnet20", "data=cifar10", *(changes if number else []))
    groups = group.group_runs(gather_runs([tmp_path / "runs"]).runs)
    columns = list(text.main_rows(groups, page=True)[0][0])
    assert {*columns[:5]} == {"lr", "momentum", "weight_decay", "label_smoothing", "batch_size"}
    assert columns[5:8] == ["model", "data", "runs"]
    assert list(text.main_rows(groups)[0][0])[:2] == ["model", "data"]  # in a terminal
    one = group.group_runs(groups[1].runs)
    assert charts.draw_costs(groups, ["a", "b"], groups[0].primary, "") is not None
    for run in one[0].runs:
        run.settings["model.name"] = "resnet8"  # without a published number
        run.rows[1:] = []
    assert charts.draw_costs(one, ["a"], one[0].primary, "") is None
    assert charts.draw_learning_curves(one, ["a"], "") is None
