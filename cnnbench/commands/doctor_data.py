"""`cnnbench doctor data`: what is wrong with images and labels, before a net learns it.

Files are read once. A net gives features of every image, by which near copies are found and labels are judged.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cnnbench import data
from cnnbench.config.arguments import typed_keys
from cnnbench.config.commands import DoctorDataConfig
from cnnbench.config.data_names import data_name
from cnnbench.config.sections import Format, OnBadImage
from cnnbench.data import Dataset
from cnnbench.data.model_spec import ModelSpec
from cnnbench.doctor import data_review, image_files
from cnnbench.doctor.copies import MOST, Copy, exact_copies, groups, near_copies
from cnnbench.doctor.data_review import Review
from cnnbench.doctor.data_sheets import draw_pairs, draw_suspects
from cnnbench.doctor.finding import PROBLEM, findings_table
from cnnbench.doctor.image_files import Images
from cnnbench.doctor.labels import find_suspects, judged_classes
from cnnbench.models.layers import Net
from cnnbench.output.tables import fitted, for_people, render
from cnnbench.runs import run_directory
from cnnbench.runs.run_directory import path_for
from cnnbench.runtime.device import create_runtime
from cnnbench.transfer.features import PENULTIMATE, FeatureExtractor, feature_stages
from cnnbench.transfer.linear_svm import out_of_fold, principal_components
from cnnbench.utils.console import say
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import write_text
from cnnbench.utils.named_files import typed_path
from cnnbench.utils.system import cores
from cnnbench.utils.terminal import terminal_width
from cnnbench.utils.text import slug
from cnnbench.weights import load, sources
from cnnbench.weights.sources import Weights

SMALL = 64  # pixels: up to this side the zoo's net for 32 pixels suits the images
PHOTOGRAPHS = {"name": "squeezenet1_0", "source": "torchvision"}  # small, quick, and as good as larger nets for this
OF_THE_NET = ("image_size", "crop_ratio", "interpolation", "mean", "std")


def run(cfg: DoctorDataConfig) -> int:
    """Examine the data, leave tables and pictures behind, print the findings. 1 if there is a problem, as `doctor`."""
    for key in OF_THE_NET:
        if f"data.{key}" in typed_keys(cfg):
            raise UserError(f"data.{key} changes nothing here: images are prepared as the net's were; use "
                            f"prepare.{key}= instead")  # fmt: skip
    given = None if cfg.weights is None and cfg.model is None else ready(cfg, _given(cfg))
    settings = replace(cfg.data, on_error=OnBadImage.skip)  # each file is read below, and named where it is bad
    dataset = data.load_dataset(  # a finding says the notes
        settings, tell=lambda note: None, read_all=False, unsplit=True, test=True
    )
    if dataset.task != "classification":
        raise UserError(f"doctor data judges images with a label each; data={dataset.name} is for {dataset.task}")
    path = path_for("doctor", cfg, _name(cfg))
    run_directory.make_for_results(path)
    review, probabilities = examine(cfg, dataset, given)
    try:
        sheets = write(review, probabilities, path, cfg.sheet)
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}") from None
    return show(review, path, sheets, cfg)


def _name(cfg: DoctorDataConfig) -> str:
    packed = cfg.data.packed
    return slug([Path(packed).name if packed else data_name(cfg.data.name, cfg.data.root, cfg.data.file)])


# The net


class FeatureNet(NamedTuple):
    """The net whose features compare the images, how they are prepared for it, and what to say of both."""

    net: Net
    spec: ModelSpec
    notes: list[str]


def _given(cfg: DoctorDataConfig) -> Weights:
    """The weights that the user names, or those that go with the net that the user names."""
    where = cfg.weights
    if where is None:
        assert cfg.model is not None
        where = sources.usual(cfg.model)
    return sources.load(where, cfg.model, cfg.weights_key)


def ready(cfg: DoctorDataConfig, weights: Weights) -> FeatureNet:
    net, spec, notes = load.ready(weights, cfg.model, cfg.prepare, cfg.weights_rename, cfg.weights_skip)
    return FeatureNet(net, spec, [f"features by {net.name} ({weights.source}), {spec.input.image_size} px", *notes])


def usual_weights(images: Images) -> Weights:
    """The net that suits the size of the images. UserError where it cannot be fetched."""
    sides = [min(one.width, one.height) for one in images.facts]
    return sources.load(sources.DEFAULT) if np.median(sides) <= SMALL else sources.published(PHOTOGRAPHS)


# The examination


def examine(cfg: DoctorDataConfig, dataset: Dataset, given: FeatureNet | None) -> tuple[Review, dict[int, np.ndarray]]:
    """All that is found, and the out-of-fold probabilities (classes,) of each judged image."""
    root = image_files.folder_of(dataset)
    images = image_files.examine(dataset, root, cores() if cfg.data.workers is None else cfg.data.workers)
    if not len(images):
        raise UserError(f"none of the {len(images.unreadable):,} images can be read: {images.unreadable[0]['detail']}")
    table = data.group_table(dataset, cfg.data.group) or (Path(cfg.data.file) if cfg.data.file else None)
    picked = cfg.data.name == "list" or cfg.data.source is not None  # what else lies there is nobody's mistake
    ignored = [] if root is None or picked else image_files.ignored_files(dataset, root, table)
    dataset, images, remarks = image_files.heard(dataset, images, cfg.data.workers)
    review = Review(images=images, notes=(*dataset.notes, *remarks), ignored=ignored, similarity=cfg.similarity)
    review.exact = exact_copies([one.digest for one in images.facts])
    try:
        net = given or ready(cfg, usual_weights(images))
    except UserError as error:  # without a network all the rest can still be said
        review.unseen = str(error)
        return review, {}
    found = features(cfg, dataset, images, net)
    stage, _ = found
    if len(images) > MOST:
        review.uncompared = f"not looked for: {len(images):,} images are more than the {MOST:,} that can be compared"
    else:
        review.near = _near(review, found[stage])
    review.net, probabilities = judge_labels(review, found)
    return review, probabilities


def _near(review: Review, features: Tensor) -> list[Copy]:
    """Near copies that are not exact ones."""
    images, splits = review.images, np.array(review.images.splits)
    parts = [np.flatnonzero(splits == split) for split in np.unique(splits)]
    same = groups(len(images), review.exact)
    pairs = near_copies(features, parts, images.targets, review.similarity)
    return [pair for pair in pairs if same[pair.first] != same[pair.other]]


def features(cfg: DoctorDataConfig, dataset: Dataset, images: Images, given: FeatureNet) -> dict[str, Tensor]:
    """Features of all images: of the last stage, by which copies are found, and of the penultimate layer."""
    runtime = create_runtime(cfg.device, cfg.precision.value, seed=0)
    net, spec, notes = given
    known = spec.input
    dataset = data.with_channels(dataset, known.in_channels)
    dataset = replace(dataset, mean=tuple(known.mean), std=tuple(known.std), crop_ratio=known.crop_ratio,
                      interpolation=known.interpolation)  # fmt: skip
    stream = for_people(cfg.format)
    for line in notes:
        say(line, stream)
    folder = typed_path(cfg.run.root) / "features" if cfg.cache else None
    extractor = FeatureExtractor(
        net, dataset, spec, runtime, folder=folder, workers=cfg.data.workers, stream=sys.stderr
    )
    layers = [feature_stages(net)[-2], PENULTIMATE]
    found = [extractor(source, layers) for source in _sources(dataset, images)]
    return {layer: torch.cat([part[layer] for part in found]) for layer in layers}


def _sources(dataset: Dataset, images: Images) -> list[data.Source]:
    """The readable images with the net's channels: those in memory are converted, and can all be read."""
    if isinstance(dataset.train, data.Arrays):
        return list(dataset.splits.values())
    return list(images.sources.values())


