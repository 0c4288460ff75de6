"""Hundreds of things that people have, each met by the commands that may meet it.

The rule for all: exit code 0, with what was left out said; or 2, with one to three lines; never a traceback, never
silence, and never a hang (pytest's time-out). Each case meets some of its commands; FUZZ=1 tries them all, and FUZZ=10
ten times as many at random.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnbench.utils.exit_codes import MISTAKE
from tests.corpus import image_files, layouts, places, run_files, weight_files
from tests.corpus.case import Attempt, attempts
from tests.helpers.runs import Ran
from tests.helpers.trained import photo_run

FUZZ = int(os.environ.get("FUZZ", "0"))
CASES = [*layouts.cases(), *image_files.cases(), *weight_files.cases(), *run_files.cases(), *places.cases()]
ALL = attempts(CASES)
SOME = [tried for at, case in enumerate(CASES) for tried in attempts([case])[at % 4 % len(case.lines) :: 4]]
RANDOM = (
    layouts.random_case, image_files.random_case, weight_files.random_case,
    run_files.random_run, run_files.random_config
)  # fmt: skip
EACH = len(ALL) * FUZZ // len(RANDOM) or 4
DRAWN = attempts(make(number) for make in RANDOM for number in range(EACH))


def named(tried: list[Attempt]) -> list:
    return [pytest.param(attempt, id=attempt.name) for attempt in tried]


def test_there_are_enough() -> None:
    assert len(SOME) >= 400
    assert len({attempt.name for attempt in ALL}) == len(ALL)


@pytest.mark.parametrize("attempt", named([*(ALL if FUZZ else SOME), *DRAWN]))
def test_it_ends_well(cnnbench: Callable[..., Ran], no_pictures: None, tmp_path: Path, attempt: Attempt) -> None:
    run = photo_run()
    attempt.case.build(tmp_path)
    ran = cnnbench(*attempt.arguments(run))
    said = ran.out + ran.err
    assert ran.code in attempt.codes, said
    assert "Traceback" not in said
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", said), repr(said)
    assert re.search(attempt.says, said, re.IGNORECASE), said
    if ran.code == MISTAKE:
        assert 1 <= len(ran.err.strip().splitlines()) <= 3, said
    assert not (tmp_path / "owned").exists()
