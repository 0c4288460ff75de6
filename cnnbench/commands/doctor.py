"""`cnnbench doctor`: is this machine ready? A line for each thing that has stopped somebody, with the remedy.

`cnnbench doctor config …` reads a configuration instead.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from cnnbench.config.commands import DoctorConfig, TrainConfig
from cnnbench.config.sections import conf_dir
from cnnbench.doctor.finding import OK, PROBLEM, WARNING, Finding, findings_table
from cnnbench.output.tables import for_people
from cnnbench.utils.format import plural
from cnnbench.utils.named_files import typed_path
from cnnbench.utils.system import cores, free_memory

TESTED_PAIR = ("2.15.0", "0.29.2")  # torch and torchvision, as in constraints.txt
PYTHON = (3, 11)
GB = 1e9
DATA_FOLDERS = {
    "mnist": ("MNIST", "mnist"),
    "fashion_mnist": ("FashionMNIST", "fashion_mnist", "fashion-mnist"),
    "svhn": ("train_32x32.mat", "svhn", "SVHN"),
    "stl10": ("stl10_binary", "stl10", "STL10"),
    "cifar10": ("cifar-10-batches-py",),
    "cifar100": ("cifar-100-python",),
    "imagenet": ("imagenet", "ILSVRC2012", "ILSVRC2012_img_train.tar"),
    "an image folder": ("train",),
}


def run(cfg: DoctorConfig) -> int:
    """Print what was found; 1 if there is a problem. Warnings are for reading."""
    findings = list(examine(Path(cfg.run.root)))
    print(findings_table(findings, cfg.format))
    return int(any(finding.status == PROBLEM for finding in findings))


def read(jobs: list[tuple[TrainConfig, TrainConfig]]) -> int:
    """`doctor config`: print what is to be said of each configuration, given with its recipe; 1 if one cannot run."""
    from cnnbench.doctor.config_review import review_config

    found, format = [], jobs[0][0].format
    for number, (cfg, recipe) in enumerate(jobs):
        findings = list(review_config(cfg, recipe))
        found += findings
        if len(jobs) > 1:
            blank = "\n" if number else ""
            print(f"{blank}{' '.join(cfg.run.overrides)}", file=for_people(format))
        print(findings_table(findings, format))
    return int(any(finding.status == PROBLEM for finding in found))


def examine(output: Path) -> Iterator[Finding]:
    report = probe()
    yield python()
    yield torch_pair(report)
    yield device(report)
    yield dependencies()
    yield tensorboard(report)
    yield configuration()
    yield data(os.environ.get("CNNBENCH_DATA"))
    yield writable(output)
    yield disk(output)
    yield memory()
    yield shared_memory()


def probe() -> dict[str, dict[str, Any]]:
    """Report of the stages of `machine_check`; a stage at which the process died has an `error`."""
    package_root = str(Path(__file__).parents[2])  # so that a checkout that is not installed works too
    paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "cnnbench.doctor.machine_check"]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        lines, end = done.stdout, _last_line(done.stderr) or f"the process ended with code {done.returncode}"
    except subprocess.TimeoutExpired as error:
        partial = error.stdout or b""
        lines, end = partial.decode() if isinstance(partial, bytes) else partial, "no answer within five minutes"
    report = {entry.pop("stage"): entry for entry in map(json.loads, re.findall(r'^{"stage".*}$', lines, re.MULTILINE))}
    return {stage: report.get(stage, {"error": end}) for stage in ("torch", "torchvision", "tensorboard", "device")}


def python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < PYTHON:
        return Finding("python", PROBLEM, version, f"install Python {PYTHON[0]}.{PYTHON[1]} or newer")
    return Finding("python", OK, f"{version}, {sys.executable}")


def torch_pair(report: dict[str, dict[str, Any]]) -> Finding:
    """torchvision's operators are compiled against one torch: one from elsewhere breaks it."""
    name, torch, vision = "torch", report["torch"], report["torchvision"]
    pair = "torch=={} torchvision=={}".format(*TESTED_PAIR)
    advice = f"install both from the same place and as a pair, for example: pip install --force-reinstall {pair}"
    if "error" in torch:
        return Finding(name, PROBLEM, f"does not import: {_last_line(torch['error'])}", advice)
    if "error" in vision:
        detail = f"torchvision does not import beside torch {torch['version']}: {_last_line(vision['error'])}"
        return Finding(name, PROBLEM, detail, advice)
    detail = f"torch {torch['version']} and torchvision {vision['version']}"
    wanted = _wanted_torch()
    if wanted and not wanted.specifier.contains(torch["version"], prereleases=True):
        return Finding(name, WARNING, f"{detail}, which was built for torch {wanted.specifier}", advice)
    return Finding(name, OK, f"{detail} import together")


