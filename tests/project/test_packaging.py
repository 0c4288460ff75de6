"""What is shipped: the wheel works elsewhere, the constraints pin what is needed, the scripts cope."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cnnbench.tasks.classification import USUAL
from cnnbench.tasks.metric import as_data
from tests.helpers.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SCRIPTS = ["scripts/demo", "scripts/test", "scripts/proof_of_life", ".ci/run"]


def run(*command, cwd, check=True, **environment):
    mine = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "VENV", "CONSTRAINTS", "CNNBENCH_PYTHON")  # of whoever runs us
    clean = {key: value for key, value in os.environ.items() if key not in mine}
    return subprocess.run([str(part) for part in command], cwd=cwd, env={**clean, **environment}, check=check,
                          capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)  # fmt: skip


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The wheel, built and unpacked where the checkout is not."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_every_configuration_file(unpacked):
    expected = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").glob("**/*.yaml")}
    packed = {path.relative_to(unpacked / "cnnbench" / "conf") for path in unpacked.glob("cnnbench/conf/**/*.yaml")}
    assert expected
    assert packed == expected


def test_the_wheel_holds_the_package_its_licence_and_nothing_else(unpacked):
    sources = {path.relative_to(ROOT) for path in (ROOT / "cnnbench").glob("**/*.py")}
    assert {path.relative_to(unpacked) for path in unpacked.glob("**/*.py")} == sources
    assert {path.name for path in unpacked.iterdir()} == {"cnnbench", f"cnnbench-{PROJECT['version']}.dist-info"}
    assert list(unpacked.glob("*.dist-info/**/LICENSE"))


def test_the_wheel_works_in_another_directory_with_its_own_configuration(unpacked, tmp_path):
    code = "import cnnbench, cnnbench.config.sections as c; print(cnnbench.__file__); print(c.conf_dir())"
    where = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(unpacked)).stdout.split()
    assert where == [str(unpacked / "cnnbench" / "__init__.py"), str(unpacked / "cnnbench" / "conf")]
    arguments = ("-m", "cnnbench", "train", "model=resnet20", "data=cifar10", "--cfg", "job")
    composed = run(sys.executable, *arguments, cwd=tmp_path, PYTHONPATH=str(unpacked)).stdout
    assert "resnet20" in composed
    assert "lr:" in composed
    assert list(tmp_path.iterdir()) == []  # a look at the configuration leaves nothing behind


def pins(name: str) -> dict[str, str]:
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
    assert lines == sorted(lines, key=str.lower)
    matches = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line) for line in lines]
    assert all(matches), "names and versions only: no URLs, no local builds"
    return {canonicalize_name(match[1]): match[2] for match in matches if match}


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-floor.txt"])
def test_constraints_pin_every_runtime_dependency_inside_its_range(name):
    pinned = pins(name)
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_constraints_pin_the_development_tools_and_not_the_project():
    pinned = pins("constraints.txt")
    tools = [Requirement(text).name for text in PROJECT["optional-dependencies"]["dev"]]
    assert {canonicalize_name(name) for name in tools} <= set(pinned)
    assert not {"cnnbench", "pip"} & set(pinned)


def test_the_floor_is_the_oldest_version_that_is_declared():
    pinned = pins("constraints-floor.txt")
    for requirement in map(Requirement, PROJECT["dependencies"]):
        (oldest,) = [spec.version for spec in requirement.specifier if spec.operator == ">="]
        assert re.fullmatch(re.escape(oldest) + r"(\.0)*", pinned[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_executable_and_parse(script):
    assert (ROOT / script).stat().st_mode & stat.S_IXUSR
    run("bash", "-n", ROOT / script, cwd=ROOT)
    run("bash", "-n", ROOT / "scripts" / "_env.sh", cwd=ROOT)


FAKE_PYTHON = """\
#!/usr/bin/env bash
# Stands for a Python: says what it was asked to do, and answers as $ANSWERS says.
echo "$*" | head -n 1 >>"$LOG"
case "$*" in
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip install"*) [ -z "${PIP_FAILS:-}" ] ;;
*version_info*) [ -z "${TOO_OLD:-}" ] ;;
*find_spec*) [ -n "${COMPLETE:-}" ] ;;
"-m cnnbench train"*) echo "$RESULT"; exit "${TRAIN_CODE:-0}" ;;
"- "*) exec "$REAL_PYTHON" "$@" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A copy of the scripts with a Python that only notes what is asked of it."""
    folder = tmp_path / "a checkout"
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "python3").write_text(FAKE_PYTHON)
    (tools / "python3").chmod(0o755)

    def script(name, *arguments, **environment):
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        result = {"run_dir": "outputs/train/a run", "top1_error": 1.5, "top5_error": 0.25, "n": 359, "params": 75002,
                  "wall_seconds": 20.4, "metrics": as_data(USUAL)}  # fmt: skip
        known = {
            "PATH": f"{tools}:/usr/bin:/bin",
            "LOG": str(log),
            "REAL_PYTHON": sys.executable,
            "RESULT": json.dumps(result),
        }
        done = run(folder / "scripts" / name, *arguments, cwd=tmp_path, check=False, **{**known, **environment})
        return done, log.read_text() if log.exists() else ""

    script.folder = folder
    return script


def test_demo_installs_once_with_the_constraints_and_is_quick_the_second_time(checkout):
    done, log = checkout("demo")
    assert done.returncode == 0, done.stderr
    assert "-m pip install --quiet -c constraints.txt -e .[dev]" in log
    done, log = checkout("demo")
    assert done.returncode == 0
    assert "pip" not in log
    (checkout.folder / "constraints.txt").write_text("torch==99\n")
    assert "pip install" in checkout("demo")[1]


def test_an_installation_that_failed_is_taken_up_again(checkout):
    done, _ = checkout("demo", PIP_FAILS="yes")
    assert done.returncode != 0
    assert "pip install" in checkout("demo")[1]


def test_demo_says_what_was_learned_and_where_it_is(checkout):
    done, log = checkout("demo", "epochs=2")
    assert "-m cnnbench train epochs=2 format=json" in log
    for text in ("1.50 %", "0.25 %", "359 images", "75,002", "20 seconds", "outputs/train/a run/curves.png",
                 "outputs/train/a run/checkpoints/last.pt", "tensorboard --logdir 'outputs/train/a run'"):  # fmt: skip
        assert text in done.stdout


def test_demo_says_how_the_command_is_found_unless_its_environment_is_active(checkout):
    activate = Path(sys.executable).with_name("activate")
    if not activate.is_file():
        pytest.skip("these tests run outside of a virtual environment")
    assert f"\n  . {activate}\n" in checkout("demo")[0].stdout
    assert str(activate) not in checkout("demo", VIRTUAL_ENV=str(checkout.folder / ".venv"))[0].stdout


@pytest.mark.parametrize("argument", ["--help", "-m", "format=csv"])
def test_demo_steps_aside_where_train_speaks_for_itself(checkout, argument):
    done, log = checkout("demo", argument)
    assert log.splitlines()[-1] == f"-m cnnbench train {argument}"
    assert "What it learned" not in done.stdout


def test_demo_passes_the_exit_code_of_a_refused_command_line_on(checkout):
    done, _ = checkout("demo", "modle=x", TRAIN_CODE="2")
    assert done.returncode == 2
    assert "What it learned" not in done.stdout


def test_an_existing_environment_is_used_as_it_is(checkout, tmp_path):
    python = tmp_path / "tools" / "python3"
    done, log = checkout("demo", CNNBENCH_PYTHON=str(python), COMPLETE="yes")
    assert done.returncode == 0, done.stderr
    assert "pip" not in log
    assert "venv" not in log
    assert not (checkout.folder / ".venv").exists()


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_an_active_environment_gets_what_is_missing(checkout, tmp_path, variable):
    (tmp_path / "env" / "bin").mkdir(parents=True)
    shutil.copy(tmp_path / "tools" / "python3", tmp_path / "env" / "bin" / "python")
    done, log = checkout("demo", **{variable: str(tmp_path / "env")})
    assert done.returncode == 0, done.stderr
    assert "-e .[dev]" in log
    assert "venv" not in log


def test_venv_and_constraints_choose_others(checkout, tmp_path):
    (checkout.folder / "floor.txt").write_text("torch==2.11.0\n")
    done, log = checkout("demo", VENV=str(tmp_path / "floor"), CONSTRAINTS="floor.txt")
    assert done.returncode == 0, done.stderr
    assert "-c floor.txt" in log
    assert (tmp_path / "floor" / ".cnnbench-stamp").is_file()
    assert not (checkout.folder / ".venv").exists()


def test_a_machine_without_a_new_enough_python_is_told_so_in_one_sentence(checkout, tmp_path):
    for name in ("python3.14", "python3.13", "python3.12", "python3.11", "python"):
        shutil.copy(tmp_path / "tools" / "python3", tmp_path / "tools" / name)
    done, _ = checkout("demo", TOO_OLD="yes")
    assert done.returncode == 1
    assert done.stderr == "demo: no Python 3.11 or newer was found: install one, or name it in CNNBENCH_PYTHON\n"
