"""Data sets, transforms of their images, and batches for a net."""

from cnnbench.data.as_trained import as_trained
from cnnbench.data.augment import NO_MIXING
from cnnbench.data.class_names import in_classes_of, matched, renumbered
from cnnbench.data.datasets import load_dataset, load_judged, seen_in_training
from cnnbench.data.groups import group_table
from cnnbench.data.kept import Keep, cache_of
from cnnbench.data.loaders import Batch, Loader, eval_loader, train_loader, view_batches
from cnnbench.data.overlap import shared_files
from cnnbench.data.sides import usual_side
from cnnbench.data.sounds import in_memory
from cnnbench.data.sources import (
    Arrays,
    Dataset,
    Files,
    Source,
    evenly_spaced,
    fingerprint,
    has_boxes,
    has_spatial_targets,
    image_names,
    place_images,
    read_image,
    with_channels,
)
from cnnbench.data.splits import folds, groups_of, pick
from cnnbench.data.spread import hardly_differ
from cnnbench.data.transforms import EvalTransform
from cnnbench.data.views import Shifts, Views, build_views

__all__ = [
    "NO_MIXING",
    "Arrays",
    "Batch",
    "Dataset",
    "EvalTransform",
    "Files",
    "Keep",
    "Loader",
    "Shifts",
    "Source",
    "Views",
    "as_trained",
    "build_views",
    "cache_of",
    "eval_loader",
    "evenly_spaced",
    "fingerprint",
    "folds",
    "group_table",
    "groups_of",
    "hardly_differ",
    "has_boxes",
    "has_spatial_targets",
    "image_names",
    "in_classes_of",
    "in_memory",
    "load_dataset",
    "load_judged",
    "matched",
    "pick",
    "place_images",
    "read_image",
    "renumbered",
    "seen_in_training",
    "shared_files",
    "train_loader",
    "usual_side",
    "view_batches",
    "with_channels",
]
