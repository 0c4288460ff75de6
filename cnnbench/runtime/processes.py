"""Processes of a training: rank and world size of this one, and how to start several. Does not import torch.

torchrun, srun, submitit and `start_processes()` below (for `devices=N`) put rank and world size into the environment.
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
from cnnbench.utils.format import plural

STORE = "CNNBENCH_STORE"  # file for the rendezvous of processes on one machine, without a port
GRACE = 10  # seconds for the others to end by themselves, once one has failed
PORTS = 2**16 - 1  # the largest number of one
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class ProcessInfo:
    """Rank and world size of this process: among all, and among those on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    address: tuple[str, int] | None = None  # of the rendezvous; None where the environment has it


def process_info() -> ProcessInfo:
    """Rank and world size of this process, from the environment. UserError for what is no such number there."""
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        size = _number("WORLD_SIZE", least=1)
        rank = _number("RANK", most=size - 1)
        if size > 1 and "MASTER_PORT" in env:
            _number("MASTER_PORT", least=1, most=PORTS)
        return ProcessInfo(rank, size, _number("LOCAL_RANK", rank), _number("LOCAL_WORLD_SIZE", size, least=1))
    if "SLURM_PROCID" in env and _number("SLURM_STEP_NUM_TASKS", 1) > 1:
        return _under_srun(env)
    if (size := _number("SUBMITIT_LOCAL_NTASKS", 1)) > 1:
        port = _port(env.get("SUBMITIT_LOCAL_JOB_ID", ""))
        return ProcessInfo(_number("SUBMITIT_LOCAL_GLOBALID", most=size - 1), size, _number("SUBMITIT_LOCAL_LOCALID"),
                           size, ("127.0.0.1", port))  # fmt: skip
    return ProcessInfo()


def _number(name: str, default: int | None = None, least: int = 0, most: int | None = None) -> int:
    """Whole number in an environment variable, which a launcher of processes sets."""
    text = os.environ.get(name, "" if default is None else str(default))
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or int(text) < least or (most is not None and int(text) > most):
        bounds = f"from {least} to {most}" if most is not None else f"from {least} on"
        raise UserError(f"the environment variable {name} is '{text}', not a whole number {bounds}\n"
                        "torchrun, srun and submitit set it: start through one of them, or unset it")  # fmt: skip
    return int(text)


def _under_srun(env: Any) -> ProcessInfo:
    size, nodes = _number("SLURM_STEP_NUM_TASKS"), _number("SLURM_STEP_NUM_NODES", 1)
    here = re.match(r"\d+", env.get("SLURM_STEP_TASKS_PER_NODE", ""), re.ASCII)
    port = _port("-".join(env.get(f"SLURM_{key}", "") for key in ("JOB_ID", "STEP_ID", "RESTART_COUNT")))
    host = "127.0.0.1" if nodes == 1 else env.get("MASTER_ADDR") or _first_node(env)
    address = host, _number("MASTER_PORT", port, least=1, most=PORTS)
    local = _number("SLURM_LOCALID", 0)
    return ProcessInfo(_number("SLURM_PROCID", most=size - 1), size, local, int(here[0]) if here else size, address)


def _first_node(env: Any) -> str:
    """First node of `node[1-4],other7`, where its name resolves; else the address where srun was started."""
    names = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST", "")
    first = re.sub(r"\[([^\],-]+)[^\]]*\].*", r"\1", re.split(r",(?![^\[]*\])", names)[0])
    with suppress(OSError):
        socket.gethostbyname(first)
        return first
    if launched_at := env.get("SLURM_LAUNCH_NODE_IPADDR"):
        return str(launched_at)
    raise UserError(f"cannot resolve the host name {first}, where the processes meet: set MASTER_ADDR")


def _port(*parts: str) -> int:
    """Port derived from the job: the same for all its processes, almost always another for other jobs."""
    import zlib

    return 20000 + zlib.crc32("-".join(parts).encode()) % 20000


# Starting processes


def process_count(cfg: Any) -> int:
    """Number of processes to start for `devices=`; 1: none. UserError where the machine has too few devices."""
    if not hasattr(cfg, "devices"):
        return 1
    given, alone = cfg.devices, process_info().size == 1
    if given != "all" and not str(given).isdigit():
        raise UserError(f"devices={given}: give a number, or all")
    if given == "all" or int(given) > 1:
        if cfg.device not in ("auto", "cpu", "cuda"):
            raise UserError(f"devices={given} goes with device=auto, cpu or cuda, not with device={cfg.device}")
        if not alone:
            return _check_started(given)
        return _available(given, [] if cfg.device == "cpu" else visible_gpus())
    return 1


def _check_started(given: int | str) -> int:
    if given != "all" and int(given) != (count := process_info().size):
        started = f"{plural(count, 'process')} {'was' if count == 1 else 'were'}"
        raise UserError(f"devices={given}, but {started} started: leave devices= out")
    return 1


def _available(given: int | str, found: list[str]) -> int:
    if given == "all":
        return len(found) or 1  # without GPUs one process uses all cores
    most = len(found) or system.cores()
    if int(given) > most:
        what = (
            plural(len(found), "GPU")
            if found
            else f"no GPU, and {plural(system.cores(), 'core')} for processes on the CPU"
        )
        raise UserError(f"devices={given} is too many: this machine has {what}")
    return int(given)


def visible_gpus() -> list[str]:
    """Ids of the GPUs that this process may use, as in CUDA_VISIBLE_DEVICES."""
    if (shown := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in shown.split(",") if name.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(n) for n, line in enumerate(x for x in listed.stdout.splitlines() if x.startswith("GPU "))]


class Worker:
    """Child process that runs commands. Tasks go in and answers come back as lines of JSON.

    It ends when this process does, even when this process is killed.
    """

    def __init__(self, environment: dict[str, str], stdout: Any = None, stderr: Any = None) -> None:
        read, write = os.pipe()
        env = {**os.environ, **environment, "CNNBENCH_ANSWERS": str(write)}
        # In a process group of its own, so that only this process forwards a Ctrl-C to it.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cnnbench.sweeps.worker"], stdin=subprocess.PIPE, stdout=stdout, stderr=stderr,
            env=env, pass_fds=[write], process_group=0, text=True,
        )  # fmt: skip
        os.close(write)
        self.answers: IO[str] = os.fdopen(read)

    def send(self, task: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # it died: `receive()` will show it
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()

    def receive(self) -> dict[str, Any] | None:
        """Next answer, waited for; None where the process ended without one."""
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
    """Environment that gives each of so many processes its share of the cores, unless the user has set it."""
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, system.cores() // processes))}


def start_processes(command: str, cfg: Any, count: int) -> int:
    """Run a command in so many processes on this machine. Returns the exit code.

    When one process fails, all end, and its error is raised.
    """
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
    """Forward stop signals to the workers, which save and end. Yields the list of signals that came."""
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
    """Wait until all have ended. Returns the ranks that had to be killed after another one failed."""
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
