"""Worker processes: named errors, no hang, none left behind."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cnnbench.data import Dataset, eval_loader, workers
from cnnbench.utils.errors import UserError
from tests.helpers.data import class_tree, picture
from tests.helpers.paths import ROOT
from tests.helpers.processes import until


def test_a_killed_worker_is_an_error_not_a_hang(files: Dataset) -> None:
    before = multiprocessing.active_children()
    loader = eval_loader(files.train, files, image_size=8, batch_size=1, workers=1)
    batches = loader.epoch()
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - set(before)
    worker.kill()
    with pytest.raises(UserError, match=r"a process that reads images was killed"):
        list(batches)


def test_workers_end_with_an_abandoned_loader(files: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """By themselves: torch would kill those that do not, here only after a minute."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 60)
    before = multiprocessing.active_children()
    loader = eval_loader(files.train, files, image_size=8, batch_size=1, workers=1)
    next(loader.epoch())
    (worker,) = set(multiprocessing.active_children()) - set(before)
    cycle = [loader]
    cycle.append(cycle)  # type: ignore[arg-type]
    del loader, cycle
    gc.collect()
    assert not worker.is_alive() and worker.exitcode == 0


SCRIPT = """
import multiprocessing, signal, sys
from tests.helpers.data import augment_config, data_config
from cnnbench.config.sections import Crop
from cnnbench.data import load_dataset, train_loader

signal.signal(signal.SIGTERM, lambda *_: None)
dataset = load_dataset(data_config("folder", root=sys.argv[1], val_fraction=0.2))
loader = train_loader(dataset, augment_config(), image_size=8, batch_size=2, seed=0, workers=2)
for epoch in range(3):
    print("epoch", sum(len(batch["target"]) for batch in loader.epoch(epoch)), flush=True)
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    if sys.argv[2] == "killed":
        sys.stdin.readline()
raise ValueError(loader)  # a traceback keeps the loader alive until the interpreter is gone
"""


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").exists() or " Z " not in Path(f"/proc/{pid}/stat").read_text()


def test_workers_live_as_long_as_the_main_process(tmp_path: Path) -> None:
    """A script without a guard; SIGTERM to the whole job is not for the workers; after kill -9 none is left behind."""
    (tmp_path / "script.py").write_text(SCRIPT)
    root = class_tree(tmp_path / "tree", {"cat": 5, "dog": 5})
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, str(tmp_path / "script.py"), str(root)]
    ended = subprocess.Popen([*command, "ended"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen([*command, "killed"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          start_new_session=True) as job:  # fmt: skip
        assert job.stdin is not None and job.stdout is not None
        assert job.stdout.readline() == "epoch 8\n"
        workers = [int(pid) for pid in job.stdout.readline().split()]
        assert len(workers) == 2 and all(running(pid) for pid in workers)
        os.killpg(job.pid, signal.SIGTERM)
        job.stdin.write("\n")
        job.stdin.flush()
        assert job.stdout.readline() == "epoch 8\n"
        assert [int(pid) for pid in job.stdout.readline().split()] == workers
        job.kill()
    until("the workers end", lambda: not any(running(pid) for pid in workers))
    out, err = ended.communicate(timeout=120)
    assert out.count("epoch 8") == 3 and "ValueError" in err and "Warning" not in err and ended.returncode == 1


def test_a_full_shared_memory_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sent as it is, the batch would be lost in a thread of the worker, and the training wait for ever."""

    def full(self: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    picture().save(tmp_path / "a.png")
    worker = workers._Worker(lambda image: torch.zeros(3, 8, 8, dtype=torch.uint8))
    task = [(str(tmp_path / "a.png"), 0)]
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    assert isinstance(worker[task], torch.Tensor)  # in this process nothing is shared
    monkeypatch.setattr(workers, "get_worker_info", object)
    assert str(worker[task]) == workers.NO_SHARED_MEMORY
