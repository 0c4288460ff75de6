"""Work in a number that no machine and no other process changes."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import cnnbench

OURS = str(Path(cnnbench.__file__).parent)


def count_steps(work: Callable[[], object]) -> int:
    """Lines run in this package, each round of a loop anew, and calls of functions in Python, whoever's."""
    steps = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps
        steps += event in ("call", "line")
        return count if frame.f_code.co_filename.startswith(OURS) else None

    before = sys.gettrace()
    sys.settrace(count)
    try:
        work()
    finally:
        sys.settrace(before)
    return steps
