"""Time measured by the device's own clock."""

import time
from itertools import pairwise
from typing import Any

import torch

from cnnbench.runtime.device import Runtime


class Stopwatch:
    """Marks in time by the device's own clock. On a GPU, to set a mark does not wait for the device."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.marks = runtime, list[Any]()

    def mark(self) -> None:
        if self.runtime.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.runtime.synchronize()
            self.marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Seconds between each mark and the next. Waits for the device."""
        self.runtime.synchronize()
        if self.runtime.device.type == "cuda":
            return [begin.elapsed_time(end) / 1000 for begin, end in pairwise(self.marks)]
        return [end - begin for begin, end in pairwise(self.marks)]
