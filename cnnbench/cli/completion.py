"""Tab completion. The shell calls `cnnbench -sc query=bash`, with the typed line in COMP_LINE."""

import contextlib
import os

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
    words = os.environ.get("COMP_LINE", "").split(" ")
    if len(words) <= 2:  # cnnbench, and perhaps the beginning of a command
        print(" ".join(commands))
    elif words[1] in commands:
        os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
        with contextlib.suppress(UserError):
            _hydra(words[1], [request])
    return 0


def _hydra(command: str, args: list[str]) -> None:
    from cnnbench.config import compose

    compose.launch(command, ["--shell-completion", *args], lambda cfg: None)
