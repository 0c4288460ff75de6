"""Counts in sentences: one helper for all messages."""

import re
from pathlib import Path
from unicodedata import combining

import pytest

import cnnbench
from cnnbench.utils.format import are, display_width, loss_text, plural, shorten, shorten_apart, wrapped


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (1, "step", "1 step"),
        (0, "step", "0 steps"),
        (12_000, "image", "12,000 images"),
        (1, "class", "1 class"),
        (3, "class", "3 classes"),
        (2, "batch", "2 batches"),
        (4, "process", "4 processes"),
        (1.0, "epoch", "1 epoch"),
        (1.5, "epoch", "1.5 epochs"),
    ],
)
def test_a_count_agrees_with_its_noun(count: float, noun: str, text: str) -> None:
    assert plural(count, noun) == text
    assert are(1) == "is" and are(2) == "are"


def test_a_loss_is_short_whatever_became_of_it() -> None:
    assert [loss_text(value) for value in (2.3026, 1261.0, 5.101e22, float("nan"))] == [
        "2.303",
        "1261.000",
        "5.1e+22",
        "nan",
    ]


@pytest.mark.parametrize("letter", ["a", "\u732b", "e\u0301"])
def test_a_name_is_cut_in_the_middle_however_long_it_is(letter: str) -> None:
    short = shorten(f"begin{letter * 500_000}end", 20)
    assert short.startswith("begin") and short.endswith("end") and "…" in short
    assert 18 <= display_width(short) <= 20
    assert shorten(letter * 5, 20) == letter * 5


def test_nobody_else_forms_plurals() -> None:
    package = Path(cnnbench.__file__).parent
    own = re.compile(r"""(''|""|'s'|"s"|"epochs?"|"steps?") (if|\*) .*(== 1|> 1)""")
    found = [str(file) for file in package.rglob("*.py") if file.name != "format.py" and own.search(file.read_text())]
    assert found == []


def test_names_that_would_look_alike_are_cut_where_they_differ() -> None:
    """Seen: four groups of a sweep with the same short label, in one table."""
    names = [f"augment.crop=pad cutmix={mix} erase={erase} policy=none" for mix in (0, 1) for erase in (0, 0.5)]
    other = "augment.crop=none cutmix=0 erase=0 policy=auto"
    short = shorten_apart([*names, other, *names], 30)
    assert short[other] == shorten(other, 30) and set(short) == {*names, other}
    assert len(set(short.values())) == 5 and all(len(text) <= 30 for text in short.values())


def test_a_text_is_wrapped_by_the_columns_that_it_takes() -> None:
    wide = "猫の写真と犬の写真 " * 3 + "été" * 12
    lines = wrapped(wide, 10)
    assert max(map(display_width, lines)) <= 10 and "".join(lines).replace(" ", "") == wide.replace(" ", "")
    assert not any(combining(line[0]) for line in lines) and wrapped("a b", 10) == ["a b"]
    assert wrapped("猫", 1) == ["猫"] and wrapped("", 5) == [""]
