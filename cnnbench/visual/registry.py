"""The pictures that `what=` can name; their modules are imported only when they are asked for."""

from collections.abc import Iterator
from importlib import import_module

from cnnbench import tasks
from cnnbench.models.layers import CLASS
from cnnbench.utils.errors import UserError, unknown
from cnnbench.visual.context import VisualizeContext
from cnnbench.visual.html_page import Picture

# By the name in `what=`: a module of this package; its function draw_NAME yields pictures that are on disk.
NEEDS_WEIGHTS = {
    "filters": "filters",
    "maps": "maps",
    "patches": "patches",
    "maximize": "maximize",
    "gradcam": "attribution",
    "occlusion": "attribution",
    "saliency": "attribution",
    "embedding": "embedding",
    "mistakes": "mistakes",
    "lesions": "lesions",
}
AT_LENGTH = ("lesions",)  # passes over the data for each block: only where they are asked for
OF_CLASSES = ("maximize", "gradcam", "occlusion", "saliency", "embedding", "mistakes", "lesions")
BEFORE_TRAINING = {"batch": "batch", "schedule": "schedule", "signals": "signals"}
ALL = "all"


def chosen_pictures(what: object) -> list[str]:
    """Names in `what=`: one, a list, or all pictures of a trained net. UserError for an unknown name."""
    names = [str(name) for name in what] if isinstance(what, list) else [str(what)]
    if names == [ALL]:
        return [name for name in NEEDS_WEIGHTS if name not in AT_LENGTH]
    for name in names:
        if name not in NEEDS_WEIGHTS and name not in BEFORE_TRAINING:
            raise unknown("picture", name, [*NEEDS_WEIGHTS, *BEFORE_TRAINING, ALL])
    return list(dict.fromkeys(names))


def draw_pictures(name: str, context: VisualizeContext) -> Iterator[Picture]:
    """Draw the pictures of one `what=`, one by one. UserError where they do not suit the net."""
    if name in OF_CLASSES and (given := tasks.find(context.spec.task).answers) != CLASS:
        raise UserError(
            f"what={name} asks about the class of an image, but {context.title} answers with {given}: use filters, "
            "maps or patches"
        )
    if name == "patches" and context.model.scale > 1:
        raise UserError(
            f"what=patches cuts what a unit sees out of the image, which {context.title} enlarges: use maps"
        )
    module = import_module(f"cnnbench.visual.{(NEEDS_WEIGHTS | BEFORE_TRAINING)[name]}")
    pictures: Iterator[Picture] = getattr(module, f"draw_{name}")(context)
    return pictures
