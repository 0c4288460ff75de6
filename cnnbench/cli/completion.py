"""Tab completion. The shell calls `cnnbench -sc query=bash`, with the line up to the cursor in COMP_LINE."""

import contextlib
import io
import os
import re
import shlex
from typing import TYPE_CHECKING

from cnnbench.config.registry import SECOND_WORDS, as_words, one_command
from cnnbench.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

# Each candidate is a line. What readline has taken for an earlier word, up to a = or :, is not repeated.
BASH = """\
_cnnbench() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(
        COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_BREAKS="$COMP_WORDBREAKS" "$1" -sc query=bash 2>/dev/null)
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} != *[=/.:] ]]; then COMPREPLY=("${COMPREPLY[0]} "); fi
}
complete -o nospace -F _cnnbench cnnbench
"""
ZSH = """\
_cnnbench() {
    local -a found
    found=("${(@f)$(COMP_LINE="${(j: :)words[1,CURRENT-1]} $PREFIX" $words[1] -sc query=zsh 2>/dev/null)}")
    [[ -n "$found" ]] && compadd -Q -S '' -- $found
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _cnnbench cnnbench
"""
FISH = """\
complete -c cnnbench -f -a '(COMP_LINE=(commandline -cp) cnnbench -sc query=fish 2>/dev/null)'
"""
UNINSTALL = {"bash": "complete -r cnnbench", "zsh": "compdef -d cnnbench", "fish": "complete -e -c cnnbench"}
INSTALL = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def complete(args: list[str], commands: list[str]) -> int:
    """Print the script that installs completion (`SHELL`), or the possible next words (`query=SHELL`)."""
    request = args[0] if args else "bash"
    action, _, shell = request.rpartition("=")
    if shell not in INSTALL or action not in ("", "install", "uninstall", "query"):
        raise UserError(f"--completion takes one of {', '.join(INSTALL)}, not '{request}'")
    if action != "query":
        print((UNINSTALL if action == "uninstall" else INSTALL)[shell].strip())
        return 0
    line = os.environ.get("COMP_LINE", "")
    *before, word = _words(line)[1:] or [""]
    found = sorted(set(_candidates(before, word, commands)))
    for one in found:
        print(one if shell == "fish" else _escaped(one, word, shell))
    return 0


def _words(line: str) -> list[str]:
    """Words of a line as the shell reads them; the last one, which may be empty, is at the cursor."""
    for closing in ("", "'", '"'):
        with contextlib.suppress(ValueError):
            return [*shlex.split(line + closing), *([""] if line[-1:] == " " and not closing else [])]
    return shlex.split(line.rstrip("\\"))


def _escaped(candidate: str, word: str, shell: str) -> str:
    """The candidate as it is typed; for bash, less what stands before the last break of the word that is typed."""
    breaks = [at + 1 for at, one in enumerate(word) if one in ":=" and one in os.environ.get("COMP_BREAKS", "")]
    text = candidate[breaks[-1] :] if breaks and shell == "bash" else candidate
    return re.sub(r"([^\w@%+=:,./~\[\]-])", r"\\\1", text)


def _candidates(before: list[str], word: str, commands: list[str]) -> "Iterable[str]":
    if not before:
        return [name for name in [*commands, "help"] if as_words(name) == name and name.startswith(word)]
    command, *rest = one_command(before)
    if command == "help":
        return [name for name in {*map(as_words, commands), *_groups()} if not rest and name.startswith(word)]
    if command not in commands:
        return []
    second = SECOND_WORDS.get(command, {}) if not rest else {}
    return [*(name for name in second if name.startswith(word)), *_settings(command, rest, word)]


def _groups() -> list[str]:
    from cnnbench.config.arguments import groups

    return list(groups())


def _settings(command: str, rest: list[str], word: str) -> "Iterable[str]":
    """What a word may become: a setting whose value names something on the disk, or one that Hydra knows."""
    from cnnbench.cli import named_values

    values = named_values.of(command, rest, word)
    return _hydra(command, [*rest, word]) if values is None else values


def _hydra(command: str, words: list[str]) -> list[str]:
    from cnnbench.config import compose

    printed = io.StringIO()
    os.environ["COMP_LINE"] = " ".join(["cnnbench", *words])
    with contextlib.suppress(UserError), contextlib.redirect_stdout(printed):
        compose.launch(command, ["--shell-completion", "query=fish"], lambda cfg: None)
    return printed.getvalue().split()
