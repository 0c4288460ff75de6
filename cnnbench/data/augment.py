"""Augmentation of whole batches as the configuration has it."""

from dataclasses import replace
from functools import partial

from torch import Tensor

from cnnbench.config.sections import AugmentConfig, Crop, Interpolation, Resize
from cnnbench.data.batched import BatchTransform, Erase
from cnnbench.data.geometry import rescaled
from cnnbench.data.mixing import Mixing
from cnnbench.data.sources import Arrays, Dataset, has_spatial_targets
from cnnbench.data.spec_augment import Warp
from cnnbench.data.transforms import EvalTransform, Transform, policy_of
from cnnbench.data.windows import ResizedCrop
from cnnbench.utils.errors import UserError

NO_MIXING = "augment.mixup and cutmix are for task=classification, not for {task}: leave them out"
MASKS = "nearest"  # interpolation of masks: class numbers cannot be averaged


def batchable(augment: AugmentConfig, dataset: Dataset) -> bool:
    return augment.crop is not Crop.resized or dataset.interpolation == Interpolation.bilinear.value


def batch_transform(
    source: Arrays, augment: AugmentConfig, size: int, dataset: Dataset, fill: Tensor
) -> BatchTransform:
    resized, nearest = augment.crop in (Crop.resized, Crop.patch), replace(dataset, interpolation=MASKS)
    return BatchTransform(
        size=size,
        padding=augment.padding if augment.crop is Crop.pad else 0,
        padding_mode=augment.padding_mode.value,
        room=_room(source, augment.crop, size, dataset.crop_ratio),
        flip=augment.flip,
        alternate=augment.alternate,
        flip_vertical=augment.flip_vertical,
        turn=augment.turn,
        rotate=augment.rotate,
        crop=ResizedCrop(scale=_two(augment.scale), ratio=_two(augment.ratio))
        if augment.crop is Crop.resized
        else None,
        resize=None if resized else array_resize(source, size, dataset, cut=augment.crop is not Crop.random),
        resize_mask=None if resized else array_resize(source, size, nearest, cut=augment.crop is not Crop.random),
        color=augment.color,
        blur=augment.blur,
        policy=policy_of(augment),
        cutout=augment.cutout,
        erase=erase_of(augment),
        fill=fill,
        warp=warp_of(augment),
    )


def erase_of(augment: AugmentConfig) -> Erase | None:
    part = ResizedCrop(scale=_two(augment.erase_scale), ratio=_two(augment.erase_ratio))
    return Erase(probability=augment.erase, part=part) if augment.erase else None


def warp_of(augment: AugmentConfig) -> Warp | None:
    names = "time_shift", "pitch_shift", "time_stretch", "pitch_stretch", "level", "time_mask", "frequency_mask"
    parts = {name: getattr(augment, name) for name in names}
    return Warp(**parts, masks=augment.masks) if any(parts.values()) else None


def _room(source: Arrays, crop: Crop, size: int, ratio: float) -> tuple[int, int]:
    """Rows and columns by which images are larger than their random crop. UserError where they are smaller."""
    if crop is Crop.random:
        return (round(size / ratio) - size,) * 2
    if crop is not Crop.patch:
        return 0, 0
    height, width = source.images.shape[2:]
    if min(height, width) < size:
        raise UserError(
            f"augment.crop=patch cuts squares of {size} pixels, but the images have {width} x {height}: "
            f"set data.image_size={min(height, width)} or less"
        )
    return height - size, width - size


def _two(values: list[float]) -> tuple[float, float]:
    low, high = values
    return low, high


def array_resize(source: Arrays, size: int, dataset: Dataset, *, cut: bool = True) -> Transform | None:
    """Resize to size / crop_ratio, and with `cut` crop the centre; None where nothing changes."""
    side = round(size / dataset.crop_ratio)
    if not cut:
        return partial(rescaled, side=side, resize=Resize.shorter, interpolation=dataset.interpolation)
    if source.images.shape[2:] == (size, size) and side == size:
        return None
    return EvalTransform(size, dataset.crop_ratio, dataset.interpolation)


def mixing_of(augment: AugmentConfig, dataset: Dataset) -> Mixing | None:
    """How images are mixed; None where they are not. UserError where they have no classes to be mixed with them."""
    if not augment.mixup and not augment.cutmix:
        return None
    if has_spatial_targets(dataset.train) or dataset.pair is not None:
        raise UserError(NO_MIXING.format(task=dataset.task))
    return Mixing(mixup=augment.mixup, cutmix=augment.cutmix)
