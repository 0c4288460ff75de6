"""The command line: `cnnbench <command> key=value …`, everything after the command being Hydra's.

A table of commands, each imported only when it is run; argv to Hydra; every mistake to one clean line and exit code 2.
torch is imported by the commands, once the command line is known to be good.
"""

import atexit
import gc
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn

from cnnbench import __version__
from cnnbench.machine import keep_freed_memory

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130
PREEMPTED = 75  # EX_TEMPFAIL: the scheduler asked for the machine, a checkpoint is saved, the same command continues


@dataclass(frozen=True)
class Command:
    module: str  # exposes run(cfg) -> exit code
    help: str
    examples: tuple[str, ...]
    after_sweep: bool = False  # exposes after_sweep(sweep, run_dirs), for what a sweep's runs show together
    resumes: bool = False  # a run that is done need not run again: a sweep skips it
    compares: bool = False  # exposes compare(cfgs) -> exit code too: a sweep is then one table, with -m or without


COMMANDS = {
    "train": Command(
        "cnnbench.commands.train",
        "train a net from scratch",
        (
            "cnnbench train model=resnet20 data=cifar10 data.root=DIR epochs=5",
            "cnnbench train model=alexnet data=imagenet data.root=DIR",
            "cnnbench train -m model=resnet20,plain20 seed=0,1",
        ),
        resumes=True,
    ),
    "finetune": Command(
        "cnnbench.commands.finetune",
        "transfer a trained net to other images, by the strategy that suits them",
        (
            "cnnbench finetune model=resnet34 data=folder data.root=DIR",
            "cnnbench finetune model=resnet34 freeze=backbone data=folder data.root=DIR",
            "cnnbench finetune -m transfer=scratch,svm,full data.fraction=0.1,0.3,1",
        ),
        resumes=True,
        after_sweep=True,
    ),
    "evaluate": Command(
        "cnnbench.commands.evaluate",
        "judge a trained net: errors with their intervals, calibration, confusion, the worst mistakes",
        (
            "cnnbench evaluate weights=outputs/train/resnet8-digits",
            "cnnbench evaluate model=resnet34 weights=imagenet data=imagenet crop=ten",
            "cnnbench evaluate weights=[RUN1,RUN2,RUN3] shift=8 format=json",
        ),
    ),
    "predict": Command(
        "cnnbench.commands.predict",
        "say what is on images: the likeliest classes and their probabilities",
        (
            "cnnbench predict a.jpg photos/ weights=outputs/train/resnet18-photos",
            "cnnbench predict photos/ model=resnet34 weights=imagenet sheet=answers.png out=answers.csv",
            "find . -name '*.jpg' | cnnbench predict - weights=RUN format=json",
        ),
    ),
    "export": Command(
        "cnnbench.commands.export",
        "write a trained net for other programs: ONNX, TorchScript, ExportedProgram, safetensors",
        (
            "cnnbench export weights=outputs/train/resnet8-digits format=onnx",
            "cnnbench export model=resnet18 weights=imagenet format=exported_program out=resnet18.pt2",
        ),
    ),
    "summary": Command(
        "cnnbench.commands.summary",
        "show what a net is made of, layer by layer, and what its paper says; or compare nets",
        (
            "cnnbench summary model=alexnet",
            "cnnbench summary model=alexnet,vgg16,googlenet,resnet50",
            "cnnbench summary model=resnet34 model.shortcut=A num_classes=10 format=json out=resnet34.json",
            "cnnbench summary model=vgg19,plain34,resnet34 out=nets.html",
        ),
        compares=True,
    ),
    "visualize": Command(
        "cnnbench.commands.visualize",
        "see what a net has learned: filters, patches, evidence; or a training before it begins",
        (
            "cnnbench visualize weights=outputs/train/resnet8-digits what=filters",
            "cnnbench visualize weights=RUN what=gradcam,occlusion images=photos/ target=cat",
            "cnnbench visualize what=batch,schedule data=cifar10 model=resnet20",
        ),
    ),
    "report": Command(
        "cnnbench.commands.report",
        "set runs and sweeps side by side, finished or not, and beside the papers; or end a sweep",
        (
            "cnnbench report outputs/train out=report.html",
            "cnnbench report SWEEP where=model=resnet* sort=-seconds format=markdown",
            "cnnbench report history=true",
            "cnnbench report SWEEP cancel=true",
        ),
    ),
    "benchmark": Command(
        "cnnbench.commands.benchmark",
        "measure how fast nets train and answer here, what holds them up, and how large a batch fits",
        (
            "cnnbench benchmark model=resnet18",
            "cnnbench benchmark model=resnet20,nin_cifar data=cifar10 data.root=DIR batch_size=128",
            "cnnbench benchmark model=resnet50 precisions=bf16 compile=false batch_size=search format=markdown",
        ),
        compares=True,
    ),
    "prepare": Command(
        "cnnbench.commands.prepare",
        "pack folders of images into shards, resized and checksummed, that are read several times as fast",
        (
            "cnnbench prepare data=imagenet data.root=DIR out=PACKED",
            "cnnbench train model=resnet18 data=imagenet data.packed=PACKED",
        ),
    ),
    "doctor": Command(
        "cnnbench.commands.doctor",
        "check this machine: versions, devices, data, disk; or read a configuration before it trains",
        (
            "cnnbench doctor",
            "cnnbench doctor format=json",
            "cnnbench doctor config model=resnet20 data=cifar10 batch_size=32 optim.lr=0.4",
            "cnnbench doctor config finetune model=resnet34 data=folder data.root=DIR",
        ),
    ),
}

