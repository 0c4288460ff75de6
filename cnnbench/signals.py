"""Requests to stop: noticed between two steps, so that what was done is saved first."""

import signal
from types import FrameType, TracebackType

from cnnbench.cli import INTERRUPTED
from cnnbench.runs import PREEMPTED

ASKED_BY = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: PREEMPTED, signal.SIGUSR1: PREEMPTED}


class StopRequests:
    """While entered, the first SIGINT, SIGTERM or SIGUSR1 only sets `code`; a second Ctrl-C interrupts at once."""

    code: int | None = None

    def __enter__(self) -> "StopRequests":
        self.before = {number: signal.signal(number, self._note) for number in ASKED_BY}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.code is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.code = ASKED_BY[signal.Signals(number)]
