"""Groups of runs that differ only in their seed: mean and standard deviation, and the keys that distinguish groups."""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from cnnbench.config.arguments import command_line
from cnnbench.reporting import published
from cnnbench.reporting.gather import Run
from cnnbench.sweeps.jobs import DONE, ORDER
from cnnbench.tasks.classification.published import PublishedMetrics
from cnnbench.tasks.metric import Metric
from cnnbench.utils.errors import UserError, unknown

ALWAYS = ("model.name", "data.name")


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ only in their seed. keys: this group's values of the keys that distinguish the groups."""

    keys: dict[str, Any]
    runs: list[Run]
    metrics: tuple[Metric, ...]  # of all runs of the report
    primaries: tuple[Metric, ...]  # of their tasks

    @property
    def primary(self) -> Metric:
        """Primary metric of its task, as the report describes it: a file may describe the same name otherwise."""
        return next(metric for metric in self.metrics if metric.name == self.first.primary.name)

    @property
    def first(self) -> Run:
        return self.runs[0]

    @cached_property
    def done(self) -> list[Run]:
        return [run for run in self.runs if run.result]

    @cached_property
    def published(self) -> PublishedMetrics | None:
        return published.find_published(self.first)

    @property
    def seeds(self) -> list[int]:
        """Seeds of the finished runs."""
        return _seeds(self.done)

    def values(self, key: str) -> list[float]:
        found = [run.result.get(key) for run in self.done]
        return [value for value in found if isinstance(value, int | float) and not isinstance(value, bool)]

    def mean(self, key: str) -> float | None:
        values = self.values(key)
        return statistics.fmean(values) if values else None

    def std(self, key: str) -> float | None:
        """Sample standard deviation; None for a single run."""
        values = self.values(key)
        return statistics.stdev(values) if len(values) > 1 else None

    def rounded_mean(self, key: str) -> int | None:
        value = self.mean(key)
        return round(value) if value is not None else None

    def common_value(self, key: str) -> Any:
        """Value that all finished runs share; if they differ, all values joined by `/`."""
        found = list(dict.fromkeys(str(value) for run in self.done if (value := run.result.get(key)) is not None))
        same = next((run.result[key] for run in self.done if run.result.get(key) is not None), None)
        return same if len(found) < 2 else " / ".join(found)

    @property
    def state(self) -> str:
        """`3/3`, or the counts of unfinished runs and their progress."""
        counts = Counter(run.status for run in self.runs)
        parts = [f"{counts[status]} {status}" for status in ORDER[1:] if counts[status]]
        text = ", ".join([f"{counts[DONE]}/{len(self.runs)}", *parts])
        going = [run for run in self.runs if not run.result]
        return f"{text}: {going[0].so_far}" if len(going) == 1 and going[0].last else text

    @property
    def command_line(self) -> str:
        """Command line that reproduces these runs."""
        run, seeds = self.first, _seeds(self.runs)
        if run.command == "evaluate":
            return command_line("evaluate", [f"weights={run.result.get('weights')}"])
        last = {override.partition("=")[0]: override for override in run.overrides}
        kept = [override for key, override in last.items()
                if key not in ("seed", "format") and not key.startswith(("run.", "sweep.", "hydra"))]  # fmt: skip
        kept += [f"seed={','.join(map(str, seeds))}"] if len(seeds) > 1 or "seed" in last else []
        return command_line(run.command, [*(["-m"] if len(seeds) > 1 else []), *kept])


def _seeds(of: list[Run]) -> list[int]:
    return sorted({seed for run in of if isinstance(seed := run.settings.get("seed"), int)})


def group_runs(found: Sequence[Run]) -> list[RunGroup]:
    """Runs grouped by the keys that distinguish them, in the order of the runs."""
    keys = distinguishing_keys(found)
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in found:
        groups.setdefault(tuple(setting_text(run.settings.get(key)) for key in keys), []).append(run)
    metrics, primaries = (
        distinct_metrics(run.metrics for run in found),
        distinct_metrics((run.primary,) for run in found),
    )
    return [RunGroup({key: members[0].settings.get(key) for key in keys}, members, metrics, primaries)
            for members in groups.values()]  # fmt: skip


