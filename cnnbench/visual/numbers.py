"""The numbers of a picture as JSON beside it, with the command, the day and the commit that they were measured with."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cnnbench.config.arguments import command_line
from cnnbench.runs.result import commit
from cnnbench.utils.files import write_json
from cnnbench.visual.context import VisualizeContext
from cnnbench.visual.html_page import Picture


def write_numbers(context: VisualizeContext, picture: Picture, found: Mapping[str, Any]) -> None:
    """Write NAME.json beside the picture NAME.png."""
    made = {"command": command_line("visualize", context.cfg.run.overrides),
            "date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit()}  # fmt: skip
    write_json(picture.path.with_suffix(".json"), {**made, **found})
