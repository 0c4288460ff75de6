"""Requests to stop: noticed between two batches, so that what was done is saved first."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import TypeVar

from cnnbench.runtime import slurm
from cnnbench.runtime.distributed import ALONE, ProcessGroup
from cnnbench.utils.exit_codes import INTERRUPTED, PREEMPTED

ASKED_BY = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: PREEMPTED, signal.SIGUSR1: PREEMPTED,
            signal.SIGUSR2: PREEMPTED}  # fmt: skip
Item = TypeVar("Item")


class Stopped(Exception):  # noqa: N818
    """Raised in a pass over batches when somebody asks to stop."""


class StopRequests:
    """Stop requests. While entered, SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 only set `code`; SIGHUP (the terminal is
    gone) changes nothing. Several processes that train together stop when `agreed` says so, all at the same step.

    A second Ctrl-C ends the process at once: the checkpoint on the disk is whole at any moment. A thread sees to that,
    since Python's own handlers wait while torch is at work. It calls `on_second` before.
    """

    code: int | None = None

    def __init__(self, on_second: Callable[[], None] = lambda: None, group: ProcessGroup = ALONE) -> None:
        self.on_second, self.group = on_second, group
        self._agreed: int | None = None

    @property
    def agreed(self) -> int | None:
        """Code that all processes agree on."""
        return self.code if self.group.alone else self._agreed

    def stop_flags(self) -> tuple[bool, bool]:
        """Whether this process was interrupted, and whether preempted: to be all-reduced."""
        return self.code == INTERRUPTED, self.code == PREEMPTED

    def set_stop_flags(self, interrupted: float, preempted: float) -> None:
        """Take over how many processes, of all, were interrupted and how many preempted."""
        self._agreed = PREEMPTED if preempted else INTERRUPTED if interrupted else None

    def __enter__(self) -> "StopRequests":
        self.before = {number: signal.signal(number, self._note) for number in ASKED_BY}
        self.before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.write_end, False)
        self.wakeup_before = signal.set_wakeup_fd(self.write_end, warn_on_full_buffer=False)
        self.watcher = threading.Thread(target=self._watch, args=(self.read_end,), daemon=True)
        self.watcher.start()
        return self

    def __exit__(self, *error: object) -> None:
        signal.set_wakeup_fd(self.wakeup_before)
        os.close(self.write_end)  # ends the thread, which closes the other end
        self.watcher.join()  # else it may be the last to hold the net, and free it while the process ends: an abort
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def until_asked(self, items: Iterable[Item]) -> Iterator[Item]:
        """Items until somebody asks to stop; then Stopped is raised, in all processes."""
        asked = False
        for item in items:
            if asked := self.code is not None:
                break
            yield item
        if not self.group.alone:
            self.set_stop_flags(*self.group.all_reduce_numbers(*self.stop_flags()))
            asked = self.agreed is not None
        if asked:
            raise Stopped

    def _note(self, number: int, frame: FrameType | None) -> None:
        slurm.last_signal = number
        self.code = self.code or ASKED_BY[signal.Signals(number)]

    def _watch(self, read_end: int) -> None:
        """The numbers of the signals as they come in, until the pipe is closed."""
        interrupts = 0
        while arrived := os.read(read_end, 1):
            interrupts += arrived[0] == signal.SIGINT
            if interrupts == 2:
                try:
                    self.on_second()
                finally:
                    os._exit(INTERRUPTED)
        os.close(read_end)
