#!/usr/bin/env python
"""Do to a training all that may happen to it, resume it each time, and compare it bit by bit with one left in peace.

    python scripts/torture.py                 # the long form: minutes
    python scripts/torture.py --scale 0.05    # the short form of the test suite

kill      kill -9 at random moments, again and again until the run is done
write     kill -9 within the writing of a checkpoint: at a random byte, or before or after a flush, a rename, a link
signal    SIGTERM, SIGUSR1, Ctrl-C, Ctrl-C twice, at random moments
full      a disk that is full for a while: every write fails, or the file system is really that small
damage    bits flipped in, or the end cut off, a file of an interrupted run
delete    every file of an interrupted run deleted, one at a time
erase     files of a run deleted while it trains: one, all checkpoints, or all that there is
workers   processes that read images killed, or stopped for a while, while the training waits for them
shm       a shared memory (/dev/shm) that is too small for the images that are read
sweeps    two sweeps begun at once in one directory: one runs, the other says so
ports     a port that another program has, and one that no program may have
requeue   a job of Slurm, told to end by a signal, that is started again until it is done

A case is survived when the run ends with the same weights, moving average, optimizer, and metrics as the peaceful one;
refused when cnnbench instead says in one to three lines, with exit code 2, why it cannot go on; lost otherwise.
Each run is a process forked from this one, which has torch loaded already. Exit code 1 if anything was lost.
"""

import argparse
import ctypes
import errno
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from cnnbench import models
from cnnbench.cli import main as cli
from cnnbench.commands import train  # noqa: F401  # loaded once, for all that are forked
from cnnbench.config import compose
from cnnbench.runs import tracker
from cnnbench.tasks.classification.task import Classification
from cnnbench.training import result
from cnnbench.utils.files import HashingWriter
from cnnbench.weights import checkpoint

COMMAND = ["train", "epochs=4", "data.image_size=8", "data.fraction=0.2", "precision=fp32", "device=cpu",
           "batch_size=50", "ema=0.9", "checkpoint.every=2", "checkpoint.keep=3"]  # fmt: skip
STEPS = 24
CASES = {"kill": 60, "write": 60, "signal": 40, "full": 20, "damage": 60, "delete": 1, "erase": 30, "workers": 8,
         "shm": 2, "sweeps": 4, "ports": 2, "requeue": 6}  # fmt: skip
STOPS = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGINT: 130}
TIMEOUT = 600.0  # seconds that no run takes: one that does hangs
Fault = Callable[[], None]
IMAGES = ["data=folder", "data.workers=2", "data.fraction=1", "model=resnet8", "checkpoint.every=null"]


class Lost(Exception):  # noqa: N818
    """What must not happen."""


def start(run: Path, fault: Fault = lambda: None, pictures: bool = False, more: Sequence[str] = ()) -> int:
    """The training, in a process of its own whose output goes into a file near the run; its process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        output = os.open(output_file(run), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        os.chdir(run.parent)
        if not pictures:  # they take longer than all the rest
            result.draw_curves = result.draw_validation = Classification.draw_batch = lambda *args: None
        fault()
        os._exit(cli.main([*COMMAND, *(more or [f"run.dir={run.name}"])]))
    finally:
        os._exit(99)


def wait(pid: int) -> int:
    """The exit code, negative for a signal."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise Lost(f"hung for {TIMEOUT:.0f} s")


def output_file(run: Path) -> Path:
    """Not on the run's own disk, which may be full."""
    disk = run.parent if run.parent.name.startswith("disk-") else run
    return disk.with_suffix(".out")


def output(run: Path) -> str:
    return output_file(run).read_text()


def finish(run: Path, whole: Path) -> str:
    """Run the same command until it is done, without any fault. `survived` or `refused`; raises Lost."""
    code = wait(start(run))
    said = output(run)
    if code == 2 and "Traceback" not in said and 1 <= len(said[said.rindex("cnnbench: ") :].splitlines()) <= 3:
        return "refused"
    if code != 0 or "Traceback" in said:
        raise Lost(f"exit code {code}: {said[-600:]}")
    if different := differences(run, whole):
        raise Lost(f"not the same as in peace: {different}")
    return "survived"


