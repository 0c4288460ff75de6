"""Runs with files that somebody changed, and configurations that nobody should trust."""

import copy
import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.corpus.case import Case, Random
from tests.corpus.edits import ODD_VALUES, deep, edit
from tests.corpus.layouts import split_tree
from tests.helpers.trained import photo_run

REPORTS = ("report runs", "report runs format=json", "report runs out=page.html", "report runs format=csv")
REPLAYS = (
    "train --config c.yaml run.dir=new",
    "evaluate --config c.yaml",
    "doctor config --config c.yaml",
    "finetune --config c.yaml",
)
GOOD = "goodnet"  # the net of the run beside the bad one, which must be reported all the same


@cache
def result() -> dict[str, Any]:
    return json.loads((photo_run() / "result.json").read_text())


@cache
def config() -> dict[str, Any]:
    return yaml.safe_load((photo_run() / "config.yaml").read_text())


def copied_run(folder: Path) -> Path:
    leave = shutil.ignore_patterns("checkpoints", "events*", "*.png")
    shutil.copytree(photo_run(), folder, ignore=leave)
    return folder


def run_with(change: Callable[[Path], object]) -> Callable[[Path], object]:
    """Two runs, one of them changed."""

    def build(here: Path) -> None:
        good = copied_run(here / "runs" / "good")
        saved = yaml.safe_load((good / "config.yaml").read_text())
        saved["model"]["name"] = GOOD
        (good / "config.yaml").write_text(yaml.safe_dump(saved))
        change(copied_run(here / "runs" / "bad"))

    return build


def file_with(name: str, text: str | bytes) -> Callable[[Path], object]:
    content = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return run_with(lambda run: (run / name).write_bytes(content))


def result_with(**values: Any) -> Callable[[Path], object]:
    return run_with(lambda run: (run / "result.json").write_text(json.dumps({**result(), **values})))


def result_without(*keys: str) -> Callable[[Path], object]:
    def change(run: Path) -> None:
        left = {key: value for key, value in result().items() if key not in keys}
        (run / "result.json").write_text(json.dumps(left))

    return run_with(change)


