"""Saved configurations are data: bounded, and without aliases and references, which would never end."""

import os
from itertools import pairwise
from pathlib import Path

import pytest

from cnnbench.config import compose
from cnnbench.config.parsing import load_saved
from cnnbench.utils import plain_yaml
from cnnbench.utils.errors import UserError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{ours}: &{ours} [{', '.join([f'*{theirs}'] * 9)}]\n" for theirs, ours in pairwise("abcdefghijk")
)
WRONG = {
    "bomb": (BOMB, r"has an alias \(\*a\)"),
    "recursive": ("a: &a\n  b: *a\n", r"has an alias \(\*a\)"),
    "merged": ("a: &a {b: 1}\nc:\n  <<: *a\n", "has an alias"),
    "deep": ("[" * 500 + "]" * 500, "is nested deeper than 16 levels"),
    "deeper": ("[" * 100_000, "nested|is no YAML"),
    "deep dictionaries": ("".join(" " * n + "a:\n" for n in range(100)) + " " * 100 + "b: 1", "is nested deeper"),
    "environment": ("device: ${oc.env:HOME}\n", r"refers to other values \(\$\{oc.env:HOME\}\)"),
    "written otherwise": ('device: "\\x24{oc.env:HOME}"\n', "refers to other values"),
    "key": ("${oc.env:HOME}: 3\n", "refers to other values"),
    "large": ("# " + "x" * 2**20, "is larger than any configuration"),
    "cut": ("a:\n  b: res\n x", "is no YAML: line 3"),
    "binary": ("\x00\x01", "is no YAML"),
    "object": ("a: !!python/object/apply:os.getcwd []\n", "no YAML|constructor|could not"),
    "number": ("seed: " + "1" * 5000 + "\n", "limit|no YAML"),
    "date": ("seed: 2020-99-99\n", "Integer"),
    "a list": ("- 1\n", ""),
    "text": ("hello", ""),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_configuration_that_is_no_plain_data_is_one_sentence(tmp_path: Path, name: str) -> None:
    file, (text, said) = tmp_path / "config.yaml", WRONG[name]
    file.write_text(text)
    with pytest.raises(UserError, match=rf"--config .*({said})") as error:
        load_saved("train", file, [])
    assert len(str(error.value).splitlines()) == 1
    assert os.environ["HOME"] not in str(error.value)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, make: object) -> None:
    make(tmp_path / "config.yaml")  # type: ignore[operator]
    with pytest.raises(UserError, match=r"--config .*is no regular file"):
        load_saved("train", tmp_path / "config.yaml", [])
    with pytest.raises(plain_yaml.NotPlainError, match="no regular file"):
        plain_yaml.load(tmp_path / "config.yaml")


def test_no_reference_comes_in_beside_a_saved_configuration(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="write the value itself"):
        compose.replay_config("train", [str(tmp_path / "config.yaml")], ["device=${oc.env:HOME}"])


def test_plain_data_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: {b: [1, 2.5, text, null, true]}\n# $ {not} a reference\nc: '*a & b'\n")
    found = plain_yaml.load(tmp_path / "config.yaml")
    assert found == {"a": {"b": [1, 2.5, "text", None, True]}, "c": "*a & b"}
