"""Command line: `cnnbench <command> key=value …`. All arguments after the command go to Hydra.

A mistake of the user gives one clear message and exit code 2. torch is imported by the commands, once the command line
is known to be good.
"""

import os
import sys
from typing import Any, NoReturn

from cnnbench import __version__
from cnnbench.config.registry import COMMANDS, SECOND_WORDS, as_words, one_command
from cnnbench.utils import fast_start
from cnnbench.utils.exit_codes import DONE, INTERRUPTED, MISTAKE, PREEMPTED
from cnnbench.utils.terminal import safe_streams

HELP = ("help", "--help", "-h")
STDERR = 2  # the last of the three descriptors that a process begins with
USAGE = """\
usage: cnnbench COMMAND [key=value ...] [-m]

{commands}

start here                 cnnbench train   (handwritten digits, no download)
cnnbench COMMAND --help    the keys and choices of a command
cnnbench help WORD         a group, a choice or a key: data, data=list, optim.lr
tab completion             eval "$(cnnbench --completion bash)"  (or zsh, fish)
version                    {version}
"""


def console() -> NoReturn:
    """Run this process's command line and end the process with its exit code."""
    open_closed_streams()
    fast_start.keep_freed_memory()
    fast_start.end_process(main())


def open_closed_streams() -> None:
    """Discard what is written to a stream that was closed (`>&-`): else the next file to be opened would receive it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 (until the process ends)


@safe_streams()
def main(argv: list[str] | None = None) -> int:
    """Run one command line. Returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        code = _main(argv)
        if code == PREEMPTED:
            from cnnbench.runtime import slurm

            slurm.await_requeue()
        return code
    except KeyboardInterrupt:
        return stopped()
    except BrokenPipeError:  # the reader of the output has gone (`| head`): print nothing more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        from cnnbench.runtime import execute

        return stopped() if execute.was_interrupted(error) else execute.report_error(error)


def stopped() -> int:
    """Say that Ctrl-C was noticed. Returns the exit code."""
    print("\ncnnbench: stopped", file=sys.stderr)
    return INTERRUPTED


def _main(argv: list[str]) -> int:
    if sys.platform == "win32":
        print("cnnbench: it runs on Linux and macOS: on Windows install it in WSL (wsl --install)", file=sys.stderr)
        return MISTAKE
    if argv[0:1] and argv[0] in HELP and argv[1:] and argv[1] not in HELP:
        if argv[1] not in COMMANDS:
            from cnnbench.cli import topic_page

            print(topic_page.render_topic(argv[1], argv[2:]), end="")
            return DONE
        argv = [*argv[1:], "--help"]
    if not argv or argv[0] in HELP:
        print(usage(), end="")
        return DONE
    if argv[0] in ("-V", "--version"):
        print(__version__)
        return DONE
    if argv[0] in ("--completion", "-sc"):
        from cnnbench.cli import completion

        return completion.complete(argv[1:], list(COMMANDS))
    command, *args = one_command(argv)
    if command not in COMMANDS:
        from cnnbench.utils.errors import unknown

        raise unknown("command", command, [name.replace("_", " ") for name in COMMANDS])
    words = SECOND_WORDS.get(command, {})
    takes_no_others = None in words.values()  # report does: its directories
    if takes_no_others and args and args[0].isidentifier() and args[0] not in words:
        from cnnbench.utils.errors import unknown

        raise unknown(f"word after {command}", args[0], words)
    if "--help" in args or "-h" in args:
        from cnnbench.cli import help_page

        args = [arg for arg in args if arg not in ("--help", "-h")]
        if command == "doctor" and args[:1] == ["config"]:
            args = []
        print(help_page.render_page(command, COMMANDS[command], args), end="")
        return DONE
    if command == "doctor" and args[:1] == ["config"]:
        from cnnbench.config import expand
        from cnnbench.runtime import execute

        return execute.load_command("doctor", "read")(expand.configs_with_recipes(args[1:]))
    return compose_and_run(command, args)


def usage() -> str:
    """Help text: all commands with an example each."""
    from cnnbench.cli.wrapped import entry, example

    lines = [
        f"{entry(as_words(name), command.help, 16)}\n{example(command.examples[0], 6)}"
        for name, command in COMMANDS.items()
    ]
    return USAGE.format(commands="\n".join(lines), version=__version__)


def compose_and_run(command: str, args: list[str]) -> int:
    """Compose the configuration (with -m: one per job) and run the command with it. Returns the exit code."""
    from cnnbench.config import arguments, compose, effects, expand
    from cnnbench.runtime import execute
    from cnnbench.sweeps.runner import prepare_launcher, run_sweep

    args = arguments.hydra_arguments(command, args)
    if "--config" in args:
        at = args.index("--config")
        config = compose.replay_config(command, args[at + 1 :][:1], args[:at] + args[at + 2 :])
        return execute.run_command(command, config)
    if COMMANDS[command].compares and (configs := expand.combinations(command, args)):
        for config in configs:
            effects.refuse(command, config)
        return execute.load_command(command, "compare")(configs)
    if arguments.is_sweep(args):
        return run_sweep(command, args)
    expand.warn_of_one_job(args)
    code: list[int] = []
    errors: list[Exception] = []

    def job(cfg: Any) -> None:
        """Collect the error: Hydra would report it as an error of its own, at length."""
        try:
            code.append(execute.run_command(command, compose.typed_config(command, cfg)))
        except Exception as error:
            errors.append(error)

    prepare_launcher(args)
    compose.launch(command, args, job)
    for error in errors:
        raise error
    return code[0] if code else DONE
