"""Result of a search for settings, kept in `SWEEP/search.json`: read and printed without Optuna."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cnnbench.tasks import DEFAULT_METRICS
from cnnbench.tasks.metric import Metric, from_data, named
from cnnbench.utils.files import read_json, write_json
from cnnbench.utils.format import plural

FILE = "search.json"
HOW = (
    "Importance: how much of the variance of the {metric} each setting explains by itself (fANOVA over {count}; a "
    "pruned job counts with its last value). With few jobs it is only a hint."
)


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """Best job of a search, and the importance of each setting."""

    metric: str  # its name
    counts: dict[str, int]  # jobs: done, pruned, failed
    job: int  # its number, from 1
    value: float
    images: str  # the images that decided: `179 held-out images`
    command: str  # command line with the best settings
    importance: dict[str, float]  # shares by key, the largest first; empty if too little is known
    metrics: list[dict[str, Any]] = field(default_factory=list)  # of the task, as in result.json; empty: classification

    def write(self, sweep: Path) -> None:
        write_json(sweep / FILE, asdict(self))

    @property
    def objective(self) -> Metric:
        return named(self.metric, from_data(self.metrics) or DEFAULT_METRICS)

    @property
    def best(self) -> str:
        """`best of 12 jobs (4 pruned): job 8, mean IoU 62.50 % on 179 held-out images`."""
        others = [f"{count} {status}" for status, count in self.counts.items() if count and status != "done"]
        total = plural(sum(self.counts.values()), "job") + (f" ({', '.join(others)})" if others else "")
        return f"best of {total}: job {self.job}, {self.objective.text(self.value)} on {self.images}"

    @property
    def how(self) -> str:
        count = plural(self.counts["done"] + self.counts["pruned"], "job")
        return HOW.format(metric=self.objective.label, count=count)

    def rows(self) -> list[dict[str, Any]]:
        return [{"setting": key, "importance, %": round(100 * share)} for key, share in self.importance.items()]

    def lines(self) -> list[str]:
        """Lines that the search command prints at its end."""
        shares = ", ".join(f"{key} {100 * share:.0f} %" for key, share in self.importance.items())
        return [self.best, f"  {self.command}", *([f"importance: {shares}"] if shares else [])]


def read_study_result(sweep: Path) -> StudyResult | None:
    """Result in the file; None if there is none yet, or if the file is damaged."""
    try:
        found = StudyResult(**read_json(sweep / FILE))
        assert found.rows() is not None and found.lines() and found.how
    except (TypeError, ValueError, KeyError, AttributeError):
        return None
    return found
