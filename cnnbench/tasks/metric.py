"""Metric: a number by which nets are compared: its name in files, its words for people, its unit and direction."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from cnnbench.utils.errors import unknown


@dataclass(frozen=True)
class Metric:
    """A metric of a task. A run names its metrics in result.json, so that whoever reads it needs no task."""

    name: str  # the key in result.json, and in metrics.jsonl as `name/train` and `name/val`
    label: str  # for people: `top-1 error`
    unit: str = ""
    lower_is_better: bool = True
    decimals: int = 2
    short: str = ""  # the name in the keys of differences from published numbers; empty: `name`
    beside: str = ""  # of a plain method, the same for every net: name of the metric in whose curve it is a line

    def amount(self, value: float) -> str:
        """Value with its unit: `4.20 %`."""
        return f"{value:.{self.decimals}f} {self.unit}".rstrip()

    def text(self, value: float) -> str:
        """Label and value: `top-1 error 4.20 %`."""
        return f"{self.label} {self.amount(value)}"

    def brief(self, value: float) -> str:
        """Label and value for a line that is full: `top-1 err 4.20 %`."""
        return self.text(value).replace(" error ", " err ", 1)

    def better(self, value: float, other: float) -> bool:
        """Whether a value is strictly better than another one. NaN is better than nothing."""
        return value < other if self.lower_is_better else value > other

    @property
    def worst(self) -> float:
        """Value that any finite one is better than."""
        return math.inf if self.lower_is_better else -math.inf

    def cost(self, value: float) -> float:
        """Value to minimise: negated where higher is better. The cost of a cost is the value again."""
        return value if self.lower_is_better else 0.0 - value  # 0 stays 0, without a minus

    @property
    def axis(self) -> str:
        """Label of an axis: `top-1 error, %`."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    @property
    def column(self) -> str:
        """Label for a narrow column: `top-1`."""
        return self.label.removesuffix(" error")

    @property
    def difference_key(self) -> str:
        """Key of the difference from a published number: `top1_difference`."""
        return f"{self.short or self.name}_difference"


LOSS = Metric("loss", "loss", decimals=4)


def as_data(metrics: Iterable[Metric]) -> list[dict[str, Any]]:
    """Metrics as JSON holds them."""
    return [asdict(metric) for metric in metrics]


def from_data(content: Any) -> tuple[Metric, ...]:
    """Metrics of a result.json or status.json; empty where it names none that can be read."""
    types = {item.name: type(getattr(LOSS, item.name)) for item in fields(Metric)}
    try:
        found = tuple(Metric(**{key: value for key, value in one.items() if key in types}) for one in content)
    except (TypeError, AttributeError):
        return ()
    whole = all(type(value) is types[key] for metric in found for key, value in vars(metric).items())
    return found if whole else ()


def named(name: str | None, metrics: Sequence[Metric]) -> Metric:
    """Metric of this name among a task's own and its loss; the primary one for None. UserError with those there are."""
    choices = {metric.name: metric for metric in (*metrics, LOSS)}
    if name is None:
        return metrics[0]
    if name not in choices:
        raise unknown("metric", name, choices)
    return choices[name]


def headline(metrics: Iterable[Metric], values: Mapping[str, float]) -> str:
    """Metrics, those that were measured, in one line: `top-1 error 4.20 %, top-5 error 0.10 %`."""
    return ", ".join(metric.text(values[metric.name]) for metric in metrics if metric.name in values)
