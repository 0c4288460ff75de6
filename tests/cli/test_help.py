"""Help pages: complete, and readable in a terminal of 80 columns."""

from collections.abc import Callable

import pytest

from cnnbench.cli import wrapped
from cnnbench.cli.topic_page import render_topic
from cnnbench.config import commands, registry, schema_keys
from cnnbench.config.arguments import groups
from cnnbench.config.compose import command_groups
from tests.helpers.runs import Ran


def assert_fits(page: str, wide: str) -> None:
    """No line is wider than the terminal; the words are those of the same page in one that has room for all."""
    assert [line for line in page.splitlines() if len(line) > 80] == []
    assert page.replace(" \\\n", " ").split() == wide.replace(" \\\n", " ").split()


@pytest.mark.parametrize(
    "args", [["--help"], *([*registry.as_words(name).split(), "--help"] for name in registry.COMMANDS)]
)
def test_a_page_fits_80_columns_and_teaches_every_key_and_choice(
    cnnbench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = cnnbench(*args).out
    monkeypatch.setattr(wrapped, "page_width", lambda: 1000)
    wide = cnnbench(*args).out
    assert_fits(page, wide)
    command = "_".join(args[:-1])
    entries = [registry.COMMANDS[command]] if command else registry.COMMANDS.values()
    assert all(entry.examples[0] in wide for entry in entries)
    if not command:
        assert all(f"\n  {registry.as_words(name)} " in page for name in registry.COMMANDS)
        return
    assert page.startswith(f"usage: cnnbench {registry.as_words(command)} [")
    assert len(entries[0].examples) >= 2 and all(example in wide for example in entries[0].examples)
    keys = schema_keys.help_texts(commands.SCHEMAS[command]).keys() - {"model", *commands.FILLED_IN}
    assert all(f"\n  {key}=" in page for key in keys)
    assert all(f"\n  {group}=" in page for group in command_groups(command))


@pytest.mark.parametrize("group", groups())
def test_a_group_and_each_of_its_choices_have_a_page(monkeypatch: pytest.MonkeyPatch, group: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = [group, *(f"{group}={name}" for name in groups()[group])]
    pages = [render_topic(word, []) for word in words]
    assert all(f"\n  {word}" in pages[0] for word in words[1:])
    assert all(page.count("\n") > 2 for page in pages)
    monkeypatch.setattr(wrapped, "page_width", lambda: 1000)
    for page, word in zip(pages, words, strict=True):
        assert_fits(page, render_topic(word, []))


def test_a_key_and_a_section_have_a_page(cnnbench: Callable[..., Ran]) -> None:
    assert "learning rate for a batch" in cnnbench("help", "optim.lr").out
    section = cnnbench("--help", "checkpoint")
    assert section.out.startswith("checkpoint: of train, finetune\n") and "checkpoint.keep" in section.out
    assert cnnbench("help", "doctor", "data").out == cnnbench("doctor", "data", "--help").out


def test_help_shows_the_defaults_of_what_was_chosen(cnnbench: Callable[..., Ran]) -> None:
    ran = cnnbench("train", "model=alexnet", "--help")
    assert "optim.lr=0.01" in ran.out
    assert "model.overlap_pool=true" in ran.out