def special(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    """In place of a file of the run stands something else."""

    def change(run: Path) -> None:
        (run / name).unlink()
        make(run / name)

    return run_with(change)


def outside(file: Path) -> None:
    secret = file.parents[2] / "secret.json"
    secret.write_text(json.dumps({**result(), "model": "secret"}))
    file.symlink_to(secret)


def to_itself(file: Path) -> None:
    file.symlink_to(file)


RESULTS: dict[str, Callable[[Path], object]] = {
    "empty": file_with("result.json", ""),
    "cut": file_with("result.json", '{"top1_error": 3.'),
    "list": file_with("result.json", "[1, 2]"),
    "number": file_with("result.json", "7"),
    "binary": file_with("result.json", b"\xff\xfe\0\0" * 9),
    "bom": file_with("result.json", b"\xef\xbb\xbf{}"),
    "long": file_with("result.json", "1" * 5_000_000),
    "nested": file_with("result.json", "[" * 100_000),
    "nested-value": file_with("result.json", json.dumps({"top1_error": 1.0, "n": deep(400)})),
    "big-number": file_with("result.json", '{"top1_error": 1' + "0" * 400 + "}"),
    "huge-number": file_with("result.json", '{"n": ' + "9" * 6000 + "}"),
    "pipe": special("result.json", os.mkfifo),
    "folder": special("result.json", lambda file: file.mkdir()),
    "link-out": special("result.json", outside),
    "link-loop": special("result.json", to_itself),
    "status-pipe": special("status.json", os.mkfifo),
    "status-text": file_with("status.json", "done"),
    "status-pid": file_with("status.json", '{"status": "running", "pid": -1}'),
    "status-pid-text": file_with("status.json", '{"status": "running", "pid": "1; ls"}'),
    "config-pipe": special("config.yaml", os.mkfifo),
    "config-binary": file_with("config.yaml", b"\0\1\2"),
    "config-list": file_with("config.yaml", "- 1\n- 2\n"),
    "config-python": file_with("config.yaml", "a: !!python/object/apply:os.getcwd []\n"),
    "config-deep": file_with("config.yaml", "[" * 5000),
    "metrics-pipe": special("metrics.jsonl", os.mkfifo),
    "metrics-binary": file_with("metrics.jsonl", b"\xff" * 500),
    "metrics-words": file_with("metrics.jsonl", "{}\nnothing\n[1]\n"),
    "metrics-nan": file_with("metrics.jsonl", '{"epoch": NaN, "val_top1_error": Infinity}\n'),
    "no-metric": result_without("top1_error"),
    "no-metrics": result_without("metrics", "primary", "task"),
    "name-escape": result_with(model="\x1b[2J\x1b]0;owned\x07", data="\u202eevil"),
    "name-formula": result_with(model="=cmd|' /C calc'!A0"),
    "name-html": result_with(model="<script>alert(1)</script>"),
    "metrics-odd": result_with(metrics=[{"name": "top1_error"}]),
    "metrics-number": result_with(metrics=3),
    "metrics-otherwise": result_with(metrics=[{"name": "top1_error", "label": "top-1 error", "unit": "%",
                                               "lower_is_better": True, "decimals": 2, "short": ""}]),
    **{f"error-{number}": result_with(top1_error=value) for number, value in enumerate(ODD_VALUES)},
    **{f"{key}-{number}": result_with(**{key: value})
       for key in ("n", "seed", "wall_seconds", "versions", "model", "warnings")
       for number, value in enumerate(ODD_VALUES[:8])},
}  # fmt: skip

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
)
CONFIGS: dict[str, str | bytes] = {
    "empty": "",
    "words": "train me",
    "list": "- 1\n",
    "binary": b"\0\xff\1",
    "latin": "model: caf\xe9".encode("latin-1"),
    "bomb": BOMB,
    "recursive": "a: &a\n  b: *a\n",
    "deep": "a: " + "{a: " * 900 + "1" + "}" * 900,
    "deep-list": "[" * 20_000,
    "environment": "data: {root: '${oc.env:HOME}'}\nmodel: {name: resnet8}\n",
    "decode": "seed: '${oc.decode:1}'\n",
    "python": "a: !!python/object/apply:os.getcwd []\n",
    "tag": "a: !wings 2\n",
    "cut": "model: {name: resnet8\n",
    "tabs": "model:\n\tname: resnet8\n",
    "unknown": "wings: 2\n",
    "two": "seed: 1\n---\nseed: 2\n",
    "duplicate": "seed: 1\nseed: 2\n",
    "long": "a: " + "x" * 3_000_000,
    "number-keys": "1: 2\n",
    "null-key": "null: 2\n",
    "date": "seed: 2024-01-01\n",
}


def config_file(text: str | bytes) -> Callable[[Path], object]:
    content = text.encode() if isinstance(text, str) else text
    return lambda here: (here / "c.yaml").write_bytes(content)


def changed_config(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def build(here: Path) -> None:
        split_tree(here / "d")
        content = copy.deepcopy(config())
        content["data"]["root"] = "d"
        change(content)
        (here / "c.yaml").write_text(yaml.safe_dump(content, allow_unicode=True))

    return build


def cases() -> list[Case]:
    runs = [Case(f"result-{name}", build, (REPORTS[number % 4],), GOOD, code=0, only={})
            for number, (name, build) in enumerate(RESULTS.items())]  # fmt: skip
    configs = [Case(f"config-{name}", config_file(text), REPLAYS, code=2) for name, text in CONFIGS.items()]
    return [*runs, *configs]


def random_run(number: int) -> Case:
    """A result with one or two values changed."""

    def change(run: Path) -> None:
        content = copy.deepcopy(result())
        edit(content, Random(number))
        (run / "result.json").write_text(json.dumps(content))

    return Case(f"result-random-{number}", run_with(change), (Random(number).choice(REPORTS),), GOOD, code=0)


def random_config(number: int) -> Case:
    """A run's configuration with one or two values changed."""
    rng = Random(number)

    def change(content: dict[str, Any]) -> None:
        edit(content, rng)
        content.pop("run", None)

    return Case(f"config-random-{number}", changed_config(change), (REPLAYS[0],))