def differences(run: Path, whole: Path) -> list[str]:
    """Names of what is not bit for bit the same."""
    ours, theirs = (checkpoint.load(path / "checkpoints/last.pt") for path in (run, whole))
    wrong = [key for key in ("model", "ema", "optimizer", "step") if not same(ours[key], theirs[key])]
    rows, wanted = ([timeless(json.loads(line)) for line in (path / "metrics.jsonl").open()] for path in (run, whole))
    wrong += ["metrics.jsonl"] * (rows != wanted)
    results = [timeless(json.loads((path / "result.json").read_text())) for path in (run, whole)]
    wrong += ["result.json"] * (results[0] != results[1])
    status = json.loads((run / "status.json").read_text())["status"]
    left = [path.name for path in run.rglob("*.tmp")]
    return wrong + [f"status {status}"] * (status != "done") + left


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return bool(ours == theirs)


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {
        k: v for k, v in row.items() if k not in ("seconds", "images_per_second", "wall_seconds", "run_dir", "commit")
    }


def erasing(run: Path, what: str, rng: random.Random) -> Fault:
    """Fault that deletes files after four of the steps: one file, all checkpoints, or all. Never after the last step:
    nothing is saved again then."""

    def fault() -> None:
        after_step, at = tracker.Tracker.after_step, rng.sample(range(1, STEPS), 4)

        def erase(self: tracker.Tracker, step: int, *more: Any) -> None:
            after_step(self, step, *more)
            if step in at:
                files = [path for path in run.rglob("*") if path.is_file() and not path.name.startswith(".")]
                chosen = {"one": rng.sample(files, min(1, len(files))), "all": files,
                          "checkpoints": [path for path in files if path.suffix == ".pt"]}[what]  # fmt: skip
                for path in chosen:
                    path.unlink()

        tracker.Tracker.after_step = erase  # type: ignore[method-assign]

    return fault