def distinct_metrics(metrics: Iterable[Sequence[Metric]]) -> tuple[Metric, ...]:
    """Metrics of several runs, each name once."""
    return tuple({metric.name: metric for one in metrics for metric in one}.values())


def distinguishing_keys(found: Sequence[Run]) -> list[str]:
    """Fewest keys that distinguish the runs: the net, the data and the typed keys. Other keys mostly follow from these
    (a net's file sets its learning rate), so they are added only if they split a group."""
    texts = [{key: setting_text(value) for key, value in run.settings.items() if key != "seed"} for run in found]
    values: dict[str, set[str]] = {}
    for one in texts:
        for key, value in one.items():
            values.setdefault(key, set()).add(value)
    several = [key for key in values if len(values[key]) > 1 and key not in ALWAYS]
    typed = {override.partition("=")[0].lstrip("+~") for run in found for override in run.overrides}
    typed |= {f"{key}.name" for key in typed}  # optim=adamw
    chosen = [*ALWAYS, *(key for key in several if key in typed or key == "command")]
    classes = [0] * len(texts)
    for key in chosen:
        classes = refine_classes(classes, texts, key)
    for key in sorted((key for key in several if key not in chosen), key=lambda key: _rank(key, typed)):
        finer = refine_classes(classes, texts, key)
        if len(set(finer)) > len(set(classes)):
            chosen.append(key)
            classes = finer
    return sorted(chosen, key=lambda key: key not in (*ALWAYS, "command"))


def refine_classes(classes: list[int], texts: list[dict[str, str]], key: str) -> list[int]:
    """Classes split by the values of one more key."""
    names: dict[tuple[int, str | None], int] = {}
    pairs = zip(classes, texts, strict=True)
    return [names.setdefault((number, one.get(key)), len(names)) for number, one in pairs]


def _rank(key: str, typed: set[str]) -> tuple[bool, bool, str]:
    """Sort key: sections chosen as a whole, as `augment=none`, come first."""
    section, _, name = key.rpartition(".")
    return section not in typed, name != "name", key


def setting_text(value: Any) -> str:
    """Setting as typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(setting_text, value))}]"
    return str(value)


def short_key(key: str) -> str:
    """`model` for `model.name`, as typed on the command line."""
    return key.removesuffix(".name")


def headings(groups: Sequence[RunGroup]) -> dict[str, str]:
    """Column heading of each key: `lr` for `optim.lr` if that is unambiguous."""
    keys = list(groups[0].keys) if groups else []
    last, columns = [short_key(key).rpartition(".")[2] for key in keys], measured_columns(groups[0]) if groups else {}
    return {key: name if last.count(name) == 1 and (name not in columns or name == key) else key
            for key, name in zip(keys, last, strict=True)}  # fmt: skip


def group_labels(groups: Sequence[RunGroup]) -> list[str]:
    """Shortest label that distinguishes each group from the others: `resnet20 lr=0.1`."""
    names = headings(groups)
    texts = [{key: setting_text(value) for key, value in group.keys.items()} for group in groups]
    classes, used = [0] * len(groups), []
    for key in names:
        finer = refine_classes(classes, texts, key)
        if len(set(finer)) > len(set(classes)):
            used.append(key)
            classes = finer
    found = []
    for group, one in zip(groups, texts, strict=True):
        parts = [one[key] if key == "command" or key != short_key(key) else f"{names[key]}={one[key]}"
                 for key in used if group.keys[key] is not None]  # fmt: skip
        found.append(" ".join(parts) or group.first.model)
    return found


# Rows: one for each group, with plain numbers


def group_row(group: RunGroup) -> dict[str, Any]:
    """All columns of a group."""
    keys = {short_key(key): value for key, value in group.keys.items()}
    known = {key: value for key, value in keys.items() if value is not None}
    return {
        **keys,
        **measured_columns(group),
        **known,
    }  # keys again: if `epochs` distinguishes the runs, it means the planned epochs


def measured_columns(group: RunGroup) -> dict[str, Any]:
    """Columns of a row without its keys. Metrics are means over the group's finished runs."""
    paper = group.published
    found: dict[str, Any] = {"runs": len(group.done), "seeds": group.seeds, "state": group.state}
    for metric in group.metrics:
        found |= {metric.name: group.mean(metric.name), f"{metric.name}_std": group.std(metric.name)}
    found |= {name: group.mean(name) for name in (f"train_{metric.name}" for metric in group.primaries)}
    found |= {
        "params": group.rounded_mean("params"),
        "macs": group.rounded_mean("macs"),
        "seconds": group.mean("wall_seconds"),
        **{key: group.common_value(key) for key in ("epochs", "crop", "split", "n", "select_on", "device")},
        "measured_in": group.common_value("precision"),
        "date": max(run.date for run in group.runs),
    }
    for metric in group.metrics:
        printed = paper.values.get(metric.name) if paper else None
        found[f"published_{metric.name}"] = printed
        found[metric.difference_key] = error_difference(group.mean(metric.name), printed)
    return found | {
        "published_protocol": paper.protocol if paper else None,
        "citation": paper.citation if paper else None,
        "command_line": group.command_line,
    }