USAGE = """\
usage: cnnbench COMMAND [key=value ...] [-m]

{commands}

cnnbench COMMAND --help    the keys and choices of a command
tab completion             eval "$(cnnbench --completion bash)"    (or zsh, fish)
version                    {version}
"""


def console() -> NoReturn:
    """Run this process's command line and end the process.

    As Python itself would end it, but for taking apart, one by one, the million objects that torch has made: a second
    of work whose result nobody sees.
    """
    keep_freed_memory()
    code = main()
    threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter itself does first: threads are told to end and waited for
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # its reader has gone, or the disk that it goes to is full
            code = code or (DONE if isinstance(sys.exception(), BrokenPipeError) else FAILED)
    os._exit(code)


def main(argv: list[str] | None = None) -> int:
    """Run one command line; the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        code = _main(argv)
        if code == PREEMPTED:
            from cnnbench import slurm

            slurm.hand_over()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone (`| head`): nothing is left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        return INTERRUPTED if was_interrupted(error) else report(error)


def was_interrupted(error: BaseException | None) -> bool:
    """Whether an error comes of a Ctrl-C, in the midst of which Hydra and OmegaConf may raise errors of their own."""
    return error is not None and (isinstance(error, KeyboardInterrupt) or was_interrupted(error.__context__))


def _main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return DONE
    if argv[0] in ("-V", "--version"):
        print(__version__)
        return DONE
    if argv[0] in ("--completion", "-sc"):
        from cnnbench import completion

        return completion.run(argv[1:], list(COMMANDS))
    command, args = argv[0], argv[1:]
    if command not in COMMANDS:
        from cnnbench.errors import unknown

        raise unknown("command", command, COMMANDS)
    if "--help" in args or "-h" in args:
        from cnnbench import help_page

        args = [arg for arg in args if arg not in ("--help", "-h")]
        if command == "doctor" and args[:1] == ["config"]:
            args = []
        print(help_page.render(command, COMMANDS[command], args), end="")
        return DONE
    if command == "doctor" and args[:1] == ["config"]:
        from cnnbench import combining

        return load("doctor", "read")(combining.readings(args[1:]))
    return run(command, args)


def usage() -> str:
    """All commands with an example each."""
    width = max(map(len, COMMANDS))
    lines = [
        f"  {name:{width}}  {command.help}\n  {'':{width}}    {command.examples[0]}"
        for name, command in COMMANDS.items()
    ]
    return USAGE.format(commands="\n".join(lines), version=__version__)


def run(command: str, args: list[str]) -> int:
    """Compose the configuration (with -m: one per job) and hand it to the command; the exit code."""
    from cnnbench import arguments, combining, hydra_app, multirun

    args = arguments.check(command, args)
    if "--config" in args:
        at = args.index("--config")
        config = hydra_app.replay(command, args[at + 1 :][:1], args[:at] + args[at + 2 :])
        return perform(command, config)
    if COMMANDS[command].compares and (configs := combining.combinations(command, args)):
        return load(command, "compare")(configs)
    if arguments.is_sweep(args):
        return multirun.run(command, args)
    code: list[int] = []
    errors: list[Exception] = []

    def job(cfg: Any) -> None:
        """Hydra takes a job that raises for a mistake of its own and says so at length: nothing is raised here."""
        try:
            code.append(perform(command, hydra_app.typed(command, cfg)))
        except Exception as error:
            errors.append(error)

    hydra_app.launch(command, args, job)
    for error in errors:
        raise error
    return code[0] if code else DONE


def perform(command: str, config: Any) -> int:
    """Run a command here, or where `devices=` asks for several processes in those; the exit code."""
    from cnnbench import ranks

    if (count := ranks.wanted(config)) > 1:
        return ranks.start(command, config, count)
    return load(command)(config)


def load(command: str, function: str = "run") -> Callable[..., int]:
    """The function behind a command. Only now is anything heavy imported."""
    with nothing_is_garbage() if "torch" not in sys.modules else nullcontext():
        module = import_module(COMMANDS[command].module)
    found: Callable[..., int] = getattr(module, function)
    return found


@contextmanager
def nothing_is_garbage() -> Iterator[None]:
    """What is made inside this block stays to the end. torch makes two hundred thousand objects, and to search them for
    garbage, now and ever after, costs a short command half a second."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # else some libraries complain, at the very end, of what was never freed


def report(error: Exception) -> int:
    """Say what went wrong: one to three lines for what a user can mend, a traceback for our own mistakes."""
    from cnnbench import ranks
    from cnnbench.errors import RunError, UserError

    if ranks.place().rank > 0:  # the first of several processes says it for all
        return MISTAKE if isinstance(error, UserError) else FAILED
    if isinstance(error, UserError | RunError):
        print(f"cnnbench: {error}", file=sys.stderr)
        return MISTAKE if isinstance(error, UserError) else FAILED
    traceback.print_exception(error)
    return FAILED
