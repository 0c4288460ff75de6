"""The command line: help, speed of the cheap paths, and one clear sentence for every mistake."""

import argparse
import errno
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra._internal import utils as hydra_utils

from cnnbench.cli import main
from cnnbench.config import arguments, commands, expand, registry, schema_keys
from cnnbench.config.compose import command_groups
from cnnbench.config.sections import conf_dir
from cnnbench.runs import loggers
from cnnbench.runtime import execute
from tests.helpers.runs import Ran


def test_without_a_command_all_are_listed_with_an_example(cnnbench: Callable[..., Ran]) -> None:
    for args in ([], ["--help"]):
        ran = cnnbench(*args)
        assert ran.code == 0
        for name, command in registry.COMMANDS.items():
            assert f"\n  {registry.as_words(name)} " in ran.out
            assert command.examples[0] in ran.out


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["train", "--help"],
        ["train", "--cfg", "job"],
        ["train", "modle=x"],
        ["train", "optim.lr=x"],
        ["trian"],
    ],
)
def test_torch_is_not_imported_before_the_command_line_is_good(args: list[str], tmp_path: Path) -> None:
    code = f"""
import sys
from cnnbench.cli import main
code = main.main({args!r})
heavy = [name for name in ("torch", "torchvision", "sklearn", "matplotlib", "numpy") if name in sys.modules]
assert not heavy, heavy
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == (0 if "--help" in args or "--cfg" in args else 2), done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_torch_is_no_garbage(tmp_path: Path) -> None:
    """What torch's import leaves is set aside once; collection is on again, and a second command sets nothing aside."""
    code = """
import gc
from cnnbench.cli import main
frozen = [gc.get_freeze_count()]
for _ in range(2):
    main.main(["summary", "model=resnet8"])
    frozen.append(gc.get_freeze_count())
assert frozen[0] == 0 and gc.isenabled(), frozen
assert 100_000 < frozen[1] and frozen[2] < frozen[1] + 1000, frozen
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


MISTAKES = {
    "trian": "unknown command 'trian'. Did you mean 'train'?",
    "train modle=alexnet": "Did you mean 'model'?",
    "train model=alexnt": "unknown model 'alexnt'. Did you mean 'alexnet'?",
    "train optm.lr=3": "Did you mean 'optim.lr'?",
    "train optim.lrr=3": "Did you mean 'optim.lr'?",
    "train model=alexnet model.lnr=true": "Did you mean 'model.lrn'?",
    "train hydra.swep.dir=x": "unknown key 'hydra.swep.dir'",
    "train +foo=3": "unknown key 'foo'",
    "train +epochs=3": "without the plus sign",
    "train epochs=abc": "'abc' is not a whole number",
    "train deterministic=maybe": "deterministic=maybe: 'maybe' is not true or false",
    "train epochs=0": "epochs=0 is out of range: it must be >= 1",
    "train epochs=": "epochs",
    "train ~epochs": "epochs has no value",
    "train epochs=1,2": "add -m for a sweep",
    "train optim.lr=0,1": "a decimal is written with a point",
    "train optim=3": "unknown optim '3'",
    "train optim.lr=-1": "optim.lr=-1.0 is out of range",
    "train schedule.milestones=[0.5,2]": "schedule.milestones=2.0 is out of range",
    "train precision=bf17": "Did you mean 'bf16'?",
    "train precision=fp16 device=cpu": "precision=fp16 needs a GPU",
    "train alexnet": "did you mean model=alexnet?",
    "train model=[a": "cannot read model=[a",
    "train --fooo": "unknown option '--fooo'",
    "train lr=0.1": "Did you mean 'optim.lr'?",
    "train optim.epochs=3": "Did you mean 'epochs'?",
    "train --lr 0.1": "--lr: settings are written without dashes: optim.lr=0.1",
    "train --batch-size=64": "settings are written without dashes: batch_size=64",
    "train data=.": "data= takes a name, not a path: data=folder data.root=.",
    "train data=./x.csv": "data=list data.file=x.csv",
    "train model=./net.py": "model=python model.name=NAME model.file=net.py",
    "help trian": "Did you mean 'train'?",
    "help resnet20": "Did you mean 'model=resnet20'?",
    "help lr": "Did you mean 'optim.lr'?",
    "help data=foldr": "Did you mean 'folder'?",
    "train --cfg": "--cfg needs a value",
    "train --config-dir nope": "there is no folder nope",
    "train --config nope.yaml": "cannot read nope.yaml",
    "train --config=nope.yaml -m seed=1,2": "does not go with -m",
    "train --cfg jbo": "Did you mean 'job'?",
    "train model=nope --help": "unknown model 'nope'",
    "train --help --config-dir nope": "there is no folder nope",
    "train max_time=0s": "max_time=0s: must be more than 0 seconds",
    "train model.name=null": "model.name has no value",
    "train +model.num_classes=5": "follows from the data",
    "train freeze=1": "freeze=1: give none",
    "train schedule.warmup_epochs=1e400": "not a finite number",
    "train seed=5000000000": "seed=5000000000 is out of range",
    "train device=cpu:": "unknown device 'cpu:'",
    "train experiment=foo": "unknown experiment 'foo'",
    "train device=foo": "choices: auto, cpu, cuda",
    "train device=cuda:99": "device=cuda:99 is not available",
    "train weights=nope.pt": "there is no file nope.pt",
    "train freeze=layr1": "Did you mean 'layer1'?",
    "train max_time=3x": "max_time=3x: not a duration; write 90s, 30m or 2h",
    "train data=imagenet": "ILSVRC2012_img_train.tar",
    "train data=cifar10": "data.download=true",
    "train data=folder data.root=nope": "there is no folder 'nope'",
    "train model=alexnet data.image_size=16": "alexnet needs images of at least 63 x 63 pixels",
    "train model.in_channels=3": "the images of digits have 1",
    "train model=alexnet model.groups=7": "groups",
    "train batch_size=few": "give a whole number or auto",
    "train batch_size=2 accumulate=3": "accumulate=3 is more than the 2 images",
    "train data.mean=[0.5,0.5,0.5]": "3 values",
    "train augment.padding=40": "augment.padding=40 must be less than",
    "evaluate": "weights has no value",
    "evaluate weights=x crop=eleven": "unknown crop 'eleven'",
    "evaluate weights=x crop=14": "unknown crop '14'",
    "evaluate weights=x shift=0": "shift=0 is out of range",
    "evaluate weights=[1,2]": "give a run, a file, zoo:NAME or imagenet",
    "evaluate weights=x model=resnet20 optim.lr=3": "unknown key 'optim.lr'",
    "evaluate weights=https://a.org/b.pt": "fetch the file yourself",
    "predict": "weights has no value",
    "predict a.jpg": "weights has no value",
    "predict weights=x": "name an image, a folder or a pattern",
    "predict nope.jpg weights=x": "there is no file or folder 'nope.jpg'",
    "predict a.jpg input=b.jpg weights=x": "give either input=… or a.jpg, not both",
    "predict https://a.org/b.jpg weights=x": "fetch the image yourself",
    "predict *.jpg weights=x": "no file matches '*.jpg'",
    "predict . weights=x": "no images in '.'",
    "predict weights=x input=[]": "the list is empty",
    "predict ${x}.jpg weights=y": "can only be given on stdin",
    "predict . weights=x top=0": "top=0 is out of range",
    "predict . weights=x prepare=cifar": "Did you mean 'cifar10'?",
    "export": "weights has no value",
    "export weights=x format=onx": "unknown format 'onx'. Did you mean 'onnx'?",
    "export weights=nope format=safetensors": "there is no file nope",
    "export nope weights=x": "'nope' is not of the form key=value",
    "evaluate weights=nope": "there is no file nope",
    "evaluate weights=x split=trian": "Did you mean 'train'",
    "summary model=alexnt": "Did you mean 'alexnet'?",
    "summary model=alexnet,vgg17": "Did you mean 'vgg1",
    "summary modle=alexnet": "Did you mean 'model'?",
    "summary alexnet": "did you mean model=alexnet?",
    "summary model=alexnet model.grups=1": "Did you mean 'model.groups'?",
    "summary model=alexnet,vgg16 model.groups=1": "unknown key 'model.groups'",
    "summary model=alexnet model.groups=7": "groups",
    "summary model=alexnet image_size=16": "alexnet needs images of at least 63 x 63 pixels",
    "summary model=alexnet,resnet18 image_size=16": "alexnet needs images of at least 63 x 63 pixels",
    "summary image_size=0": "image_size=0 is out of range",
    "summary num_classes=ten": "'ten' is not a whole number",
    "summary optim.lr=3": "unknown key 'optim.lr'",
    "summary layers=some": "layers",
    "summary out=nope/summary.json": "out=nope/summary.json: there is no folder nope",
    "summary model=torchvision": "needs a name",
    "summary model=torchvision model.name=vgg17": "unknown torchvision model 'vgg17'",
    "doctor epochs=3": "unknown key 'epochs'",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_gets_one_clear_answer(cnnbench: Callable[..., Ran], tmp_path: Path, line: str) -> None:
    """Exit code 2, one to three lines, no traceback, nothing left behind."""
    ran = cnnbench(*line.split())
    assert ran.code == 2
    assert ran.out == ""
    assert MISTAKES[line] in ran.err
    assert 1 <= len(ran.err.strip().splitlines()) <= 3
    assert "Traceback" not in ran.err
    assert "Error" not in ran.err
    assert [path for path in tmp_path.rglob("*") if path.is_file() or path.parent.name == "train"] == []


def test_options_may_stand_anywhere(cnnbench: Callable[..., Ran]) -> None:
    ran = cnnbench("train", "epochs=7", "--cfg", "job", "seed=3")
    assert (ran.code, "epochs: 7" in ran.out, "seed: 3" in ran.out) == (0, True, True)


def test_a_users_own_folder_brings_models_and_data(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "model"
    mine.mkdir(parents=True)
    (mine / "wide.yaml").write_text(
        "# @package _global_\ndefaults: [alexnet, _self_]\nmodel: {groups: 1, lrn: false}\n"
    )
    ran = cnnbench("train", "--config-dir", "mine", "model=wide", "--cfg", "job")
    assert ran.code == 0, ran.err
    assert "groups: 1" in ran.out
    assert "wide" in cnnbench("train", "--config-dir", "mine", "--help").out
    assert "wide" in cnnbench("train", "--config-dir", "mine", "model=wied").err
    (tmp_path / "mine/data").mkdir()
    (tmp_path / "mine/data/photos.yaml").write_text("defaults: [folder]\nroot: somewhere\n")
    command = ("train", "--config-dir", "mine", "data=photos", "--cfg", "job")
    assert "recipe=folder" in cnnbench(*command).err
    assert "root: somewhere" in cnnbench(*command, "recipe=folder").out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("optim:\n  lrr: 0.1\n", "experiment/mine.yaml: unknown key 'optim.lrr'. Did you mean 'optim.lr'?"),
        ("optim:\n  lr: fast\n", "experiment/mine.yaml: optim.lr: 'fast' is not a number"),
        ("optim: [1\n", "experiment/mine.yaml, line 3: no YAML: expected ',' or ']'"),
    ],
)
def test_a_mistake_in_a_users_own_file_is_answered_as_on_the_command_line(
    cnnbench: Callable[..., Ran], tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "own/experiment").mkdir(parents=True)
    (tmp_path / "own/experiment/mine.yaml").write_text(f"# @package _global_\n{text}")
    ran = cnnbench("train", "--config-dir", "own", "experiment=mine")
    assert ran.code == 2 and said in ran.err and "Traceback" not in ran.err


def test_a_folder_with_the_name_of_a_right_choice_is_not_taken_for_the_mistake(
    cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    (tmp_path / "digits").mkdir()
    assert "unknown model 'alexnt'" in cnnbench("train", "data=digits", "model=alexnt").err


def test_one_job_of_an_experiment_that_is_a_sweep_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    expand.warn_of_one_job(["experiment=degradation"])
    assert "a sweep over model, seed: without -m this is one job of it" in capsys.readouterr().err
    expand.warn_of_one_job(["experiment=camvid"])
    expand.warn_of_one_job(["--cfg", "job", "experiment=degradation"])
    assert capsys.readouterr().err == ""


def test_pythons_strict_argparse_takes_hydras_options(
    cnnbench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Python 3.14 on, argparse formats each help as it is added, and refuses what is no string."""

    def check_help(self: Any, action: argparse.Action) -> None:
        "%" in (action.help or "")  # noqa: B015

    def strict(self: Any, *names: str, **settings: Any) -> argparse.Action:
        action = add_argument(self, *names, **settings)
        self._check_help(action)
        return action

    add_argument = argparse.ArgumentParser.add_argument
    monkeypatch.setattr(argparse.ArgumentParser, "_check_help", check_help, raising=False)
    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", strict)
    assert cnnbench("train", "--cfg", "job").code == 0
    with pytest.raises(TypeError):
        hydra_utils.get_args_parser()  # the strict parser does refuse Hydra's own options


