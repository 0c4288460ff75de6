"""`cnnbench doctor`: each fault, planted, is found, named and answered with what to do."""

import json
import subprocess
import sys
from collections import namedtuple

import pytest

from cnnbench.commands import doctor
from cnnbench.commands.doctor import OK, PROBLEM, WARNING
from cnnbench.config.commands import DoctorConfig
from cnnbench.config.sections import Format, RunConfig, SweepConfig
from tests.helpers.paths import ROOT

HEALTHY = {
    "torch": {"version": "2.15.0+cu132"},
    "torchvision": {"version": "0.29.2+cu132"},
    "tensorboard": {"version": "2.21.0"},
    "device": {"device": "cpu", "name": "a CPU", "precision": "fp32", "other": "bf16", "ratio": 2.0,
               "relative_error": 0.001},
}  # fmt: skip
Usage = namedtuple("Usage", "total used free")


def config(format: Format = Format.table, root: str = "outputs") -> DoctorConfig:
    run = RunConfig(dir=None, name=None, root=root, overrides=[])
    return DoctorConfig(format=format, run=run, sweep=SweepConfig(dir=None))


@pytest.fixture
def healthy(monkeypatch, tmp_path):
    """A machine without a fault, as far as the doctor can see."""
    monkeypatch.setattr(doctor, "probe", lambda: {stage: dict(entry) for stage, entry in HEALTHY.items()})
    monkeypatch.setattr(doctor, "_wanted_torch", lambda: None)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(1e12, 0, 5e11))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor, "free_memory", lambda: 16e9)
    monkeypatch.delenv("CNNBENCH_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def finished(stdout: str = "", stderr: str = "", code: int = 0):
    return lambda *args, **kwargs: subprocess.CompletedProcess(args, code, stdout, stderr)


def test_a_healthy_machine_is_all_ok(healthy, capsys):
    assert doctor.run(config()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["status", "check", "detail"]
    assert all(line.startswith("ok ") for line in lines[1:])


def test_json_is_alone_on_stdout_and_a_problem_gives_exit_code_1(healthy, capsys, monkeypatch):
    monkeypatch.setenv("CNNBENCH_DATA", "/no/such/folder")
    assert doctor.run(config(Format.json)) == 1
    rows = json.loads(capsys.readouterr().out)
    assert all(set(row) == {"check", "status", "detail", "advice"} for row in rows)
    bad = [row for row in rows if row["status"] != OK]
    assert [row["check"] for row in bad] == ["data"]
    assert "/no/such/folder" in bad[0]["detail"]


def test_on_a_terminal_the_advice_has_a_line_of_its_own(healthy, capsys, monkeypatch):
    monkeypatch.setenv("CNNBENCH_DATA", "/no/such/folder")
    doctor.run(config())
    assert "   -> create it, or set CNNBENCH_DATA" in capsys.readouterr().out


def test_the_real_probe_runs_a_net_on_this_machine():
    report = doctor.probe()
    assert all("error" not in entry for entry in report.values())
    assert doctor.torch_pair(report).status == OK
    assert report["device"]["relative_error"] < 0.02


def test_torchvision_of_another_origin_is_a_problem_that_names_the_pair(monkeypatch):
    lines = [{"stage": "torch", "version": "2.13.0+cpu"},
             {"stage": "torchvision", "error": "RuntimeError: operator torchvision::nms does not exist"}]  # fmt: skip
    monkeypatch.setattr(subprocess, "run", finished("\n".join(map(json.dumps, lines))))
    finding = doctor.torch_pair(doctor.probe())
    assert finding.status == PROBLEM
    assert "operator torchvision::nms does not exist" in finding.detail
    assert "from the same place" in finding.advice
    assert "torch==2.15.0 torchvision==0.29.2" in finding.advice


def test_the_pair_in_the_advice_is_the_one_that_is_pinned():
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert [f"torch=={doctor.TESTED_PAIR[0]}", f"torchvision=={doctor.TESTED_PAIR[1]}"] == [
        pin for pin in pins if pin.startswith(("torch==", "torchvision=="))
    ]


def test_a_pair_that_imports_but_was_not_built_together_is_a_warning(healthy, monkeypatch):
    monkeypatch.setattr(doctor, "_wanted_torch", lambda: doctor.Requirement("torch==2.14.0"))
    assert doctor.torch_pair(HEALTHY).status == WARNING
    monkeypatch.setattr(
        doctor, "_wanted_torch", lambda: doctor.Requirement("torch==2.15.0")
    )  # +cu132 is the same release
    assert doctor.torch_pair(HEALTHY).status == OK


def test_a_process_that_dies_is_reported_at_the_stage_it_died_in(monkeypatch):
    monkeypatch.setattr(subprocess, "run", finished('{"stage": "torch", "version": "2.15.0"}\n{"half', "", -11))
    report = doctor.probe()
    assert report["torch"] == {"version": "2.15.0"}
    assert doctor.torch_pair(report).status == PROBLEM
    assert "code -11" in doctor.torch_pair(report).detail
    assert doctor.device(report).status == doctor.tensorboard(report).status == PROBLEM


def test_a_process_that_hangs_is_a_problem_too(monkeypatch):
    def hang(*args, **kwargs):
        raise subprocess.TimeoutExpired(args, 300, output=b'{"stage": "torch", "version": "2.15.0"}\n')

    monkeypatch.setattr(subprocess, "run", hang)
    report = doctor.probe()
    assert report["torch"] == {"version": "2.15.0"}
    assert "no answer" in doctor.device(report).detail


def test_what_libraries_print_does_not_disturb_the_report(monkeypatch):
    monkeypatch.setattr(subprocess, "run", finished('hello {world}\n{"stage": "torch", "version": "2.15.0"}\nbye'))
    assert doctor.probe()["torch"] == {"version": "2.15.0"}


def test_a_device_that_fails_or_computes_wrongly_is_a_problem(healthy):
    error = "RuntimeError: no kernel image is available for execution on the device"
    finding = doctor.device({"device": {"error": error}})
    assert (finding.status, "no kernel image" in finding.detail) == (PROBLEM, True)
    for error in (0.5, float("nan")):
        wrong = doctor.device({"device": {**HEALTHY["device"], "relative_error": error}})
        assert (wrong.status, "wrong results" in wrong.detail) == (PROBLEM, True)


def test_a_gpu_that_torch_does_not_use_is_a_warning(healthy, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert doctor.device(HEALTHY).status == WARNING


def test_packages_outside_their_ranges_are_named(monkeypatch):
    versions = {"hydra-core": "1.2.0", "omegaconf": "2.4.0"}

    def version(name):
        if name == "tqdm":
            raise doctor.metadata.PackageNotFoundError(name)
        return versions.get(name, "99")

    monkeypatch.setattr(doctor.metadata, "version", version)
    finding = doctor.dependencies()
    assert finding.status == PROBLEM
    assert "hydra-core 1.2.0 is not >=1.3.2" in finding.detail
    assert "omegaconf 2.4.0 is not" in finding.detail
    assert "tqdm is missing" in finding.detail
    assert "'hydra-core>=1.3.2'" in finding.advice
    assert "matplotlib" not in finding.advice


def test_ranges_are_known_in_a_checkout_that_is_not_installed(monkeypatch):
    def missing(name):
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "requires", missing)
    assert {"torch", "torchvision", "hydra-core", "omegaconf"} <= {entry.name for entry in doctor._requirements()}


def test_a_tensorboard_that_does_not_import_is_a_problem():
    report = {"tensorboard": {"error": "ModuleNotFoundError: No module named 'pkg_resources'"}}
    finding = doctor.tensorboard(report)
    assert (finding.status, "pkg_resources" in finding.detail) == (PROBLEM, True)


def test_missing_configuration_is_a_problem(monkeypatch, tmp_path):
    assert doctor.configuration().status == OK
    monkeypatch.setattr(doctor, "conf_dir", lambda: tmp_path)
    assert doctor.configuration().status == PROBLEM


def test_data_sets_are_found_by_their_folders(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "imagenet").mkdir()
    assert doctor.data(str(tmp_path)).detail.endswith("holds cifar10, imagenet")
    assert doctor.data(str(tmp_path / "imagenet")).detail.endswith("none of the known data sets")


def test_output_that_cannot_be_written_is_a_problem(healthy, monkeypatch, tmp_path):
    assert doctor.writable(tmp_path / "new" / "outputs").status == OK
    assert list(tmp_path.iterdir()) == []  # looked, and left nothing behind

    def refuse(**kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    finding = doctor.writable(tmp_path / "outputs")
    assert finding.status == PROBLEM
    assert str(tmp_path) in finding.detail
    assert "run.root=DIR" in finding.advice


def test_an_output_path_that_is_a_file_is_a_problem(tmp_path):
    (tmp_path / "outputs").write_text("")
    assert doctor.writable(tmp_path / "outputs").status == PROBLEM


@pytest.mark.parametrize(("free", "status"), [(1e7, PROBLEM), (1e9, WARNING), (1e11, OK)])
def test_disk(monkeypatch, tmp_path, free, status):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(1e12, 0, free))
    assert doctor.disk(tmp_path).status == status


def test_the_shared_memory_of_a_container_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(64e6, 0, 64e6))
    finding = doctor.shared_memory(tmp_path)
    assert (finding.status, "--shm-size" in finding.advice) == (WARNING, True)
    assert doctor.shared_memory(tmp_path / "none").status == OK


def test_little_memory_is_a_warning(monkeypatch):
    monkeypatch.setattr(doctor, "free_memory", lambda: 1e9)
    assert doctor.memory().status == WARNING


def test_an_old_python_is_a_problem(monkeypatch):
    assert doctor.python().status == OK
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 4))
    assert doctor.python().status == PROBLEM


def test_the_doctor_itself_does_not_import_torch():
    code = "import sys, cnnbench.commands.doctor; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
