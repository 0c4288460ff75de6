"""Tab completion. The shell calls `cnnbench -sc query=bash`, with the typed line in COMP_LINE."""

import contextlib
import os

from cnnbench.config.registry import SECOND_WORDS, as_words, one_command
from cnnbench.utils.errors import UserError

SHELLS = ("bash", "zsh", "fish")


def complete(args: list[str], commands: list[str]) -> int:
    """Print the script that installs completion (`SHELL`), or the possible next words (`query=SHELL`)."""
    request = args[0] if args else "bash"
    action, _, shell = request.rpartition("=")
    if shell not in SHELLS or action not in ("", "install", "uninstall", "query"):
        raise UserError(f"--completion takes one of {', '.join(SHELLS)}, not '{request}'")
    if action != "query":
        _hydra("train", [f"{action or 'install'}={shell}"])
        return 0
    program, *words = os.environ.get("COMP_LINE", "").split(" ")
    command, *rest = one_command(words) if len(words) > 2 else words or [""]
    if not rest:  # perhaps the beginning of a command
        print(" ".join(name for name in commands if as_words(name) == name))
    elif command in commands:
        if len(rest) == 1:
            print(" ".join(SECOND_WORDS.get(command, {})))
        os.environ["COMP_LINE"] = " ".join([program, *rest])
        with contextlib.suppress(UserError):
            _hydra(command, [request])
    return 0


def _hydra(command: str, args: list[str]) -> None:
    from cnnbench.config import compose

    compose.launch(command, ["--shell-completion", *args], lambda cfg: None)