def test_windows_is_told_what_is_supported(cnnbench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    ran = cnnbench("doctor")
    assert ran.code == 2 and "Linux and macOS" in ran.err


def test_a_recipe_in_a_model_file_gives_way_to_the_command_line(compose: Callable) -> None:
    """alexnet brings lr 0.01; another optimizer brings its own lr all the same."""
    assert compose("model=alexnet").optim.lr == 0.01
    assert compose("model=alexnet", "optim=adamw").optim.lr == 0.001
    assert compose("model=alexnet", "optim.lr=0.5").optim.lr == 0.5
    assert compose("data=cifar10").augment.flip is True
    assert compose("data=cifar10", "augment=none").augment.flip is False


NEEDED = {
    "evaluate": ("weights=x",),
    "predict": ("weights=x", "input=x"),
    "export": ("weights=x",),
    "data=python": ("data.name=shapes", "data.file=x.py"),
    "data=torchvision": ("data.name=Flowers102",),
}


COMPOSED = sorted(file for file in conf_dir().rglob("*.yaml") if file.parent.name != "claims")


@pytest.mark.parametrize("file", COMPOSED, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_yaml_file_composes_and_parses(compose: Callable, file: Path) -> None:
    """A dead file, or one with a key that nobody knows, fails here."""
    group, name = file.parent.name, file.stem
    if file.parent == conf_dir():
        primary = name in commands.SCHEMAS
        primaries = [(conf_dir() / f"{command}.yaml").read_text() for command in commands.SCHEMAS]
        assert primary or any(f"- {name}\n" in text for text in primaries)
        if primary:
            compose(*NEEDED.get(name, ()), command=name)
        return
    if file.parent.parent.name == "hydra":
        compose(f"hydra/{group}={name}")
        return
    if group == "experiment":  # tests/project/test_experiments.py composes them with the command in their header
        return
    takers = [command for command in ("train", "finetune", "predict", "evaluate") if group in command_groups(command)]
    command = takers[0] if takers else "train"
    typed = [f"{group}={name}", *NEEDED.get(command, ()), *NEEDED.get(f"{group}={name}", ())]
    cfg = compose(*arguments.hydra_arguments(command, typed), command=command)
    assert group in ("recipe", "task") or getattr(cfg, group) is not None


def test_a_wrong_second_word_is_named_with_the_nearest(cnnbench: Callable[..., Ran]) -> None:
    ran = cnnbench("doctor", "dat")
    assert ran.code == 2
    assert ran.err == "cnnbench: unknown word after doctor 'dat'. Did you mean 'data'?\nchoices: config, data\n"


def test_primary_files_stay_short() -> None:
    for command in commands.SCHEMAS:
        assert len((conf_dir() / f"{command}.yaml").read_text().splitlines()) <= 30


def test_every_key_of_the_schema_is_read_somewhere() -> None:
    """A key without a back end is a lie: each leaf's name appears as an attribute in the package's code."""
    package = Path(main.__file__).parents[1]
    code = "\n".join(
        file.read_text()
        for file in package.rglob("*.py")
        if file.name not in ("sections.py", "commands.py", "help_page.py")
    )
    code += "".join(f" cfg.{name}" for name in loggers.LOGGERS)  # `loggers.chosen` reads tracking's by its table
    for command, which in commands.SCHEMAS.items():
        for key in schema_keys.help_texts(which):
            leaf = key.rpartition(".")[2]
            assert f".{leaf}" in code, f"{command}: nobody reads {key}"


def test_a_reader_who_leaves_is_no_error(tmp_path: Path) -> None:
    """`cnnbench train --help | head -1` says nothing on stderr."""
    line = f"{sys.executable} -m cnnbench train --help | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path, env={**os.environ})
    assert done.stdout.startswith("usage: cnnbench train")
    assert done.stderr == ""


@pytest.mark.parametrize("fast_start", ["1", "0"])
def test_the_process_ends_at_once_but_in_order(fast_start: str) -> None:
    """main.console(): output flushed, exit functions run, threads waited for, the exit code kept."""
    script = (
        "import atexit, sys, threading\n"
        "from cnnbench.cli import main\n"
        "def late():\n    threading.main_thread().join()\n    print('thread')\n"
        "atexit.register(print, 'atexit')\n"
        "threading.Thread(target=late).start()\n"
        "sys.argv = ['cnnbench', *sys.argv[1:]]\n"
        "main.console()\n"
    )

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "CNNBENCH_FAST_START": fast_start}
        command = [sys.executable, "-c", script, *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)

    good, bad = run("--version"), run("nothing")
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.split("\n")[1:] == ["thread", "atexit", ""]
    assert (bad.returncode, bad.stdout) == (2, "thread\natexit\n")
    assert bad.stderr.startswith("cnnbench: unknown command 'nothing'")


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (["what=filters,maps", "weights=run"], "what=filters,maps weights=run"),
        (["what=['filters','maps']"], "what=filters,maps"),
        (["what=[filters,maps]"], "'what=[filters,maps]'"),
        (["images=0,5"], "images=0,5"),
        (["weights=/a b/it's (1).pt"], None),
        (["data.root='a,b'"], None),
        (["-m", "seed=1,2"], "-m seed=1,2"),
    ],
)
def test_a_command_is_shown_as_it_can_be_typed_again(typed: list[str], shown: str | None) -> None:
    overrides = arguments.hydra_arguments("visualize", typed)
    line = arguments.command_line("visualize", overrides)
    assert arguments.hydra_arguments("visualize", shlex.split(line)[2:]) == overrides
    assert shown is None or line == f"cnnbench visualize {shown}"