def device(report: dict[str, dict[str, Any]]) -> Finding:
    found = report["device"]
    if "error" in found:
        return Finding("device", PROBLEM, f"a small net does not run: {_last_line(found['error'])}",
                       "update the GPU driver or install a torch build for it; device=cpu works around it")  # fmt: skip
    detail = f"{found['device']}: {found['name']}"
    if found["device"] == "cpu":
        detail += f", {plural(cores(), 'core')}"
    detail += f"; precision=auto is {found['precision']}, {found['ratio']:.1f}x the speed of {found['other']}"
    if not found["relative_error"] < 0.02:
        return Finding("device", PROBLEM, f"{detail}; wrong results: relative error {found['relative_error']:.2g}",
                       "this device or its driver computes wrongly: use another, or device=cpu")  # fmt: skip
    if found["device"] == "cpu" and (shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists()):
        return Finding("device", WARNING, f"{detail}; there is an NVIDIA GPU that torch does not use",
                       "update its driver, or install a torch build for it")  # fmt: skip
    return Finding("device", OK, detail)


def dependencies() -> Finding:
    """Every package that cnnbench needs, hydra and omegaconf among them, inside its supported range."""
    wrong = []
    requirements = _requirements()
    for requirement in requirements:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    if wrong:
        advice = "pip install " + " ".join(f"'{r.name}{r.specifier}'" for r in requirements if _named(r, wrong))
        return Finding("packages", PROBLEM, "; ".join(wrong), advice)
    shown = ", ".join(f"{name} {metadata.version(name)}" for name in ("hydra-core", "omegaconf"))
    return Finding("packages", OK, f"all {len(requirements)} inside their ranges; {shown}")


def tensorboard(report: dict[str, dict[str, Any]]) -> Finding:
    found = report["tensorboard"]
    if "error" in found:
        advice = "pip install --upgrade tensorboard; until then the tensorboard command does not start"
        return Finding("tensorboard", PROBLEM, f"does not import: {_last_line(found['error'])}", advice)
    return Finding("tensorboard", OK, found["version"])


def configuration() -> Finding:
    folder = conf_dir()
    files = sum(1 for _ in folder.glob("**/*.yaml"))
    if not (folder / "train.yaml").is_file():
        return Finding("configuration", PROBLEM, f"no train.yaml in {folder}", "install cnnbench again")
    return Finding("configuration", OK, f"{files} files in {folder}")


def data(root: str | None) -> Finding:
    """$CNNBENCH_DATA is where data sets are looked for; unset is fine, set to nothing that exists is a mistake."""
    folder = typed_path(root or "data")
    where = f"$CNNBENCH_DATA={root}" if root else "$CNNBENCH_DATA is not set; ./data"
    if not folder.is_dir():
        if root:
            return Finding(
                "data", PROBLEM, f"{where} is no folder", "create it, or set CNNBENCH_DATA to what holds the data"
            )
        return Finding("data", OK, f"{where} does not exist (the default data set, digits, needs no files)")
    found = [name for name, entries in DATA_FOLDERS.items() if any((folder / entry).exists() for entry in entries)]
    return Finding("data", OK, f"{where} holds {', '.join(found) or 'none of the known data sets'}")


def writable(output: Path) -> Finding:
    folder = _existing(output)
    try:
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding(
            "output", PROBLEM, f"cannot write in {folder}: {error.strerror}", "set run.root=DIR to where you can"
        )
    return Finding("output", OK, f"runs go to {output}/")


def disk(output: Path) -> Finding:
    free = shutil.disk_usage(_existing(output)).free / GB
    advice = "make room, or set run.root=DIR to another disk; a checkpoint of ResNet-50 takes 0.2 GB, of VGG-16 1.1 GB"
    status = PROBLEM if free < 0.2 else WARNING if free < 5 else OK
    return Finding("disk", status, f"{free:,.1f} GB free", "" if status == OK else advice)


def memory() -> Finding:
    free = free_memory()
    if free is None:
        return Finding("memory", OK, "not known on this system")
    low = free < 2 * GB
    return Finding("memory", WARNING if low else OK, f"{free / GB:,.1f} GB free",
                   "lower batch_size and data.workers" if low else "")  # fmt: skip


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Loader processes hand their batches over through it; containers often start with 64 MB."""
    if not folder.is_dir():
        return Finding("shared memory", OK, "not limited on this system")
    free = shutil.disk_usage(folder).free / GB
    if free < 0.5:
        return Finding("shared memory", WARNING, f"{free:.2f} GB: loader processes may die with 'Bus error'",
                       "start the container with --shm-size=4g (or --ipc=host), or set data.workers=0")  # fmt: skip
    return Finding("shared memory", OK, f"{free:,.1f} GB free")


def _requirements() -> list[Requirement]:
    """cnnbench's runtime dependencies: from its metadata, or, not installed, from pyproject.toml."""
    try:
        declared = metadata.requires("cnnbench") or []
    except metadata.PackageNotFoundError:
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
        declared = project["project"]["dependencies"]
    requirements = map(Requirement, declared)
    return [requirement for requirement in requirements if "extra" not in str(requirement.marker)]


def _named(requirement: Requirement, wrong: list[str]) -> bool:
    return any(text.startswith(f"{requirement.name} ") for text in wrong)


def _wanted_torch() -> Requirement | None:
    requirements = map(Requirement, metadata.requires("torchvision") or [])
    return next((requirement for requirement in requirements if requirement.name == "torch"), None)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists: where it would be created."""
    folder = folder.absolute()
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
