"""What is refused before the first step: images that are too small, or whose pixels would be changed."""

from collections.abc import Sequence

from cnnbench.config.sections import AugmentConfig, Crop, Policy
from cnnbench.data import Arrays, Dataset, Source
from cnnbench.data.photographs import Photographs, check_side, size_of
from cnnbench.tasks.super_resolution.metrics import WINDOW
from cnnbench.utils.errors import UserError


def check(dataset: Dataset, scale: int, side: int, augment: AugmentConfig | None) -> None:
    """UserError where nets cannot be trained on these images, or judged by them. side: of a training image."""
    if dataset.split == "all":
        raise UserError(
            f"data={dataset.name} found nothing to validate on: data.root has no folders train and val.\n"
            "Set data.val_fraction=0.1 to hold out a tenth of the images."
        )
    if side % scale:
        raise UserError(f"data.image_size={side} is not a multiple of model.scale={scale}")
    crop = augment.crop if augment else None
    if augment and augment.color and dataset.grid > 1:
        raise UserError(
            f"augment.color={augment.color:g} would colour an image otherwise than its small one of data.lr"
        )
    if augment and (augment.rotate or augment.blur or augment.policy is not Policy.none):
        raise UserError("augment.rotate, blur and policy change the pixels that are to be found: use augment=turn_flip")
    if isinstance(dataset.train, Arrays):
        check_arrays(dataset.train, side, crop)
    else:
        check_files(dataset.train, side, crop)
    check_validation(dataset.val, scale)


def check_arrays(source: Arrays, side: int, crop: Crop | None) -> None:
    height, width = source.images.shape[2:]
    if crop not in (Crop.none, Crop.patch):
        raise UserError(
            f"augment.crop={crop.value if crop else None} changes the pixels that are to be found: "
            "use augment=turn_flip, or augment.crop=none or patch"
        )
    if crop is Crop.none and (height, width) != (side, side):
        raise UserError(
            f"images are trained on at their own size, {width} x {height} pixels, not {side}: "
            f"set data.image_size={min(height, width)}"
        )


def check_files(source: Source, side: int, crop: Crop | None) -> None:
    if crop is not Crop.patch:
        raise UserError(
            "images are trained on at their own size: set augment=patch_turn for squares cut at random, or "
            "data.stride=14 augment=turn_flip for all squares on a grid, in memory"
        )
    assert isinstance(source, Photographs)
    for path in source.paths:
        check_side(path, size_of(path), side)


def check_validation(source: Source, scale: int) -> None:
    least = WINDOW + 2 * scale
    for path, size in sizes(source):
        if min(size) < least + scale - 1:
            raise UserError(
                f"{path} has {size[1]} x {size[0]} pixels: to be judged at scale {scale} it needs {least + scale - 1}"
            )


def sizes(source: Source) -> list[tuple[str, Sequence[int]]]:
    """Name, and height and width, of each image; of images in memory, which have one size, of the first."""
    if isinstance(source, Arrays):
        return [("image 0", source.images.shape[2:])]
    return [(f"'{path}'", size_of(path)) for path in source.paths] if isinstance(source, Photographs) else []
