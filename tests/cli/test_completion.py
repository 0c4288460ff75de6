"""Tab completion: what comes next on a line, and the scripts that ask for it."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnbench.cli import completion
from cnnbench.config import registry
from tests.helpers.runs import Ran


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("outputs/train/resnet8-digits/checkpoints/last.pt", "outputs/train/resnet8-digits/checkpoints/best.pt",
                 "outputs/train/resnet8-digits/config.yaml", "my photos/cats/a.jpg", "x.csv",
                 ".hidden/x.pt"):  # fmt: skip
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def found(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: str) -> list[str]:
    monkeypatch.setenv("COMP_LINE", line)
    assert completion.complete([f"query={shell}"], list(registry.COMMANDS)) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("evaluate weights=outputs/train/", ["weights=outputs/train/resnet8-digits/"]),
        ("evaluate weights=outputs/train/resnet8-digits/", ["weights=outputs/train/resnet8-digits/checkpoints/"]),
        ("predict weights=[zoo:resnet20-cifar10,outputs/train/resnet8-digits/checkpoints/b",
         ["weights=[zoo:resnet20-cifar10,outputs/train/resnet8-digits/checkpoints/best.pt"]),
        ("evaluate weights=zoo:", ["weights=zoo:resnet20-cifar10"]),
        ("evaluate weights=im", ["weights=imagenet"]),
        ("train data.root=", ["data.root=my photos/", "data.root=outputs/"]),
        ("train data.root=my\\ photos/c", ["data.root=my photos/cats/"]),
        ("train data.root='my p", ["data.root=my photos/"]),
        ("train data=list data.file=x", ["data.file=x.csv"]),
        ("train data=./x", ["data=./x.csv"]),
        ("train model.file=o", ["model.file=outputs/"]),
        ("train --config outputs/train/resnet8-digits/", ["outputs/train/resnet8-digits/checkpoints/",
                                                           "outputs/train/resnet8-digits/config.yaml"]),
        ("predict my", ["my photos/"]),
        ("train precision=b", ["precision=bf16"]),
        ("train data.root=nosuch/", []),
        ("tr", ["train"]),
        ("help opt", ["optim"]),
        ("doctor con", ["config"]),
    ],
)  # fmt: skip
def test_a_word_becomes_what_is_there(
    files: None, line: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found(f"cnnbench {line}", monkeypatch, capsys, "fish") == expected


def test_what_readline_has_taken_already_is_not_repeated(
    files: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_BREAKS", " =:")
    assert found("cnnbench evaluate weights=zo", monkeypatch, capsys, "bash") == ["zoo:resnet20-cifar10"]
    assert found("cnnbench evaluate weights=zoo:r", monkeypatch, capsys, "bash") == ["resnet20-cifar10"]
    assert found("cnnbench train data.root=my", monkeypatch, capsys, "bash") == ["my\\ photos/"]
    assert found("cnnbench train data.root=my", monkeypatch, capsys, "zsh") == ["data.root=my\\ photos/"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cnnbench tr", "train"),
        ("cnnbench train model=alex", "model=alexnet"),
        ("cnnbench train optim.l", "optim.lr="),
        ("cnnbench evaluate spl", "split="),
        ("cnnbench doctor ", "data"),
        ("cnnbench doctor data simi", "similarity="),
        ("cnnbench doctor data data=fol", "data=folder"),
    ],
)
def test_tab_completes(line: str, expected: str, monkeypatch: pytest.MonkeyPatch, cnnbench: Callable[..., Ran]) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    ran = cnnbench("-sc", "query=bash")
    assert ran.code == 0
    assert expected in ran.out.split()


@pytest.mark.parametrize("shell", completion.INSTALL)
def test_the_script_is_one_that_the_shell_takes(capsys: pytest.CaptureFixture[str], tmp_path: Path, shell: str) -> None:
    completion.complete([shell], [])
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", str(script)], check=True)


def test_bash_completes(cnnbench: Callable[..., Ran], files: None, tmp_path: Path) -> None:
    """By the script, with the words and breaks of readline's."""
    (tmp_path / "script").write_text(completion.BASH)
    code = """
cnnbench() { echo "query: $* [$COMP_LINE]" >&2; echo zoo:x; }
source ./script
COMP_LINE="cnnbench evaluate weights=zo more" COMP_POINT=28 _cnnbench cnnbench 2>log
printf '<%s>' "${COMPREPLY[@]}"
"""
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == "<zoo:x >"
