"""Numbers that `cnnbench visualize` leaves beside a picture, as the metrics of claims: after lesions, and by depth.

Metrics of `what=lesions`, in points of the error: left_out and swapped, how much the net without one of its blocks, or
with two neighbours swapped, errs more than the whole net, in the mean; …_worst: where it errs most. Blocks that change
the shape are not counted. Of `what=signals`: gradient_lost, by how many orders of magnitude the gradient at the first
layer is smaller than at the last, negative where it is larger; …_without_norm: without BatchNorm; …_small: and from
small weights.
"""

import itertools
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnbench.runs import run_directory
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import read_json

RUN = "weights=RUN"  # in a claim's command: each of the runs of the line before
CHANGES = {"left out": "left_out", "swapped with the next": "swapped"}
VARIANTS = {"as it begins": "gradient_lost", "without BatchNorm": "gradient_lost_without_norm",
            "without BatchNorm, N(0, 0.01^2)": "gradient_lost_small"}  # fmt: skip


def lesions(facts: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: facts[key] for key in ("top1_error", "n", "split", "precision")}
    for change, name in CHANGES.items():
        some = [one for one in facts["lesions"] if one["change"] == change and one["keeps_shape"]]
        if some:
            worst = max(some, key=lambda one: one["error"])
            found[name] = float(np.mean([one["error"] for one in some])) - facts["top1_error"]
            found[f"{name}_worst"] = worst["error"] - facts["top1_error"]
            found[interval_of(f"{name}_worst")] = [worst["low"], worst["high"]]
    return found


def signals(facts: Mapping[str, Any]) -> dict[str, Any]:
    lost = {VARIANTS[name]: -math.log10(share) for name, share in facts["arrives"].items() if share > 0}
    return {**lost, "batch_size": facts["batch_size"]}


READERS = {"lesions": lesions, "signals": signals}
FACTS = ("command", "date", "commit", "model", "data", "seed")  # what is said of a measurement


def interval_of(metric: str) -> str:
    """Key of the interval that a measurement gives with a metric, over its images."""
    return f"{metric}_interval"


def read(page: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(What is said of the measurement, its metrics) for each of the files in a directory of pictures. UserError that
    names a file which lacks something. Those of versions that wrote no command are no evidence."""
    files = [file for name in READERS if (file := page / f"{name}.json").is_file()]
    return [(facts, _metrics(file, facts)) for file in files if "command" in (facts := read_json(file))]


def _metrics(file: Path, facts: dict[str, Any]) -> dict[str, Any]:
    try:
        if missing := [key for key in FACTS if key not in facts]:
            raise KeyError(missing[0])
        return READERS[file.stem](facts)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file} is not as visualize writes it ({type(error).__name__}: {error}): draw it anew"
        ) from None


def is_of(line: str, command: str) -> bool:
    """Whether a measurement's command has the settings of a job of a claim's line, but for the seed."""
    measured = _settings(command)
    known = {key: values.split(",") for key, values in _settings(line).items()}
    jobs = [dict(zip(known, values, strict=True)) for values in itertools.product(*known.values())]
    if RUN in line.split():
        measured["weights"] = "RUN"
    return any(job == measured for job in jobs)


def _settings(line: str) -> dict[str, str]:
    pairs = dict(word.partition("=")[::2] for word in shlex.split(line)[2:] if "=" in word)
    return {key: value for key, value in pairs.items() if not run_directory.is_free(key) and key != "seed"}
