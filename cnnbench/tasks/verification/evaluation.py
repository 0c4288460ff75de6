"""Evaluation by pairs: accuracy with the threshold of the other folds, beside that of the pixels alone."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench import data
from cnnbench.config.sections import Format
from cnnbench.data.pairs import Pairs
from cnnbench.data.sources import image_names
from cnnbench.output.rgb import to_rgb
from cnnbench.output.tables import render
from cnnbench.runtime.device import Runtime
from cnnbench.tasks import ANSWERS
from cnnbench.tasks.measurement import Judged, Measurement, crop_text
from cnnbench.tasks.passes import answers, judge
from cnnbench.tasks.verification import METRICS, STANDARD_ERROR
from cnnbench.tasks.verification.metrics import PairMeter, distances, judged, scores
from cnnbench.utils.console import warn_if_undrawn, warn_in_result

if TYPE_CHECKING:
    from cnnbench.tasks.verification.plots import WrongPair
    from cnnbench.tasks.verification.task import Verification

LARGEST = 64  # side of the images whose pixels are compared
SHOWN = 10  # wrong pairs of each kind that are drawn


def measure(task: "Verification", one: Judged, runtime: Runtime) -> Measurement:
    """Metrics of one net, of the pixels, and of the threshold that is stored with the net."""
    meter, seconds = judge(task, one, runtime)
    kept = answers(meter, runtime)
    assert isinstance(meter, PairMeter) and kept is not None
    pairs, far, by_pixels = meter.pairs, meter.distances, pixel_distances(one, meter.pairs)
    pixels = scores(by_pixels, pairs)
    how = crop_text(one.dataset, one.spec.input.image_size, one.spec.input.crop_ratio)
    folds = len(judged(far, pairs).accuracies)
    protocol = {"name": f"{folds} folds, each by the threshold of the others", "pairs": pairs.origin, "folds": folds}
    result = {
        **meter.compute(),
        "n": meter.n,
        "pairs": len(pairs),
        "crop": how,
        "protocol": protocol,
        "pixels": pixels,
        **stored(task, one, far, pairs),
    }

    def write(folder: Path, result: dict[str, Any]) -> None:
        task.write_answers(kept, one.reading.source, [], folder / ANSWERS)
        draw(folder, result, one, pairs, {"net": far, "pixels": by_pixels})

    return Measurement(n=meter.n, seconds=seconds, result=result, write=write, page=partial(page, pixels=pixels))


def stored(task: "Verification", one: Judged, far: np.ndarray, pairs: Pairs) -> dict[str, Any]:
    """Accuracy by the threshold that is stored with the net, where it is of other pairs than these."""
    known = one.spec.extra.get("threshold")
    if known is None or known["origin"] == pairs.origin:
        return {}
    right = (far <= known["distance"]) == pairs.same.numpy()
    return {"stored_threshold": {**known, "accuracy": 100 * float(right.mean())}}


def pixel_distances(one: Judged, pairs: Pairs) -> np.ndarray:
    """Distances of the images themselves, as the net is given them, of at most LARGEST pixels a side."""
    given = one.spec.input
    batches = data.eval_loader(one.reading.source, one.dataset, image_size=given.image_size, batch_size=256,
                               workers=one.reading.workers)  # fmt: skip
    side = min(LARGEST, given.image_size)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (given.mean, given.std))
    found = [
        (F.adaptive_avg_pool2d(batch["image"].cpu().float(), side) / 255 - mean) / std for batch in batches.epoch()
    ]
    return distances(torch.cat(found).flatten(1), pairs)


# What is left behind


def draw(folder: Path, result: dict[str, Any], one: Judged, pairs: Pairs, found: Mapping[str, np.ndarray]) -> None:
    """The pictures. What fails is a warning in the result."""
    from cnnbench.tasks.verification import plots

    title = f"{result['model']} on {result['data']}, {result['split']}, {result['crop']}, {result['precision']}"
    files: dict[str, Callable[[Path], object]] = {
        "roc.png": lambda file: plots.draw_distances(found, pairs, file, title),
        "mistakes.png": lambda file: plots.draw_mistakes(
            wrong_pairs(one, pairs, found["net"]), file, f"{title}: the most confident wrong pairs"
        ),
    }
    for name, make in files.items():
        with warn_if_undrawn(name, partial(warn_in_result, result)):
            make(folder / name)


def wrong_pairs(one: Judged, pairs: Pairs, far: np.ndarray) -> "list[WrongPair]":
    """Of each kind the wrong pairs that are farthest from their threshold, with their images."""
    from cnnbench.tasks.verification.plots import WrongPair

    found = judged(far, pairs)
    thresholds = found.thresholds[np.searchsorted(np.unique(found.fold), found.fold)]
    same = pairs.same.numpy()
    order = np.argsort(-np.abs(far - thresholds), kind="stable")
    chosen = [place for kind in (False, True)
              for place in [one for one in order if not found.right[one] and same[one] == kind][:SHOWN]]  # fmt: skip
    ends = torch.stack([pairs.first, pairs.second], dim=1)[chosen].flatten()
    names = [Path(name) for name in image_names(one.reading.source, ends)]
    return [
        WrongPair(shown[0], shown[1], bool(same[place]), far[place], thresholds[place], " | ".join(map(short, files)))
        for place, shown, files in zip(chosen, in_twos(images(one, ends)), in_twos(names), strict=True)
    ]


def images(one: Judged, indices: Tensor) -> list[np.ndarray]:
    """Images of the source as the net is given them, uint8 (H, W, 3)."""
    some = one.reading.source.subset(indices)
    batches = data.eval_loader(some, one.dataset, image_size=one.spec.input.image_size, batch_size=64, workers=0)
    return [to_rgb(image.cpu()) for batch in batches.epoch() for image in batch["image"]]


def in_twos(items: list[Any]) -> list[list[Any]]:
    return [items[start : start + 2] for start in range(0, len(items), 2)]


def short(file: Path) -> str:
    """`p0005/0013.jpg`: the person and the file."""
    return "/".join(file.parts[-2:])


def page(result: dict[str, Any], brief: bool, *, pixels: dict[str, float]) -> str:
    """The numbers for the terminal."""
    rows = [row("pixels", pixels), row(str(result["model"]), result)]
    lines = [render(rows, Format.table)]
    if known := result.get("stored_threshold"):
        lines.append(f"by the threshold stored with the net, {known['distance']:.4f} ({known['origin']}): "
                     f"{known['accuracy']:.2f} % right")  # fmt: skip
    protocol = result["protocol"]
    lines.append(f"measured: {protocol['pairs']}, {protocol['name']}; {result['crop']}, {result['precision']}; "
                 f"{result['n']:,} images")  # fmt: skip
    return "\n".join([*lines, f"-> {result['run_dir']}"])


def row(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    first, *others = METRICS
    said = {first.axis: f"{values[first.name]:.2f} ± {values[STANDARD_ERROR]:.2f}"}
    return {"": name, **said, **{one.axis: f"{values[one.name]:.{one.decimals}f}" for one in others}}
