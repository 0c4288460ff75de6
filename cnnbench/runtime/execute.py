"""Runs a command with its configuration, in this process or in several, and reports its errors."""

import errno
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from importlib import import_module
from typing import Any

from cnnbench.config import effects
from cnnbench.config.registry import COMMANDS
from cnnbench.runtime import processes
from cnnbench.utils.console import warn
from cnnbench.utils.errors import RunError, UserError
from cnnbench.utils.exit_codes import FAILED, MISTAKE
from cnnbench.utils.fast_start import exempt_from_gc
from cnnbench.utils.format import shorten

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # of a disk
READING = ("train", "finetune", "evaluate", "benchmark")  # commands that read all images of a data set
LONGEST = 120  # characters of a path that are shown


def run_command(command: str, config: Any) -> int:
    """Run a command in this process, or in several where `devices=` asks for them. Returns the exit code."""
    effects.refuse(command, config)
    if processes.process_info().rank == 0:
        for text in effects.idle(config):
            warn(text)
    if (count := processes.process_count(config)) > 1:
        return processes.start_processes(command, config, count)
    try:
        return load_command(command)(config)
    except UserError as error:
        if command in READING and str(error).startswith("cannot read the image") and "data.on_error" not in str(error):
            raise UserError(f"{error}\ndata.on_error=skip leaves out such images and counts them") from None
        raise


def load_command(command: str, function: str = "run") -> Callable[..., int]:
    """Function of a command. This imports torch, once the command line is known to be good."""
    with exempt_from_gc() if "torch" not in sys.modules else nullcontext():
        module = import_module(COMMANDS[command].module)
    found: Callable[..., int] = getattr(module, function)
    return found


def report_error(error: Exception) -> int:
    """Print an error: one to three lines for a UserError or RunError, a traceback for a bug. Returns the exit code."""
    if isinstance(error, OSError) and (error.filename or error.errno in FULL):
        error = UserError(disk_error(error))
    with suppress(UserError):  # RANK may be no number
        if processes.process_info().rank > 0:  # rank 0 prints for all processes
            return MISTAKE if isinstance(error, UserError) else FAILED
    if isinstance(error, UserError | RunError):
        print(f"cnnbench: {error}", file=sys.stderr)
        return MISTAKE if isinstance(error, UserError) else FAILED
    traceback.print_exception(error)
    return FAILED


def disk_error(error: OSError) -> str:
    """What the system says of a file or a disk: it is no fault of the program."""
    reason = error.strerror or str(error)
    if not error.filename:
        return f"cannot write: {reason}"
    return f"cannot use '{shorten(os.fsdecode(error.filename), LONGEST)}': {reason}"


def was_interrupted(error: BaseException | None) -> bool:
    """Whether an error was caused by Ctrl-C, during which Hydra and OmegaConf may raise errors of their own."""
    return error is not None and (isinstance(error, KeyboardInterrupt) or was_interrupted(error.__context__))
