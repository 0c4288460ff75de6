"""Results as text: what a program reads stays exact, what a person reads is aligned and rounded."""

import csv
import json
import math
import re

import pytest

from cnnbench.config.sections import Format
from cnnbench.output.tables import fitted, render
from cnnbench.utils.format import display_width, shorten

ROWS = [
    {"model": "resnet20", "params": 272474, "top1_error": 8.75, "lr": 0.1},
    {"model": "plain|20", "params": 269722, "top1_error": 10.3333, "note": "no lr"},
]


def test_columns_are_the_union_of_the_keys_in_the_order_of_their_first_row():
    head = render(ROWS, Format.table).splitlines()[0]
    assert head.split() == ["model", "params", "top1_error", "lr", "note"]


def test_table_aligns_numbers_right_and_decimals_under_each_other():
    lines = render(ROWS, Format.table).splitlines()
    assert lines[1].split() == ["resnet20", "272,474", "8.75", "0.1", "-"]
    assert lines[2].split() == ["plain|20", "269,722", "10.33", "-", "no", "lr"]
    assert lines[1].index("8.75") + 4 == lines[2].index("10.33") + 5 == lines[0].index("top1_error") + 10


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.1, 0.00025], ["0.1", "0.00025"]),  # a common number of decimals would lose the second
        ([12345.678, 1.0], ["12,346", "1"]),
        ([0.5, 0.25, 0.0], ["0.50", "0.25", "0.00"]),
        ([math.nan, math.inf, 1.0], ["nan", "inf", "1"]),
        ([True, False], ["yes", "no"]),
        ([3, None], ["3", "-"]),
        (["two\nlines", ""], ["two lines", ""]),
    ],
)
def test_cells(values, texts):
    lines = render([{"x": value} for value in values], Format.table).split("\n")
    assert [line.strip() for line in lines[1:]] == texts


def test_wide_characters_do_not_break_the_alignment():
    lines = render([{"class": "蜜蜂", "n": 1}, {"class": "bees", "n": 2}], Format.table).splitlines()
    assert {display_width(line) for line in lines} == {8}


def test_json_is_valid_and_exact():
    rows = json.loads(render([{"loss": 0.1 + 0.2, "bad": math.nan, "deep": {"inf": [math.inf, 1]}}], Format.json))
    assert rows == [{"loss": 0.1 + 0.2, "bad": None, "deep": {"inf": [None, 1]}}]


@pytest.mark.parametrize("format", [Format.table, Format.markdown, Format.csv, Format.json])
def test_no_name_commands_a_terminal(format):
    text = render([{"cl\x1bass": "\x1b[2Jcat\u202e\udce9", "n": 1}], format)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", text)
    byte = r"\udce9" if format is Format.json else "�"  # a program that reads JSON finds the file again
    assert r"\u001b[2Jcat\u202e" + byte in text


@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@a", "\ta", "-", "=cmd|' /C calc'!A0"])
def test_csv_holds_no_formula(name):
    heading, cell = csv.reader(render([{name: name}], Format.csv).splitlines())
    assert heading == cell == [f"'{name}"]


@pytest.mark.parametrize("value", [-1, -0.5, "-1", "+1e-3", "-inf", "a=b", "a-b"])
def test_csv_keeps_numbers_and_plain_text(value):
    assert render([{"x": value}], Format.csv) == f"x\n{value}"


def test_csv_is_read_back_as_it_was():
    rows = list(csv.DictReader(render([{"a": 0.1 + 0.2, "b": 'x, "y"\nz'}, {"a": 1}], Format.csv).splitlines(True)))
    assert rows == [{"a": str(0.1 + 0.2), "b": 'x, "y"\nz'}, {"a": "1", "b": ""}]


def test_markdown_escapes_bars_and_aligns_numbers():
    lines = render(ROWS, Format.markdown).splitlines()
    assert lines[1] == "| --- | ---: | ---: | ---: | --- |"
    assert lines[3] == r"| plain\|20 | 269,722 | 10.33 | - | no lr |"


@pytest.mark.parametrize("format", list(Format))
def test_no_rows(format):
    assert render([], format) == ("[]" if format is Format.json else "")


def test_shorten_keeps_both_ends_within_the_width():
    assert shorten("cat", 10) == "cat"
    assert shorten("Staffordshire bull terrier 31", 16) == "Staffords…31"
    assert shorten(" a \n b ", 10) == "a b"
    assert all(display_width(shorten("蜜蜂" * 20, width)) <= width for width in range(2, 12))


def test_shorten_cuts_between_words_and_gives_the_end_what_the_beginning_leaves() -> None:
    title = "resnet20 on cifar10 with mixup: transfer and training from scratch"
    assert shorten(title, 50) == "resnet20 on cifar10 with…and training from scratch"
    assert shorten("the very long name of class number 017", 16) == "the very…017"
    assert shorten("Eurasian woodpecker (Picoides tridactylus)", 24) == "Eurasian…tridactylus)"


def test_a_table_is_no_wider_than_its_terminal():
    rows = [{"net": "resnet20 of the digits", "other": "resnet8", "n": 359, "note": "its interval holds both answers"}]
    assert fitted(rows, Format.table, 80) == render(rows, Format.table)
    short = [{key: value for key, value in rows[0].items() if key != "note"}]
    told = "not shown, for lack of width: note (add\n| cat to see all)"
    assert fitted(rows, Format.table, 40, ("note",)) == f"{render(short, Format.table)}\n{told}"
    assert fitted(rows, Format.table, 40, ("note",), ("note",)) == render(short, Format.table)
    lines = fitted(rows, Format.table, 50).splitlines()
    assert max(map(len, lines)) <= 50
    assert [line.split() for line in lines] == [
        ["net", "other", "n", "note"],
        ["resnet20", "of", "the", "resnet8", "359", "its", "interval"],
        ["digits", "holds", "both"],
        ["answers"],
    ]
    assert fitted(rows, Format.csv, 20, ("note",)) == render(rows, Format.csv)
