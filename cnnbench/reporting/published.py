"""Which published numbers a run may be compared with: those of the same net on the same data."""

from functools import cache
from typing import Any

import yaml

from cnnbench.analysis import published
from cnnbench.analysis.published import Facts
from cnnbench.config.sections import conf_dir
from cnnbench.reporting.gather import Run


def find(run: Run) -> Facts | None:
    """None where no paper has such a net, or has it on other images, or with other arguments."""
    name = run.model
    arguments = {key.removeprefix("model."): value for key, value in run.settings.items() if key.startswith("model.")}
    arguments.pop("name")
    if arguments.get("source", "cnnbench") != "cnnbench":
        return None
    found = published.find(name, arguments)
    if found is None or found.data != run.data or (found.top1_error is None and found.top5_error is None):
        return None
    own = defaults(name)
    asked = [f"{key}={value}" for key, value in arguments.items() if key in own and value != own[key]]
    return found if all(f"{name} {setting}" in published.FACTS for setting in asked) else None


@cache
def defaults(name: str) -> dict[str, Any]:
    """The arguments of the net of the paper, from its file."""
    file = conf_dir() / "model" / f"{name}.yaml"
    model = (yaml.safe_load(file.read_text()) or {}).get("model") if file.exists() else None
    return {key: value for key, value in (model or {}).items() if key != "name"}