class Torture:
    def __init__(self, folder: Path, rng: random.Random, tell: bool) -> None:
        self.folder, self.rng, self.tell = folder, rng, tell
        self.counts: dict[str, dict[str, int]] = {}
        self.whole = folder / "whole"
        begin = time.monotonic()
        if wait(start(self.whole)) != 0:
            sys.exit(output(self.whole))
        self.seconds = time.monotonic() - begin
        self.cut = folder / "cut"
        wait(start(self.cut, lambda: stop_at_step(STEPS - 7)))

    def count(self, kind: str, outcome: str, tried: int = 1) -> None:
        counts = self.counts.setdefault(kind, dict.fromkeys(("tried", "survived", "refused", "lost"), 0))
        counts["tried"] += tried
        counts[outcome] += tried

    def case(self, kind: str, name: str, run: Path, tried: int = 1) -> None:
        """Finish the run of one case, and count how that ended."""
        try:
            outcome = finish(run, self.whole)
            self.count(kind, outcome, tried)
            if self.tell:
                print(f"{outcome} {kind} {name}", flush=True)
        except Exception as error:
            self.count(kind, "lost", tried)
            print(f"LOST {kind} {name}, kept in {run}: {error}", flush=True)
            return
        shutil.rmtree(run, ignore_errors=True)

    def fresh(self, kind: str, number: int, copy: bool = False) -> Path:
        run = self.folder / f"{kind}-{number}"
        if copy:
            shutil.copytree(self.cut, run)
        return run

    def kill(self, cases: int) -> None:
        number = killed = 0
        while killed < cases:
            number, kills, run = number + 1, 0, self.fresh("kill", number)
            while kills < cases - killed:
                pid = start(run)
                time.sleep(self.rng.uniform(0, self.seconds))
                ended, _ = os.waitpid(pid, os.WNOHANG)
                if ended:
                    break
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                kills += 1
            killed += kills
            self.case("kill", f"run {number} after {kills} kills", run, kills)

    def write(self, cases: int) -> None:
        for number in range(cases):
            run, save = self.fresh("write", number), self.rng.randint(1, 12)
            size = (self.whole / "checkpoints/last.pt").stat().st_size
            calls = {"byte": 0, "fsync": 50, "replace": 28, "hardlink_to": 14, "unlink": 40}  # about so many in a run
            moment = self.rng.choice(list(calls))
            at = (
                (save - 1) * size + self.rng.randrange(size) if moment == "byte" else self.rng.randint(1, calls[moment])
            )
            after = self.rng.random() < 0.5
            code = wait(start(run, lambda moment=moment, at=at, after=after: die_while_writing(moment, at, after)))
            self.case("write", f"{moment} {at} {'after' if after else 'before'} (exit {code})", run)

    def signal(self, cases: int) -> None:
        for number in range(cases):
            run = self.fresh("signal", number)
            kind, twice = self.rng.choice(list(STOPS)), self.rng.random() < 0.3
            pid = start(run)
            time.sleep(self.rng.uniform(0, self.seconds))
            for _ in range(2 if twice else 1):
                with suppress(ProcessLookupError):
                    os.kill(pid, kind)
                time.sleep(0.002)
            code = wait(pid)
            if code not in (0, STOPS[kind], -kind):  # the last: before the first step there is nothing to save
                print(f"LOST signal {kind.name}: exit code {code}: {output(run)[-300:]}")
                self.count("signal", "lost")
            else:
                self.case("signal", f"{kind.name} (exit {code})", run)

    def full(self, cases: int) -> None:
        """Every second case on a file system in memory that is really too small, where this user may mount one."""
        for number in range(cases):
            if number % 2 == 0 and self.small_disk(number):
                continue
            run, begin, length = self.fresh("full", number), self.rng.randint(2, 30), self.rng.randint(1, 60)
            code = wait(start(run, lambda begin=begin, length=length: fill_disk(begin, length)))
            said = output(run)
            if code not in (0, 1, 2) or "Traceback" in said or (code == 0 and "warning: cannot" not in said):
                print(f"LOST full {begin}+{length}: exit code {code}: {said[-600:]}")
                self.count("full", "lost")
            else:
                self.case("full", f"writes {begin} to {begin + length} (exit {code})", run)

    def small_disk(self, number: int) -> bool:
        disk = self.folder / f"disk-{number}"
        disk.mkdir()
        size = self.rng.randint(1200, 4000)  # kB; a checkpoint takes 900
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], capture_output=True
        ).returncode:
            return False
        try:
            code = wait(start(disk / "run"))
            said = output(disk / "run")
            if code not in (0, 1) or "Traceback" in said or "cannot" not in said + "cannot" * (code == 0):
                print(f"LOST full {size} kB: exit code {code}: {said[-600:]}")
                self.count("full", "lost")
            else:
                subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
                self.case("full", f"{size} kB (exit {code})", disk / "run")
        finally:
            subprocess.run(["umount", disk], check=True)
        return True

    def damage(self, cases: int) -> None:
        files = sorted(path.relative_to(self.cut) for path in self.cut.rglob("*") if path.is_file())
        checkpoints = [file for file in files if file.suffix == ".pt"]
        for number in range(cases):
            run = self.fresh("damage", number, copy=True)
            file = self.rng.choice([Path("checkpoints/last.pt"), *checkpoints, *files])
            content = bytearray((run / file).read_bytes())
            how = self.rng.choice(["flip", "cut", "empty"])
            if how == "flip" and content:
                content[self.rng.randrange(len(content))] ^= 1 << self.rng.randrange(8)
            elif content:
                del content[self.rng.randrange(len(content)) if how == "cut" else 0 :]
            (run / file).write_bytes(content)
            self.case("damage", f"{how} {file}", run)

    def delete(self, cases: int) -> None:
        files = sorted(path.relative_to(self.cut) for path in self.cut.rglob("*") if path.is_file())
        for number, file in enumerate(files if cases else []):
            run = self.fresh("delete", number, copy=True)
            (run / file).unlink()
            self.case("delete", str(file), run)

    def erase(self, cases: int) -> None:
        """The training is not begun again: it must end by itself as in peace."""
        for number in range(cases):
            run, what = self.fresh("erase", number), self.rng.choice(["one", "checkpoints", "all"])
            pid = start(run, erasing(run, what, random.Random(self.rng.random())))
            if (code := wait(pid)) != 0:
                self.lose("erase", f"{what}: exit code {code}: {output(run)[-600:]}")
            else:
                self.case("erase", what, run)

    def lose(self, kind: str, text: str) -> None:
        self.count(kind, "lost")
        print(f"LOST {kind} {text}", flush=True)

    def ends_in_words(self, kind: str, name: str, run: Path, code: int, codes: Sequence[int], words: str = "") -> bool:
        """Whether the run ended with one of these exit codes and without a traceback; else it is lost."""
        said = output(run)
        if code in codes and "Traceback" not in said and (code == 0 or words in said):
            return True
        self.lose(kind, f"{name}: exit code {code}: {said[-600:]}")
        return False

    @cached_property
    def images(self) -> Path:
        """A folder of 120 images in two classes, and a peaceful training on it."""
        from PIL import Image

        for number in range(120):
            path = self.folder / "images" / ("train" if number < 90 else "val") / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((40, 40), 20 + 60 * (number % 2)).convert("RGB").save(path)
        return self.folder / "images"

    def on_images(self, run: Path, fault: Fault = lambda: None) -> int:
        return start(run, fault, more=[*IMAGES, f"data.root={self.images}", f"run.dir={run.name}"])

    def workers(self, cases: int) -> None:
        """A killed worker is said in a sentence; a stopped one is waited for. Both runs go on to the same end."""
        peace = self.folder / "images-whole"
        begin = time.monotonic()
        if wait(self.on_images(peace)) != 0:
            self.lose("workers", f"in peace: {output(peace)[-600:]}")
            return
        seconds = time.monotonic() - begin
        for number in range(cases):
            run, kind = self.fresh("workers", number), self.rng.choice([signal.SIGKILL, signal.SIGSTOP])
            pid = self.on_images(run)
            time.sleep(self.rng.uniform(0, seconds))
            for victim in readers(pid)[: self.rng.randint(1, 3)]:
                with suppress(ProcessLookupError):
                    os.kill(victim, kind)
                    if kind == signal.SIGSTOP:
                        time.sleep(0.5)
                        os.kill(victim, signal.SIGCONT)
            name = f"{kind.name} {number}"
            if self.ends_in_words(
                "workers", name, run, wait(pid), (0, 2) if kind == signal.SIGKILL else (0,), "killed"
            ):
                again = wait(self.on_images(run))
                if again or (different := differences(run, peace)):
                    self.lose("workers", f"{name}: {again or different}")
                else:
                    self.count("workers", "survived")

    def shm(self, cases: int) -> None:
        """In a mount namespace of its own: the machine's /dev/shm is left alone."""
        for number in range(cases):
            run = self.fresh("shm", number)
            code = wait(self.on_images(run, small_shared_memory))
            if code == 77:
                print("shm      left out: only root may mount")
                return
            if self.ends_in_words("shm", str(number), run, code, (0, 2), "shared memory"):
                self.count("shm", "refused" if code else "survived")

    def sweeps(self, cases: int) -> None:
        for number in range(cases):
            folder = self.folder / f"sweeps-{number}"
            runs = [self.folder / f"sweep-{number}-{which}" for which in (1, 2)]
            sweep = ["-m", "seed=0,1", "epochs=1", f"sweep.dir={folder}"]
            pids = [start(run, lambda: None, more=sweep) for run in runs]
            codes = [wait(pid) for pid in pids]
            said = [output(run) for run in runs]
            others = [text for code, text in zip(codes, said, strict=True) if code == 2]
            good = 0 in codes and all("another process runs a sweep" in text for text in others)
            if not good or set(codes) - {0, 2} or any("Traceback" in text for text in said):
                self.lose("sweeps", f"exit codes {codes}: {said[0][-300:]} {said[1][-300:]}")
            else:
                self.count("sweeps", "survived")

    def ports(self, cases: int) -> None:
        for number in range(cases):
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", 0))
                taken.listen()
                port = str(taken.getsockname()[1]) if number % 2 == 0 else "99999"
                place = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                run = self.fresh("ports", number)
                code = wait(start(run, lambda place=place: os.environ.update(place)))
            if self.ends_in_words("ports", port, run, code, (2,), "MASTER_PORT"):
                self.case("ports", port, run)

    def requeue(self, cases: int) -> None:
        """SIGUSR1 is Slurm's warning before the time limit: the job saves, and Slurm starts it again."""
        for number in range(cases):
            run, starts, code = self.fresh("requeue", number), 0, 75
            while code in (75, -signal.SIGUSR1) and starts < 20:
                starts += 1
                pid = start(run, as_job_of_slurm)
                time.sleep(self.rng.uniform(self.seconds / 4, self.seconds) * (1 + starts / 4))  # it may be slower now
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGUSR1)
                code = wait(pid)
            if self.ends_in_words("requeue", f"{starts} starts", run, code, (0,)):
                self.case("requeue", f"{starts} starts", run)


