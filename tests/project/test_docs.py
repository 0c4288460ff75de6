"""The commands in README.md and docs/*.md: all are composed as the command line would, those on the digits run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from cnnbench.config import arguments, expand, registry
from cnnbench.config import compose as hydra_app
from tests.helpers.paths import ROOT
from tests.helpers.runs import Ran

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OWN_FILES = {  # as in docs/your-model.md
    "mine/model/wide.yaml": "# @package _global_\ndefaults:\n  - resnet20\n  - _self_\nmodel:\n  shortcut: C\n",
    "mine/data/photos.yaml": "defaults:\n  - folder\n  - _self_\nroot: photos\n",
    "mine/experiment/small_batch.yaml": "# @package _global_\nbatch_size: 32\nepochs: 30\n",
}
SMALL = {  # added to what is run: one step, of small images
    "train": ["max_steps=1", "epochs=1", "data.fraction=0.2", "data.image_size=8", "precision=fp32", "device=cpu"],
    "finetune": ["data.fraction=0.05", "data.image_size=16", "precision=fp32", "device=cpu", "transfer.cache=false"],
}
HOW_TO = (ROOT / "docs/own-nets.md").read_text().partition("## Whose code runs")[0]
OWN_NET = dict(re.findall(r"^```(python|yaml)\n(.*?)^```", HOW_TO, re.MULTILINE | re.DOTALL))
TAKEN: set[str] = set()  # command lines, since a fifth of them stand on several pages
BY_HAND = ("--completion", "--version")  # not Hydra's, and tested elsewhere


class Line(NamedTuple):
    page: str
    text: str
    command: str
    args: list[str]

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def commands(page: Path) -> list[Line]:
    """Each `cnnbench …` of a page, in its blocks and within sentences, once. What is abbreviated is left out."""
    text = page.read_text().replace("\\\n", " ")
    blocks = "\n".join(re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    indented = "\n".join(re.findall(r"^ {4}(\S.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.MULTILINE))
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    spans = [re.sub(r"\s+", " ", span) for span in re.findall(r"`(cnnbench [^`]+)`", prose)]
    found = {}
    for line in [*f"{blocks}\n{indented}".splitlines(), *spans]:
        part = re.search(r"(?:^|\| |\$ )(cnnbench [a-z][^|]*)", line.strip())
        if part and "…" not in part[1].split(" #")[0] and "..." not in part[1].split(" #")[0]:
            words = shlex.split(part[1].replace("model=NET", "model=resnet8"), comments=True)
            if len(words) > 1 and not words[1].isupper() and words[1] != "help":  # tests/cli/test_help.py: every page
                command, *args = registry.one_command(words[1:])
                found[" ".join(words)] = Line(page.name, " ".join(words), command, args)
    return list(found.values())


EVERY = [line for page in PAGES for line in commands(page)]
ON_DIGITS = [
    line
    for line in EVERY
    if line.command in SMALL
    and not any(
        re.match(r"(data|data\.root|task|weights|folds|devices|tracking)=|experiment=cifar|-|hydra|optim\.lr=tag", arg)
        for arg in line.args
    )
    and not any("model=" in arg for arg in line.args if "resnet" not in arg)
]
ON_DIGITS = list({line.text: line for line in reversed(ON_DIGITS)}.values())  # each once, however many pages have it


def test_the_pages_have_commands_and_all_kinds_are_among_them() -> None:
    assert len(EVERY) > 60
    assert {line.command for line in EVERY} == set(registry.COMMANDS)
    assert len(ON_DIGITS) >= 5


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own_net = {"mynet.py": OWN_NET["python"], "mine/model/mynet.yaml": OWN_NET["yaml"]}
    for name, text in {**OWN_FILES, **own_net}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)


SEEDS = re.compile(r"^(seed=\d+,\d+)(,\d+)+$")  # of many seeds the first two: each is taken like another


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_one_that_the_command_line_takes(page: Path, own_files: None) -> None:
    """Its command, keys, choices, values and their ranges. A launcher or sweeper is a plugin's, and left to its own."""
    wrong = []
    for line in commands(page):
        try:
            if line.text not in TAKEN:
                compose(line)
            TAKEN.add(line.text)
        except Exception as error:
            wrong.append(f"{line.text}\n    {error}")
    assert not wrong, "\n".join(wrong)


