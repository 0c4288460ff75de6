"""The processes of one training: which of them this one is, and how a machine starts them. torch is not needed here.

Whoever started them says it in the environment: torchrun, srun, submitit, or `start()` below for `devices=N`.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cnnbench.config.parsing import to_plain
from cnnbench.runtime import slurm
from cnnbench.utils import system
from cnnbench.utils.errors import RunError, UserError
from cnnbench.utils.exit_codes import PREEMPTED

STORE = "CNNBENCH_STORE"  # a file by which the processes of one machine find each other, without a port
GRACE = 10  # seconds that the others have to end by themselves, once one has failed
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class ProcessInfo:
    """This process among those that train together: its number of all, and of those on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    address: tuple[str, int] | None = None  # where they meet, unless the environment says it already


def process_info() -> ProcessInfo:
    """Read from the environment, each time: tests change it."""
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        rank, size = int(env["RANK"]), int(env["WORLD_SIZE"])
        return ProcessInfo(rank, size, int(env.get("LOCAL_RANK", rank)), int(env.get("LOCAL_WORLD_SIZE", size)))
    if "SLURM_PROCID" in env and int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return _under_srun(env)
    if int(env.get("SUBMITIT_LOCAL_NTASKS", 1)) > 1:
        size = int(env["SUBMITIT_LOCAL_NTASKS"])
        port = _port(env.get("SUBMITIT_LOCAL_JOB_ID", ""))
        return ProcessInfo(int(env["SUBMITIT_LOCAL_GLOBALID"]), size, int(env["SUBMITIT_LOCAL_LOCALID"]), size,
                     ("127.0.0.1", port))  # fmt: skip
    return ProcessInfo()


def _under_srun(env: Any) -> ProcessInfo:
    size, nodes = int(env["SLURM_STEP_NUM_TASKS"]), int(env.get("SLURM_STEP_NUM_NODES", 1))
    here = int(re.match(r"\d+", env.get("SLURM_STEP_TASKS_PER_NODE", str(size)))[0])  # type: ignore[index]
    port = _port("-".join(env.get(f"SLURM_{key}", "") for key in ("JOB_ID", "STEP_ID", "RESTART_COUNT")))
    host = "127.0.0.1" if nodes == 1 else env.get("MASTER_ADDR") or _first_node(env)
    address = host, int(env.get("MASTER_PORT", port))
    return ProcessInfo(int(env["SLURM_PROCID"]), size, int(env.get("SLURM_LOCALID", 0)), here, address)


def _first_node(env: Any) -> str:
    """The first of `node[1-4],other7`, where that name can be looked up; else the address of where srun was started."""
    names = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST", "")
    first = re.sub(r"\[([^\],-]+)[^\]]*\].*", r"\1", re.split(r",(?![^\[]*\])", names)[0])
    with suppress(OSError):
        socket.gethostbyname(first)
        return first
    if launched_at := env.get("SLURM_LAUNCH_NODE_IPADDR"):
        return str(launched_at)
    raise UserError(f"this machine cannot look up {first}, where the processes are to meet: set MASTER_ADDR")


def _port(*parts: str) -> int:
    """One that follows from the job, so that all choose the same and two jobs hardly ever do."""
    import zlib

    return 20000 + zlib.crc32("-".join(parts).encode()) % 20000


# To start them


def process_count(cfg: Any) -> int:
    """How many processes this one is to start for `devices=`; 1 for none. UserError where so many cannot be."""
    if not hasattr(cfg, "devices"):
        return 1
    given, alone = cfg.devices, process_info().size == 1
    if given != "all" and not str(given).isdigit():
        raise UserError(f"devices={given}: give a number of them, or all")
    if given == "all" or int(given) > 1:
        if cfg.device not in ("auto", "cpu", "cuda"):
            raise UserError(f"devices={given} goes with device=auto, cpu or cuda, not with device={cfg.device}")
        if not alone:
            return _as_started(given)
        return _there(given, [] if cfg.device == "cpu" else visible_gpus())
    return 1


def _as_started(given: int | str) -> int:
    if given != "all" and int(given) != process_info().size:
        raise UserError(f"devices={given}, but {process_info().size} processes were started: leave devices= out")
    return 1


def _there(given: int | str, found: list[str]) -> int:
    if given == "all":
        return len(found) or 1  # without GPUs one process uses all cores
    most = len(found) or system.cores()
    if int(given) > most:
        what = f"{len(found)} GPUs" if found else f"no GPU, and {system.cores()} cores for processes on the CPU"
        raise UserError(f"devices={given} cannot be: this machine has {what}")
    return int(given)


