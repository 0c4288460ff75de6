"""The command line: `cnnbench <command> key=value …`, everything after the command being Hydra's.

A table of commands, each imported only when it is run; argv to Hydra; every mistake to one clean line and exit code 2.
torch is imported by the commands, once the command line is known to be good.
"""

import atexit
import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from cnnbench import __version__

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True)
class Command:
    module: str  # exposes run(cfg) -> exit code
    help: str
    examples: tuple[str, ...]
    after_sweep: bool = False  # exposes after_sweep(cfgs), for what a sweep's runs show together
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
    ),
    "finetune": Command(
        "cnnbench.commands.finetune",
        "transfer a trained net to other images, by the strategy that suits them",
        (
            "cnnbench finetune model=resnet34 data=folder data.root=DIR",
            "cnnbench finetune model=resnet34 freeze=backbone data=folder data.root=DIR",
            "cnnbench finetune -m transfer=scratch,svm,full data.fraction=0.1,0.3,1",
        ),
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
    "doctor": Command(
        "cnnbench.commands.doctor",
        "check this machine: versions, devices, data, disk",
        ("cnnbench doctor", "cnnbench doctor format=json"),
    ),
}

USAGE = """\
usage: cnnbench COMMAND [key=value ...] [-m]

{commands}

cnnbench COMMAND --help    the keys and choices of a command
tab completion             eval "$(cnnbench --completion bash)"    (or zsh, fish)
version                    {version}
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command line; the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _main(argv)
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
        print(help_page.render(command, COMMANDS[command], args), end="")
        return DONE
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
    from cnnbench import hydra_app, runs

    args = hydra_app.check_arguments(command, args)
    if "--config" in args:
        at = args.index("--config")
        config = hydra_app.replay(command, args[at + 1 :][:1], args[:at] + args[at + 2 :])
        return load(command)(config)
    if COMMANDS[command].compares and (configs := hydra_app.combinations(command, args)):
        return load(command, "compare")(configs)
    sweep = hydra_app.is_sweep(args)
    if sweep:
        args = [*args, *runs.sweep_overrides(command, args, hydra_app.swept_by_experiment(args))]
    outcomes: list[runs.Outcome] = []

    def job(cfg: Any) -> None:
        """Hydra takes a job that raises for a mistake of its own and says so at length: nothing is raised here."""
        outcome = runs.Outcome(overrides=hydra_app.overrides())
        outcomes.append(outcome)
        if sweep:
            print(f"job {len(outcomes)}: {' '.join(outcome.overrides)}", file=sys.stderr, flush=True)
        try:
            outcome.config = hydra_app.typed(command, cfg)
            outcome.code = load(command)(outcome.config)
        except Exception as error:
            outcome.error = error
            outcome.code = report(error) if sweep else FAILED
        if sweep and outcome.code in (INTERRUPTED, runs.PREEMPTED):
            raise KeyboardInterrupt  # the user or the scheduler wants the machine back: no further jobs

    try:
        hydra_app.launch(command, args, job)
    except KeyboardInterrupt:
        if outcomes and sweep:
            runs.report_sweep(outcomes)
        return outcomes[-1].code if outcomes and outcomes[-1].code else INTERRUPTED
    if sweep and outcomes:
        code = runs.report_sweep(outcomes)
        if COMMANDS[command].after_sweep:
            load(command, "after_sweep")([outcome.config for outcome in outcomes if outcome.code == DONE])
        return code
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
        return outcome.code
    return DONE


def load(command: str, function: str = "run") -> Callable[[Any], int]:
    """The function behind a command. Only now is anything heavy imported."""
    with nothing_is_garbage() if "torch" not in sys.modules else nullcontext():
        module = import_module(COMMANDS[command].module)
    found: Callable[[Any], int] = getattr(module, function)
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
    from cnnbench.errors import RunError, UserError

    if isinstance(error, UserError | RunError):
        print(f"cnnbench: {error}", file=sys.stderr)
        return MISTAKE if isinstance(error, UserError) else FAILED
    traceback.print_exception(error)
    return FAILED
