"""Data sets, what is done to their images, and the batches a net is given."""

from cnnbench.data.datasets import load_dataset
from cnnbench.data.loaders import Batch, Loader, eval_loader, train_loader, view_batches
from cnnbench.data.overlap import shared_files
from cnnbench.data.sources import (
    Arrays,
    Dataset,
    Files,
    Source,
    fingerprint,
    folds,
    has_masks,
    names,
    pick,
    placed,
    read_image,
    spread,
    strata,
    with_channels,
)
from cnnbench.data.transforms import EvalTransform
from cnnbench.data.views import Shifts, Views, views

__all__ = [
    "Arrays",
    "Batch",
    "Dataset",
    "EvalTransform",
    "Files",
    "Loader",
    "Shifts",
    "Source",
    "Views",
    "eval_loader",
    "fingerprint",
    "folds",
    "has_masks",
    "load_dataset",
    "names",
    "pick",
    "placed",
    "read_image",
    "shared_files",
    "spread",
    "strata",
    "train_loader",
    "view_batches",
    "views",
    "with_channels",
]
