"""Local launcher: several jobs of a sweep at a time, in worker processes that share out the GPUs.

Each worker imports torch once and runs many jobs.
"""

import queue
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from typing import Any

from cnnbench.config.parsing import to_plain
from cnnbench.runtime import processes
from cnnbench.runtime.processes import Worker
from cnnbench.sweeps.jobs import FAILED, SweepJob, find_record
from cnnbench.utils import system
from cnnbench.utils.console import say


def run_local(todo: list[tuple[SweepJob, Any]], at_once: int | None) -> bool:
    """Run the jobs, `at_once` at a time (default: one per GPU, or one per core). Returns whether it was interrupted.

    A worker sees only its own GPUs. With more workers than GPUs, several workers share one.
    """
    each = max((devices_per_job(config) for _, config in todo), default=1)
    found = processes.visible_gpus()
    most = at_once or max(1, (len(found) or system.cores()) // each)
    slots = min(most, len(todo))
    waiting: queue.SimpleQueue[tuple[SweepJob, Any]] = queue.SimpleQueue()
    for item in todo:
        waiting.put(item)
    workers: list[Worker] = []
    with processes.forward_signals(workers) as asked:
        threads = [
            threading.Thread(
                target=_run_worker, args=(waiting, workers, worker_environment(found, slot, each, slots), asked)
            )
            for slot in range(slots)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():  # a join without a timeout would block signals
                thread.join(0.2)
    return bool(asked)


def devices_per_job(config: Any) -> int:
    given = getattr(config, "devices", 1)
    return int(given) if str(given).isdigit() else 1


def worker_environment(found: list[str], slot: int, each: int, slots: int) -> dict[str, str]:
    """Environment variables of a worker: its GPUs, assigned round-robin, and its share of the cores."""
    mine = [found[(slot * each + number) % len(found)] for number in range(min(each, len(found)))]
    return {**({"CUDA_VISIBLE_DEVICES": ",".join(mine)} if mine else {}), **processes.thread_environment(slots)}


def _run_worker(
    waiting: "queue.SimpleQueue[tuple[SweepJob, Any]]", workers: list[Worker], env: dict[str, str], asked: list[int]
) -> None:
    """Run waiting jobs one after the other in a worker; start a new worker if one dies."""
    worker: Worker | None = None
    while not asked:
        try:
            job, config = waiting.get_nowait()
        except queue.Empty:
            break
        if worker is None:
            worker = Worker(env, subprocess.DEVNULL, subprocess.DEVNULL)  # each job writes to its own log
            workers.append(worker)
        say(f"job {job.number + 1}: {' '.join(job.overrides)}", sys.stderr)
        worker.send({"command": job.command, "config": to_plain(config), "job": asdict(job)})
        if worker.receive() is None:
            _record_crash(job, worker, asked)
            worker = None
        said = find_record(job) or job
        say(f"job {job.number + 1}: {said.outcome}", sys.stderr)
        if said.status == FAILED:
            say(f"  its output: {job.log}", sys.stderr)
    if worker:
        worker.close()
        worker.process.wait()


def _record_crash(job: SweepJob, worker: Worker, asked: list[int]) -> None:
    """Record how a worker process ended: it cannot do so itself."""
    code = worker.process.wait()
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    worker.close()
    job.end(130 if asked else 1, f"its process {how}", None)
