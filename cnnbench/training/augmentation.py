"""Augmentation that suits the size of the images."""

from dataclasses import replace

from cnnbench.config.arguments import typed_keys
from cnnbench.config.commands import TrainConfig, VisualizeConfig
from cnnbench.config.sections import Crop

SMALL = 64  # pixels: below, a part of 8 % of the area is less than 18 pixels wide


def suit_to_size(cfg: TrainConfig | VisualizeConfig, size: int) -> str:
    """Shift small images, as CIFAR's are, where a recipe for photographs would cut a part out and enlarge it. Returns
    what is to be said of it: nothing where the augmentation stays, as one that was typed does."""
    typed = any(key.partition(".")[0] in ("augment", "recipe", "experiment") for key in typed_keys(cfg))
    if size >= SMALL or cfg.augment.crop is not Crop.resized or typed:
        return ""
    cfg.augment = replace(cfg.augment, crop=Crop.pad, padding=size // 8)
    return (
        f"images of {size} px are small: shifted by up to {size // 8} px (crop=pad), not cut as photographs are; "
        "augment=resized_flip does that"
    )
