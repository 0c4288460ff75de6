"""Text report of a benchmark: a table row for each variant of each net, and notes in words."""

from typing import Any

from cnnbench.config.sections import Format
from cnnbench.output.tables import fitted
from cnnbench.utils.format import Percent, milliseconds, plural


def flat_rows(net: dict[str, Any]) -> list[dict[str, Any]]:
    """Flat rows in full precision, for CSV."""
    about = ("model", "params", "macs", "image_size", "data", "batch_size", "loader_images_per_second")
    return [{**{key: net[key] for key in about}, **one} for one in net["variants"]]


def report_page(nets: list[dict[str, Any]], format: Format, width: int | None = None) -> str:
    """Table, then for each net its bottleneck, the cost of compiling and the search for the batch size."""
    lines = [f"- {line}" for net in nets for line in net_notes(net)]
    rows = [report_row(net, one) for net in nets for one in net["variants"]]
    table = fitted(rows, format, width, DISPENSABLE, how="open the run's result.json")
    return "\n".join([table, "", *lines, "", *(LEGEND if "GMAC/s" in table.partition("\n")[0] else LEGEND[:1])])


DISPENSABLE = ("of peak", "GMAC/s", "memory MB", "batch", "±", "optimizer", "data")
LEGEND = [
    "data, forward, backward, optimizer: ms of a training step, medians; ±: half the distance between the quartiles.",
    "GMAC/s: multiply-adds of training, three times those of inference; of peak: compared with a large matrix product",
    "in the same precision, timed in this run (fp32 convolutions may exceed it: they need fewer multiplications).",
]


def report_row(net: dict[str, Any], one: dict[str, Any]) -> dict[str, Any]:
    """Table row of a variant."""

    def whole(key: str, unit: float = 1) -> int | None:
        return None if one[key] is None else round(one[key] / unit)

    spread = one["train_spread"]
    return {
        "model": net["model"],
        "variant": one["variant"],
        "batch": net["batch_size"],
        "train images/s": whole("train_images_per_second"),
        "±": None if spread is None else whole("train_spread"),
        "answers/s": whole("inference_images_per_second"),
        "step ms": one["step_ms"],
        **{part: one[f"{part}_ms"] for part in ("data", "forward", "backward", "optimizer")},
        "memory MB": whole("memory_bytes", 1e6),
        "GMAC/s": whole("macs_per_second", 1e9),
        "of peak": None if one["peak_share"] is None else Percent(100 * one["peak_share"]),
    }


def net_notes(net: dict[str, Any]) -> list[str]:
    """Notes on the results of one net, a line each."""
    name, found = net["model"], [f"{net['model']}: {net['verdict']}"]
    for one in net["variants"]:
        if one["error"]:
            found.append(f"{name}: cannot be compiled here: {one['error']}")
        elif one["compiled"]:
            found.append(f"{name}: {compile_note(one)}")
    if net["search"]:
        last = net["search"][-1]
        found.append(
            f"{name}: batch {last['batch_size']:,} is the largest that fits, with {last['memory'] / 1e9:.2f} GB; "
            f"the fastest was {max(net['search'], key=lambda trial: trial['images_per_second'])['batch_size']:,}"
        )
    return found


def compile_note(one: dict[str, Any]) -> str:
    cost = f"compiling took {one['compile_seconds']:.1f} s the first time"
    if one["break_even_steps"] is None:
        return f"{cost} and saves nothing: a step takes {milliseconds(-one['gain_ms'])} longer"
    gain, steps = milliseconds(one["gain_ms"]), one["break_even_steps"]
    return f"{cost}, saves {gain} per step and pays off after {plural(steps, 'step')}"
