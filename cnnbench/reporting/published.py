"""Published numbers to compare a run with: of the same net on the same data."""

from functools import cache
from typing import Any

import yaml

from cnnbench.analysis.published import FACTS, facts_key
from cnnbench.config.sections import conf_dir
from cnnbench.reporting.gather import Run
from cnnbench.tasks.classification.published import PublishedMetrics, published_metrics


def find_published(run: Run) -> PublishedMetrics | None:
    """Published facts on the run's net; None if no paper has this net with these arguments on this data set."""
    name = run.model
    arguments = {key.removeprefix("model."): value for key, value in run.settings.items() if key.startswith("model.")}
    arguments.pop("name")
    if arguments.get("source", "cnnbench") != "cnnbench":
        return None
    found = published_metrics(facts_key(name, arguments))
    if found is None or found.data != run.data or not found.values.keys() & {metric.name for metric in run.metrics}:
        return None
    own = paper_arguments(name)
    asked = [f"{key}={value}" for key, value in arguments.items() if key in own and value != own[key]]
    return found if all(f"{name} {setting}" in FACTS for setting in asked) else None


@cache
def paper_arguments(name: str) -> dict[str, Any]:
    """Arguments of the paper's net, from its file in conf/model."""
    file = conf_dir() / "model" / f"{name}.yaml"
    model = (yaml.safe_load(file.read_text()) or {}).get("model") if file.exists() else None
    return {key: value for key, value in (model or {}).items() if key != "name"}
