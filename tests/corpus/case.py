"""Cases of the corpus: what lies in a folder, and the command lines that meet it there."""

import random
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cnnbench.utils.exit_codes import DONE, FAILED, MISTAKE

Build = Callable[[Path], object]  # writes the case into an empty folder
Random = random.Random


@dataclass(frozen=True)
class Case:
    """A thing that a user may have, and command lines. `says` must be found in what each of them says."""

    name: str
    build: Build
    lines: tuple[str, ...]  # {run}: the directory of a trained net; relative paths: the folder of the case
    says: str = ""  # regular expression, in any case of letters; empty where there is nothing to say
    code: int | None = None  # the exit code; None: 0 or 2
    only: dict[str, str] = field(default_factory=dict)  # command -> another `says`


@dataclass(frozen=True)
class Attempt:
    """One command line in a case."""

    case: Case
    line: str

    @property
    def name(self) -> str:
        return f"{self.case.name}-{self.line.split()[0]}-{self.case.lines.index(self.line)}"

    @property
    def codes(self) -> set[int]:
        """Exit codes that are right. predict and doctor end with 1 where they name what they could not do."""
        codes = {DONE, MISTAKE} if self.case.code is None else {self.case.code}
        names_it = self.line.split()[0] in ("predict", "doctor") and MISTAKE in codes
        return codes | {FAILED} if names_it else codes

    @property
    def says(self) -> str:
        return self.case.only.get(self.line.split()[0], self.case.says)

    def arguments(self, run: Path) -> list[str]:
        return [text.replace("{run}", str(run)) for text in shlex.split(self.line)]


def attempts(cases: Iterable[Case]) -> list[Attempt]:
    return [Attempt(case, line) for case in cases for line in case.lines]
