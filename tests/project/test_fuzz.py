"""Hundreds of command lines and image files that nobody would write: each ends quickly, and with words."""

import io
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnbench.cli import main
from cnnbench.config import arguments, commands, registry, schema_keys
from cnnbench.data import read_image
from cnnbench.runtime import execute
from cnnbench.utils.errors import UserError
from tests.helpers.data import picture
from tests.helpers.paths import SCRIPTS

MORE = int(os.environ.get("FUZZ", "1"))  # times as many examples, and others each time
KEYS = sorted(
    {
        *schema_keys.help_texts(commands.TrainConfig),
        *arguments.groups(),
        "model.name",
        "model.shortcut",
        "hydra.run.dir",
    }
)
CHOICES = sorted({choice for names in arguments.groups().values() for choice in names})
ODD = ["", "null", "true", "0", "-1", "1e400", "nan", "[1,2", "{a:1}", "[]", "a,b", "${seed}", "${nope}",
       "${oc.env:NOPE}", "'", '"', "\\", "!!python/name:os", "🦆", "1,2,3", "range(3)", "choice(1)", "x=y", "$(id)",
       "..", "\x00", "\n"]  # fmt: skip
FLAGS = [
    "-m",
    "--multirun",
    "--cfg",
    "--resolve",
    "--help",
    "-x",
    "--",
    "-",
    "--config",
    "--config-dir",
    "--info",
    "-h",
]

keys = st.sampled_from(KEYS) | st.text(max_size=8)
values = st.sampled_from([*ODD, *CHOICES]) | st.integers().map(str) | st.floats().map(str) | st.text(max_size=12)
signs = st.sampled_from(["", "", "", "+", "++", "~"])
overrides = st.builds(lambda sign, key, value: f"{sign}{key}={value}", signs, keys, values)
arguments = st.lists(overrides | st.sampled_from(FLAGS) | st.text(max_size=10), max_size=5)
QUICK = settings(
    max_examples=150 * MORE,
    deadline=None,
    derandomize=MORE == 1,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def runs_quietly(config: Any) -> int:
    return 0


def end_well(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 or 2, never a traceback, and one to three lines for a mistake."""
    capsys.readouterr()
    code = main.main(args)
    said = capsys.readouterr()
    assert code in (0, 2), (args, said.err)
    assert "Traceback" not in said.err, args
    if code == 2:
        assert 1 <= len(said.err.strip().split("\n")) <= 3, (args, said.err)


@QUICK
@given(st.sampled_from(["train", "evaluate", "summary"]), arguments)
@example("train", ["data.root=\x00"])
@example("train", ["run.dir=${oc.env:NOPE}"])
@example("train", ["hydra.run.dir=[", "-m"])
@example("train", ["--info", "nothing"])
def test_no_command_line_ends_in_a_traceback(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: str,
    args: list[str],
) -> None:
    """Everything up to the command itself: options, composition, types, ranges."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(execute, "load_command", lambda command, function="run": runs_quietly)
    end_well([command, *args], capsys)


@QUICK
@given(st.text(max_size=10), arguments)
def test_no_command_is_taken_for_one(capsys: pytest.CaptureFixture[str], command: str, args: list[str]) -> None:
    if command not in registry.COMMANDS:
        end_well([command, *args], capsys)


SMALL = ("model=resnet8", "data=digits", "data.fraction=0.05", "data.image_size=8", "max_steps=1", "epochs=1",
         "batch_size=30", "device=cpu", "precision=fp32")  # fmt: skip
# What would take long for good reasons, or another machine, is left to other tests.
RUNNABLE = sorted(
    {*KEYS} - {"data.image_size", "data.download", "compile", "data.workers", "max_steps", "model", "data"}
)


@settings(QUICK, max_examples=25 * MORE)
@example("data.crop_ratio", "1e-90")
@given(st.sampled_from(RUNNABLE), st.sampled_from(ODD) | st.integers(-3, 40).map(str) | st.floats(-2, 2).map(str))
def test_a_training_with_any_one_setting_ends_in_a_result_or_a_sentence(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    no_pictures: None,
    key: str,
    value: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given_key = [text for text in SMALL if not text.startswith(f"{key}=")]
    capsys.readouterr()
    code = main.main(["train", *given_key, f"{key}={value}", "resume=never"])
    said = capsys.readouterr()
    assert code in (0, 2) or (code == 1 and "not finite" in said.err), (key, value, said.err)
    assert "Traceback" not in said.err and len(said.err.strip().splitlines()) <= 4, (key, value, said.err)


# Image files

FORMATS = ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"]


def image_bytes(format: str, mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    picture(width=60, height=45).convert(mode).save(stream, format)
    return stream.getvalue()


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Cut off, bits flipped, a piece doubled, zeroed, or replaced by noise."""
    changed = bytearray(content)
    begin = rng.randrange(len(changed))
    end = min(len(changed), begin + rng.randint(1, 40))
    kind = rng.choice(["cut", "flip", "flip", "double", "zero", "noise", "head"])
    if kind == "cut":
        del changed[begin:]
    elif kind == "flip":
        for _ in range(rng.randint(1, 30)):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif kind == "double":
        changed[begin:begin] = changed[begin:end]
    elif kind == "head":  # sizes and types are written there
        changed[rng.randrange(min(40, len(changed)))] = rng.randrange(256)
    else:
        changed[begin:end] = bytes(rng.randrange(256) if kind == "noise" else 0 for _ in range(end - begin))
    return bytes(changed)


@pytest.mark.parametrize("format", FORMATS)
def test_no_image_file_hangs_or_crashes(tmp_path: Path, format: str) -> None:
    """It is read, or refused by its name. (pytest's time-out ends a hang.)"""
    rng, file = random.Random(format), tmp_path / "a.jpg"
    contents = [image_bytes(format, mode) for mode in ("RGB", "L", *(["CMYK"] if format in ("JPEG", "TIFF") else []))]
    read = refused = 0
    for _ in range(120 * MORE):
        file.write_bytes(mutate(rng.choice(contents), rng))
        try:
            image = read_image(file)
            assert isinstance(image, Image.Image) and image.mode == "RGB" and min(image.size) > 0
            read += 1
        except UserError as error:
            assert "a.jpg" in str(error) and len(str(error).splitlines()) == 1
            refused += 1
    assert read and refused


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"\xff\xd8\xff", b"GIF89a", b"PK\x03\x04", b"#!/bin/sh\n", b"<svg/>"]
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.jpg"):
        read_image(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").mkdir()
    with pytest.raises(UserError, match=r"b\.jpg"):
        read_image(tmp_path / "b.jpg")


def test_a_short_torture_loses_nothing() -> None:
    """scripts/torture.py: kills, full disks, damaged and deleted files; the same weights in the end."""
    kinds = (
        "kill",
        "write",
        "signal",
        "full",
        "damage",
        "delete",
        "erase",
        "sweeps",
        "ports",
        "requeue",
    )  # the quick ones
    only = [word for kind in kinds for word in ("--only", kind)]
    command = [sys.executable, str(SCRIPTS / "torture.py"), "--scale", "0.03", *only]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 lost" in done.stdout.splitlines()[-1]