def test_a_stream_that_was_closed_is_discarded(tmp_path: Path) -> None:
    """No file that is opened later takes its place, and nothing asks whether None is a terminal."""
    code = """
import os, sys
from cnnbench.cli import main
main.open_closed_streams()
file = open("x", "w")
assert file.fileno() > 2 and not sys.stdout.isatty()
sys.exit(main.main(["predict", "nosuch"]) + main.main(sys.argv[1:]))
"""
    quick, slow = ["train", "--help"], ["summary", "model=resnet8"]  # which imports torch
    for closing, args in ((">&-", quick), ("2>&- <&-", quick), (">&- 2>&- <&-", slow)):
        done = subprocess.run(
            ["bash", "-c", f'"$0" -c "$1" "${{@:2}}" {closing}', sys.executable, code, *args],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "cannot write: No space left on device"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), "…"),
    ],
)
def test_what_the_system_refuses_is_one_line(capsys: pytest.CaptureFixture[str], error: OSError, words: str) -> None:
    assert execute.report_error(error) == 2
    said = capsys.readouterr().err
    assert words in said and len(said) < 250 and said.count("\n") == 1


def test_ctrl_c_is_answered(cnnbench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(command: str, config: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(execute, "run_command", stop)
    ran = cnnbench("doctor")
    assert (ran.code, ran.out, ran.err) == (130, "", "\ncnnbench: stopped\n")
