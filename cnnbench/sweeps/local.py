"""Several jobs of a sweep at a time on this machine, in processes that each import torch once; the GPUs shared out."""

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
    """Run the jobs, so many at once (by default one for each GPU, or for each core); whether somebody ended it.

    Each job's process sees its share of the GPUs alone: of more jobs than GPUs several share one.
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
            while thread.is_alive():  # a join without end would keep signals waiting
                thread.join(0.2)
    return bool(asked)


def devices_per_job(config: Any) -> int:
    given = getattr(config, "devices", 1)
    return int(given) if str(given).isdigit() else 1


def worker_environment(found: list[str], slot: int, each: int, slots: int) -> dict[str, str]:
    """What a process is told of the machine: its GPUs, in turn, and its share of the cores."""
    mine = [found[(slot * each + number) % len(found)] for number in range(min(each, len(found)))]
    return {**({"CUDA_VISIBLE_DEVICES": ",".join(mine)} if mine else {}), **processes.thread_environment(slots)}


def _run_worker(
    waiting: "queue.SimpleQueue[tuple[SweepJob, Any]]", workers: list[Worker], env: dict[str, str], asked: list[int]
) -> None:
    """One process after the other, if one should die, and in it one job after the other."""
    worker: Worker | None = None
    while not asked:
        try:
            job, config = waiting.get_nowait()
        except queue.Empty:
            break
        if worker is None:
            worker = Worker(env, subprocess.DEVNULL, subprocess.DEVNULL)  # each job has a console of its own
            workers.append(worker)
        say(f"job {job.number + 1}: {' '.join(job.overrides)}", sys.stderr)
        worker.send({"command": job.command, "config": to_plain(config), "job": asdict(job)})
        if worker.receive() is None:
            _record_crash(job, worker, asked)
            worker = None
        said = find_record(job) or job
        say(f"job {job.number + 1}: {said.outcome}", sys.stderr)
        if said.status == FAILED:
            say(f"  what it said: {job.log}", sys.stderr)
    if worker:
        worker.close()
        worker.process.wait()


def _record_crash(job: SweepJob, worker: Worker, asked: list[int]) -> None:
    """A process that ended without an answer cannot write down why."""
    code = worker.process.wait()
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    worker.close()
    job.end(130 if asked else 1, f"its process {how}", None)