def visible_gpus() -> list[str]:
    """The names by which the GPUs of this machine, or those that this process may use, are chosen."""
    if (shown := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in shown.split(",") if name.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(n) for n, line in enumerate(x for x in listed.stdout.splitlines() if x.startswith("GPU "))]


class Worker:
    """A process that runs commands for this one: tasks go in as lines of JSON, answers come back so. It ends when we
    do, also when we are killed."""

    def __init__(self, environment: dict[str, str], stdout: Any = None, stderr: Any = None) -> None:
        read, write = os.pipe()
        env = {**os.environ, **environment, "CNNBENCH_ANSWERS": str(write)}
        # In a process group of its own: a Ctrl-C comes from us alone, and once.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cnnbench.sweeps.worker"], stdin=subprocess.PIPE, stdout=stdout, stderr=stderr,
            env=env, pass_fds=[write], process_group=0, text=True,
        )  # fmt: skip
        os.close(write)
        self.answers: IO[str] = os.fdopen(read)

    def send(self, task: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # it died: that is seen when its answer is waited for
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()

    def receive(self) -> dict[str, Any] | None:
        """Waits; None where the process ended without one."""
        line = self.answers.readline()
        return json.loads(line) if line else None

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def close(self) -> None:
        with suppress(BrokenPipeError, OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        self.answers.close()


def thread_environment(processes: int) -> dict[str, str]:
    """Its share of the cores for each of so many processes, unless the user has said otherwise."""
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, system.cores() // processes))}


def start_processes(command: str, cfg: Any, count: int) -> int:
    """Train with so many processes on this machine; the exit code. When one fails, all end, and its error is raised."""
    with tempfile.TemporaryDirectory(prefix="cnnbench-") as folder:
        files = [open(Path(folder) / f"{rank}.err", "w+") for rank in range(1, count)]  # noqa: PTH123, SIM115
        workers = []
        for rank, stderr in enumerate([None, *files]):
            env = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count,
                   STORE: Path(folder) / "store"}  # fmt: skip
            texts = {key: str(value) for key, value in env.items()} | thread_environment(count)
            workers.append(Worker(texts, subprocess.DEVNULL if rank else None, stderr))
        try:
            for worker in workers:
                worker.send({"command": command, "config": to_plain(cfg)})
            with forward_signals(workers):
                killed = _wait(workers)
            return _conclude(cfg, workers, killed, files)
        finally:
            for worker in workers:
                if worker.process.poll() is None:
                    worker.process.kill()
                worker.process.wait()
                worker.close()
            for file in files:
                file.close()


@contextmanager
def forward_signals(workers: list[Worker]) -> Iterator[list[int]]:
    """While entered, requests to stop go to the workers, each of which saves and leaves; the signals that came."""
    asked: list[int] = []

    def forward(number: int, frame: Any) -> None:
        asked.append(number)
        slurm.last_signal = number
        for worker in workers:
            worker.signal(number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(workers: list[Worker]) -> list[int]:
    """Until all have ended; those that had to be killed since another one had failed."""
    deadline = None
    while any(worker.process.poll() is None for worker in workers):
        failed = [w for w in workers if w.process.poll() not in (None, 0, 130, PREEMPTED)]
        if failed and deadline is None:
            deadline = time.monotonic() + GRACE
        if deadline is not None and time.monotonic() > deadline:
            late = [rank for rank, worker in enumerate(workers) if worker.process.poll() is None]
            for rank in late:
                workers[rank].process.kill()
                workers[rank].process.wait()
            return late
        time.sleep(0.02)
    return []


def _conclude(cfg: Any, workers: list[Worker], killed: list[int], files: Sequence[IO[str]]) -> int:
    died = [
        f"process {rank + 1} of {len(workers)} was killed by {signal.Signals(-worker.process.returncode).name}"
        for rank, worker in enumerate(workers)
        if worker.process.returncode < 0 and rank not in killed
    ]
    answer = None if 0 in killed else workers[0].receive()
    if answer is None:
        raise RunError("\n".join(died or _last_words(workers, killed, files)))
    cfg.run.dir = answer["run_dir"] or cfg.run.dir
    if answer["error"]:
        raise (UserError if answer["mistake"] else RunError)("\n".join([*died, answer["error"]]))
    return int(answer["code"])


def _last_words(workers: list[Worker], killed: list[int], files: Sequence[IO[str]]) -> list[str]:
    for rank, file in enumerate(files, start=1):
        if rank not in killed and workers[rank].process.returncode:
            file.seek(0)
            code = workers[rank].process.returncode
            return [f"process {rank + 1} of {len(workers)} ended with code {code}", file.read()[-4000:].strip()]
    return [f"process 1 of {len(workers)} ended with code {workers[0].process.returncode}"]