def compose(line: Line) -> None:
    assert line.command in registry.COMMANDS, f"no command {line.command}"
    args = [arg for arg in line.args if not arg.startswith(("hydra/", "hydra.")) and "=tag(" not in arg]
    if "--help" in args or "--config" in args or any(arg.startswith(BY_HAND) for arg in args):
        return
    if line.command == "doctor" and args[:1] == ["config"]:
        assert expand.configs_with_recipes(args[1:])
        return
    args = [SEEDS.sub(r"\1", arg) for arg in arguments.hydra_arguments(line.command, args)]
    if any(flag in args for flag in arguments.SHOWS):
        return
    if not expand.combinations(line.command, args):
        given = [arg for arg in args if "=" in arg]
        hydra_app.typed_config(line.command, hydra_app.compose(line.command, args), given)


@pytest.mark.parametrize("line", ON_DIGITS, ids=str)
def test_what_is_trained_on_the_digits_trains(cnnbench: Callable[..., Ran], no_pictures: None, line: Line) -> None:
    """As it is typed, but for one step of small images."""
    ran = cnnbench(line.command, *line.args, *SMALL[line.command])
    assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    "line", [line for line in EVERY if line.command == "summary" and "-dir" not in line.text], ids=str
)
def test_summaries_are_made(cnnbench: Callable[..., Ran], own_files: None, line: Line) -> None:
    ran = cnnbench(line.command, *line.args)
    assert ran.code == 0, ran.err
    assert ran.out or "drawing -> " in ran.err


@pytest.mark.parametrize("line", [line for line in EVERY if line.args[:1] == ["config"]], ids=str)
def test_configurations_are_read(cnnbench: Callable[..., Ran], own_files: None, line: Line) -> None:
    """Those whose data is not here have a problem, and say so: exit code 1 and no traceback."""
    ran = cnnbench(line.command, *line.args)
    needs = any(arg.startswith(("data=", "data.root=")) for arg in line.args)
    assert ran.code == int(needs), ran.out + ran.err
    assert ("problem" in ran.out) == needs


def test_the_files_of_the_how_to_page_are_those_that_are_tested() -> None:
    page = (ROOT / "docs" / "your-model.md").read_text()
    blocks = [
        re.sub(r"^# (?!@).*\n", "", block)
        for block in re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    ]
    assert blocks == list(OWN_FILES.values())
    assert all(name in page for name in OWN_FILES)


def test_links_lead_somewhere() -> None:
    """To files that are there, and to headings that are."""
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text().replace("\n", " ")):
            if target.startswith("http"):
                continue
            name, _, anchor = target.partition("#")
            file = (page.parent / name) if name else page
            assert file.exists(), f"{page.name}: {target}"
            if anchor:
                assert anchor in anchors(file), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """The names that a heading can be linked by."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_reference_is_what_the_schema_says(script: Callable[[str], ModuleType]) -> None:
    reference = script("config_reference")
    assert reference.FILE.read_text() == reference.page(), "run: python scripts/config_reference.py"


def test_the_reference_is_checked_by_its_script(tmp_path: Path) -> None:
    for folder in ("scripts", "docs"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "scripts" / "config_reference.py", tmp_path / "scripts")
    command = [sys.executable, str(tmp_path / "scripts" / "config_reference.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    written = tmp_path / "docs" / "config.md"
    written.write_text(written.read_text().replace("epochs", "epoch"))
    assert subprocess.run([*command, "--check"], env=environment, capture_output=True).returncode == 1
