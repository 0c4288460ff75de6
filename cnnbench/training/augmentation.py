"""Augmentation in words, none of it, and one that suits the size of the images."""

from collections.abc import Iterator
from dataclasses import fields, replace

from cnnbench.config.arguments import typed_keys
from cnnbench.config.commands import TrainConfig, VisualizeConfig
from cnnbench.config.sections import AugmentConfig, Crop, Policy

SMALL = 64  # pixels: below, a part of 8 % of the area is less than 18 pixels wide
NONE = AugmentConfig(crop=Crop.none, padding=0, scale=[0.08, 1.0], ratio=[0.75, 4 / 3], flip=False, color=0.0, cutout=0)
WITHIN = {  # keys that matter with a value of another one
    "padding": ("crop", Crop.pad),
    "operations": ("policy", Policy.rand),
    "magnitude": ("policy", Policy.rand),
    "learnt_on": ("policy", Policy.auto),
}
UNTOLD = {"padding_mode", "scale", "ratio", "erase_scale", "erase_ratio", "masks"}  # ranges and kinds of what is told


def active(augment: AugmentConfig) -> list[str]:
    """What is done to the images, by the keys of the configuration; empty where every epoch sees the same pixels."""
    found = []
    for name in (field.name for field in fields(augment) if field.name not in UNTOLD):
        value, (other, wanted) = getattr(augment, name), WITHIN.get(name, (name, None))
        if getattr(augment, other) == wanted if wanted else value != getattr(NONE, name):
            found.append(name if value is True else f"{name}={getattr(value, 'value', value)}")
    return found


def suit_to_size(cfg: TrainConfig | VisualizeConfig, size: int) -> str:
    """Shift small images, as CIFAR's are, where a recipe for photographs, or crop=auto, would cut a part out and
    enlarge it. Returns what is to be said of it: nothing where the augmentation stays, as one that was typed does."""
    typed = any(key.partition(".")[0] in ("augment", "recipe", "experiment") for key in typed_keys(cfg))
    chosen, cfg.augment = cfg.augment.crop, suited(cfg.augment, size)
    if chosen is Crop.auto:
        shift = f"shifted by up to {cfg.augment.padding} px" if size < SMALL else "cut at random areas and shapes"
        return f"crop=auto: images of {size} px are {shift} (crop={cfg.augment.crop.value})"
    if size >= SMALL or chosen is not Crop.resized or typed:
        return ""
    cfg.augment = shifted(cfg.augment, size)
    return (
        f"images of {size} px are small: shifted by up to {size // 8} px (crop=pad), not cut as photographs are; "
        "augment=resized_flip does that"
    )


def suited(augment: AugmentConfig, size: int) -> AugmentConfig:
    """The augmentation with what crop=auto stands for at this size."""
    if augment.crop is not Crop.auto:
        return augment
    return shifted(augment, size) if size < SMALL else replace(augment, crop=Crop.resized)


def shifted(augment: AugmentConfig, size: int) -> AugmentConfig:
    """The augmentation with a shift by up to an eighth of the side in place of its crop."""
    return replace(augment, crop=Crop.pad, padding=size // 8)


def idle(augment: AugmentConfig, size: int) -> Iterator[tuple[str, str]]:
    """Settings that have no effect, each with advice."""
    if augment.crop is Crop.pad and augment.padding == 0:
        yield "crop=pad with a padding of 0 shifts nothing", "augment.padding=4, or augment.crop=none"
    if augment.crop is not Crop.pad and augment.padding:
        yield f"padding={augment.padding} has no effect without crop=pad", "augment.crop=pad"
    if augment.crop is Crop.resized and augment.scale == [1.0, 1.0]:
        yield "crop=resized with scale=[1,1] keeps the whole area", "augment.scale=[0.08,1]"
    if augment.cutout >= size:
        yield f"cutout={augment.cutout} covers the whole image of {size} px", f"augment.cutout={size // 2}"
