"""Lists that are written by hand in docs/: each has every name there is, and none that does not exist."""

import re
import tomllib
from collections.abc import Iterator

import pytest

from cnnbench.config import registry
from cnnbench.config.sections import conf_dir
from cnnbench.export.formats import FORMATS
from cnnbench.visual.registry import BEFORE_TRAINING, NEEDS_WEIGHTS
from tests.helpers.paths import ROOT


def choices(group: str) -> set[str]:
    """Names of the files of a group of conf/."""
    return {file.stem for file in (conf_dir() / group).glob("*.yaml")}


def extras() -> set[str]:
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


LISTS = [  # a page, the first heading of its table, what the first column has to name
    ("experiments", "`experiment=`", choices("experiment")),
    ("models", "`model=`", choices("model")),
    ("data", "`data=`", choices("data")),
    ("augmentation", "set", choices("augment")),
    ("evaluating", "`crop=`", choices("crop")),
    ("tracking", "`tracking=`", choices("tracking")),
    ("looking", "`what=`", {*NEEDS_WEIGHTS, *BEFORE_TRAINING}),
    ("deployment", "`format=`", set(FORMATS)),
    ("installing", "extra", extras()),
]


def table(page: str, heading: str) -> Iterator[str]:
    """First cell of each row of the table whose first heading this is."""
    rows = re.search(rf"(?m)^\| {re.escape(heading)} \|.*\n\|[-:| ]+\|\n((?:\|.*\n)+)", (ROOT / page).read_text())
    assert rows, f"{page} has no table with the heading {heading}"
    return (row.split("|")[1] for row in rows[1].splitlines())


@pytest.mark.parametrize(("page", "heading", "known"), LISTS, ids=[page for page, *_ in LISTS])
def test_a_list_names_all_there_is_and_nothing_else(page: str, heading: str, known: set[str]) -> None:
    """A name is the first word in backquotes: `torchvision model.name=squeezenet1_0` names torchvision."""
    named = [name for cell in table(f"docs/{page}.md", heading) for name in re.findall(r"`([\w-]+)[^`]*`", cell)]
    assert set(named) - known == set(), "no such thing"
    assert known - set(named) == set(), "not in the list"


def test_the_page_of_the_command_line_has_a_line_for_each_command() -> None:
    page = (ROOT / "docs/using.md").read_text()
    lines = re.findall(r"(?m)^cnnbench (.+)$", page)
    assert {registry.one_command(line.split())[0] for line in lines} == set(registry.COMMANDS)