def judge_labels(review: Review, found: dict[str, Tensor]) -> tuple[str, dict[int, np.ndarray]]:
    """Fill in the suspects of the review. Returns the layer by whose features, and the probabilities of each image."""
    images, count = review.images, len(review.images.classes)
    group = groups(len(images), [*review.exact, *review.near], images.groups)
    judged = judged_classes(images.targets, group, count)
    if len(judged) < 2:
        return "", {}
    kept = np.flatnonzero(np.isin(images.targets, judged))
    targets = np.searchsorted(judged, images.targets[kept])
    layer, probabilities = _best_judge({name: value[kept] for name, value in found.items()}, targets, group[kept])
    suspects = find_suspects(probabilities, targets)
    review.judged, review.error = len(kept), 100 * len(suspects) / len(kept)
    review.majority_error = data_review.majority_error(targets)
    review.suspects = [
        replace(one, index=int(kept[one.index]), label=int(judged[one.label]), suggested=int(judged[one.suggested]))
        for one in ([] if review.hopeless else suspects)
    ]
    whole = np.zeros((len(kept), count))
    whole[:, judged] = probabilities
    return layer, dict(zip(kept.tolist(), whole, strict=True))


def _best_judge(found: dict[str, Tensor], targets: np.ndarray, group: np.ndarray) -> tuple[str, np.ndarray]:
    """The layer whose features tell the classes apart best, and the out-of-fold probabilities by it."""
    compact = {layer: value if layer == PENULTIMATE else principal_components(value) for layer, value in found.items()}
    by_layer = {layer: out_of_fold(value, torch.from_numpy(targets), group) for layer, value in compact.items()}
    best = min(by_layer, key=lambda layer: (by_layer[layer].argmax(1) != targets).mean())
    return best, by_layer[best]


# What is left behind


def write(review: Review, probabilities: dict[int, np.ndarray], path: Path, most: int) -> list[str]:
    """Write the tables and the sheets. Returns the names of the sheets."""
    write_text(
        path / "issues.csv",
        render(data_review.issue_rows(review) or [dict.fromkeys(data_review.COLUMNS)], Format.csv) + "\n",
    )
    write_text(path / "classes.csv", render(data_review.class_counts(review.images), Format.csv) + "\n")
    sheets = []
    for name in ("labels.png", "copies.png"):
        (path / name).unlink(missing_ok=True)  # of an earlier look at these data
    if review.suspects:
        draw_suspects(review.images, review.suspects[:most], probabilities, path / "labels.png")
        sheets.append("labels.png")
    if pairs := data_review.ordered_pairs(review)[:most]:
        draw_pairs(review.images, pairs, path / "copies.png")
        sheets.append("copies.png")
    return sheets


def show(review: Review, path: Path, sheets: list[str], cfg: DoctorDataConfig) -> int:
    found = [*data_review.findings(review), data_review.written(path, sheets)]
    parts = [findings_table(found, cfg.format)]
    if cfg.format is Format.table:
        lists = (("the likeliest wrong labels", data_review.suspect_rows(review)),
                 ("copies", data_review.pair_rows(review)))  # fmt: skip
        for title, rows in lists:
            if rows[: cfg.show]:
                shown = "" if len(rows) <= cfg.show else f", {cfg.show} of {len(rows):,}"
                parts.append(f"\n{title}{shown}\n{fitted(rows[: cfg.show], Format.table, terminal_width())}")
    print("\n".join(parts))
    return int(any(finding.status == PROBLEM for finding in found))