# Faults, installed in the process that trains.


def readers(pid: int) -> list[int]:
    """Processes that read images for a training: the children of its fork server."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    return [reader for server in children.get(pid, []) for reader in children.get(server, [])]


def small_shared_memory() -> None:
    """A /dev/shm of 64 kB that this process and its children alone see. Exit code 77 where that may not be."""
    libc = ctypes.CDLL(None, use_errno=True)
    private = 1 << 14 | 1 << 18  # MS_REC, MS_PRIVATE
    if (
        libc.unshare(0x00020000)  # CLONE_NEWNS
        or libc.mount(b"none", b"/", None, private, None)
        or libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=64k")
    ):
        os._exit(77)


def as_job_of_slurm() -> None:
    os.environ.update({"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": "1"})


def stop_at_step(step: int) -> None:
    after_step = tracker.Tracker.after_step

    def stop(self: tracker.Tracker, done: int, *args: Any) -> None:
        after_step(self, done, *args)
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    tracker.Tracker.after_step = stop


def die_while_writing(moment: str, at: int, after: bool) -> None:
    """kill -9 when the given byte is written into a checkpoint, or at the given flush, rename, link or removal."""
    passed = 0

    def fatal(function: Callable[..., Any], cost: Callable[[Any], int]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal passed
            passed += cost(args)
            if passed >= at and moment == "byte":  # a part of what is to be written arrives
                args[0].file.write(args[1][: max(0, len(args[1]) - passed + at)])
                args[0].file.flush()
            if passed >= at and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*args, **kwargs)
            if passed >= at:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    if moment == "byte":
        HashingWriter.write = fatal(HashingWriter.write, lambda args: len(args[1]))
    elif moment == "fsync":
        os.fsync = fatal(os.fsync, lambda args: 1)
    else:
        setattr(Path, moment, fatal(getattr(Path, moment), lambda args: 1))


def fill_disk(begin: int, length: int) -> None:
    """From one flush of a file to another, none succeeds: what a full disk does to a file that is written."""
    fsync, seen = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal seen
        seen += 1
        if begin <= seen < begin + length:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    os.fsync = full


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of cases")
    parser.add_argument("--only", choices=CASES, action="append", help="this kind of case alone; may be repeated")
    parser.add_argument("--seed", type=int, default=None, help="of the random moments")
    parser.add_argument("--tell", action="store_true", help="every case, with its exit code")
    args = parser.parse_args()
    seed = random.randrange(10**6) if args.seed is None else args.seed
    torch.set_num_threads(1)
    models.check_image_size(models.build("resnet8", num_classes=10, in_channels=1), 8)  # torch loads more of itself
    compose.compose("train", COMMAND[1:])  # and Hydra, which takes as long as all the steps of a run
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    torture = Torture(folder, random.Random(seed), args.tell)
    print(f"seed {seed}; in peace a run takes {torture.seconds:.1f} s; in {folder}", flush=True)
    for kind in args.only or CASES:
        begin = time.monotonic()
        try:
            getattr(torture, kind)(max(1, round(CASES[kind] * args.scale)))
        except Lost as error:  # a run that hangs, in the midst of a case
            torture.lose(kind, str(error))
        counts = ", ".join(f"{count} {name}" for name, count in torture.counts.get(kind, {}).items())
        print(f"{kind:8} {counts}  ({time.monotonic() - begin:.0f} s)", flush=True)
    total = {
        name: sum(counts[name] for counts in torture.counts.values())
        for name in ("tried", "survived", "refused", "lost")
    }
    print("in all   " + ", ".join(f"{count} {name}" for name, count in total.items()))
    if not total["lost"]:
        shutil.rmtree(folder)
    return 1 if total["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