def error_difference(measured: float | None, printed: float | None) -> float | None:
    return measured - printed if measured is not None and printed is not None else None


def sort_groups(groups: list[RunGroup], sort: str | None) -> list[RunGroup]:
    """Groups sorted by a column of `group_row`, descending with a leading minus; by None, the best of each task first.
    Groups without a value come last."""
    if sort is None:
        return sorted(groups, key=_rank_in_task)
    name, down = sort.lstrip("-"), sort.startswith("-")
    rows = [group_row(group) for group in groups]
    known = list(dict.fromkeys(key for one in rows for key in one))
    full = next((key for key, short in headings(groups).items() if short == name and key in known), name)
    if rows and full not in known:
        raise unknown("column", name, known)
    pairs = list(zip(groups, (one.get(full) for one in rows), strict=True))
    with_value = [pair for pair in pairs if pair[1] is not None]
    with_value.sort(key=lambda pair: _comparable(pair[1]), reverse=down)
    return [group for group, _ in with_value] + [group for group, value in pairs if value is None]


def _rank_in_task(group: RunGroup) -> tuple[bool, int, float]:
    metric, value = group.primary, group.mean(group.primary.name)
    return value is None, [one.name for one in group.primaries].index(metric.name), metric.cost(value or 0.0)


def _comparable(value: Any) -> tuple[bool, float, str]:
    number = isinstance(value, int | float)
    return not number, float(value) if number else 0.0, setting_text(value)


def filter_runs(found: Iterable[Run], where: Iterable[str]) -> list[Run]:
    """Runs that match all conditions KEY=VALUE; VALUE may be a pattern: model=resnet*, optim.lr=0.1."""
    kept = list(found)
    for condition in where:
        key, sign, wanted = condition.partition("=")
        if not sign:
            raise UserError(f"where={condition}: write KEY=VALUE, as in where=model=resnet20")
        known = {name for run in kept for name in run.settings} | {"status"}
        full = f"{key}.name" if f"{key}.name" in known else key
        if kept and full not in known:
            raise unknown("key in where", key, known)
        kept = [
            run
            for run in kept
            if fnmatchcase(run.status if full == "status" else setting_text(run.settings.get(full)), wanted)
        ]
    return kept


def repeated_seeds(groups: Iterable[RunGroup]) -> list[str]:
    """Warnings, one for each group with a repeated seed: its standard deviation is then not over seeds alone."""
    found = []
    for group in groups:
        seeds = [run.settings.get("seed") for run in group.done]
        twice = sorted({seed for seed in seeds if seed is not None and seeds.count(seed) > 1})
        if twice:
            which = f"{group.first.model} on {group.first.data}"
            found.append(f"{which}: seed {', '.join(map(str, twice))} occurs more than once "
                         f"({named_runs(group, twice[0])}): the spread is not over seeds alone")  # fmt: skip
    return found


def named_runs(group: RunGroup, seed: int) -> str:
    names = [str(run.path) for run in group.done if run.settings.get("seed") == seed]
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
