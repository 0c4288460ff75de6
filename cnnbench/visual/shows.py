"""The pictures that `what=` can name, each by the function that draws it; imported only when it is asked for."""

from collections.abc import Iterator
from importlib import import_module

from cnnbench.utils.errors import unknown
from cnnbench.visual.page import Picture
from cnnbench.visual.studio import Studio

# By name: the module in this package, and its function from a Studio to the pictures that it has drawn.
SHOWS = {
    "filters": ("show_filters", "draw_filters"),
    "maps": ("show_maps", "draw_maps"),
    "patches": ("show_patches", "draw_patches"),
    "maximize": ("show_maximize", "draw_maximize"),
    "gradcam": ("show_evidence", "draw_gradcam"),
    "occlusion": ("show_evidence", "draw_occlusion"),
    "saliency": ("show_evidence", "draw_saliency"),
    "embedding": ("show_embedding", "draw_embedding"),
    "mistakes": ("show_mistakes", "draw_mistakes"),
}
UNTRAINED = {"batch": ("before", "draw_batch"), "schedule": ("before", "draw_schedule")}  # need no net that has learned
ALL = "all"


def chosen(what: object) -> list[str]:
    """`what=` as names: one, a list, or all that look at a trained net."""
    names = [str(name) for name in what] if isinstance(what, list) else [str(what)]
    if names == [ALL]:
        return list(SHOWS)
    for name in names:
        if name not in SHOWS and name not in UNTRAINED:
            raise unknown("picture", name, [*SHOWS, *UNTRAINED, ALL])
    return list(dict.fromkeys(names))


def draw(name: str, studio: Studio) -> Iterator[Picture]:
    module, function = {**SHOWS, **UNTRAINED}[name]
    pictures: Iterator[Picture] = getattr(import_module(f"cnnbench.visual.{module}"), function)(studio)
    return pictures
