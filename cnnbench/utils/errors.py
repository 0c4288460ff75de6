"""Errors that are shown as one clear sentence, without a traceback."""

import re
from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake in the command line, the configuration or the data. Its text, one to three lines, is shown as it is.

    Exit code 2.
    """


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`" Did you mean 'model'?"` when a choice is near to the word, else an empty string."""
    near = get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


def same_named(word: str, keys: Iterable[str]) -> list[str]:
    """Keys whose last part is this word, the shortest way first: `optim.lr` for `lr`."""
    found = [key for key in keys if key.rpartition(".")[2] == word]
    return sorted(found, key=lambda key: (key.count("."), key != f"optim.{word}", key))


def unknown(kind: str, word: str, choices: Iterable[str]) -> UserError:
    """UserError for a name that is not among the choices, with the nearest one and the whole list."""
    choices = sorted(
        choices, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    )
    return UserError(f"unknown {kind} '{word}'.{did_you_mean(word, choices)}\nchoices: {', '.join(choices)}")


class RunError(RuntimeError):
    """A run that cannot go on, though its call was right. Exit code 1."""
