"""Transforms from an image of any size to the net's uint8 input.

Normalisation follows on the device: uint8 has a quarter of the bytes to copy there. torchvision is imported only where
it is needed: images in memory at their own size do not need it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cnnbench.config.sections import AugmentConfig, Crop, Policy, Resize
from cnnbench.data.boxes import BoxTransform
from cnnbench.data.geometry import as_tensor, centre, rescaled
from cnnbench.data.jpeg import Decode
from cnnbench.data.operations import least_sigma, reach_of
from cnnbench.data.policies import RandomOperations
from cnnbench.data.sources import IGNORE
from cnnbench.utils.errors import UserError
from cnnbench.utils.fast_start import import_transforms

Transform = Callable[[Any], Tensor]
"""Pillow image or uint8 tensor (C, H, W) -> uint8 tensor (C, S, S)."""


@dataclass(frozen=True)
class EvalTransform:
    """Resize the shorter side to size / crop_ratio and crop the centre, as in the evaluation of torchvision's weights.

    Takes batches of tensors (N, C, H, W) too.
    """

    size: int
    crop_ratio: float
    interpolation: str = "bilinear"

    def __call__(self, picture: Any) -> Tensor:
        scaled = rescaled(picture, round(self.size / self.crop_ratio), Resize.shorter, self.interpolation)
        return as_tensor(centre(scaled, self.size))


def whole(picture: Any) -> Tensor:
    """Image uint8 (C, H, W) at its own size."""
    return as_tensor(picture)


def moved_together(transform: Any, picture: Any, mask: Tensor) -> list[Tensor]:
    """Image and mask uint8 (H, W) after the same transform: same crop, flip and size. The mask is resized with
    nearest-neighbour interpolation. A `BoxTransform` moves the image with a table of boxes in place of a mask."""
    if isinstance(transform, BoxTransform):
        return transform(picture, mask)
    if transform is whole:
        return [whole(picture), mask]
    if isinstance(transform, EvalTransform):
        return [transform(picture), replace(transform, interpolation="nearest")(mask[None])[0]]
    import_transforms()
    from torchvision import tv_tensors  # a plain tensor would not be transformed with the image

    image, moved = transform(picture, tv_tensors.Mask(mask))
    return [image, moved.as_subclass(Tensor)]


@dataclass(frozen=True)
class GridCrop:
    """A random square of an image (C, H, W) that begins at multiples of `grid` pixels: where a small image lies behind
    a large one, in blocks of that side, both have the same part."""

    side: int
    grid: int

    def __call__(self, pixels: Tensor) -> Tensor:
        return self.transform(pixels, self.make_params([pixels]))

    def make_params(self, images: list[Tensor]) -> dict[str, int]:
        """Place of a square, drawn from torch's generator; named as by torchvision's transforms."""
        places = [int(torch.randint((length - self.side) // self.grid + 1, ())) for length in images[0].shape[1:]]
        return {side: self.grid * place for side, place in zip(("top", "left"), places, strict=True)}

    def transform(self, pixels: Tensor, params: dict[str, int]) -> Tensor:
        top, left = params["top"], params["left"]
        return pixels[:, top : top + self.side, left : left + self.side]


def sample_transform(augment: AugmentConfig, size: int, crop_ratio: float, native: int | None = None,
                     interpolation: str = "bilinear", grid: int = 1) -> Transform:  # fmt: skip
    """Random training transform of single images: everything but cutout and alternating flips.

    Draws from torch's generator. native: common side of all images, at which crop=pad pads; where it is None, images
    are resized to `size` first. grid: see `Dataset`.
    """
    import_transforms()
    from torchvision.transforms import v2

    steps = _steps(augment, size, crop_ratio, native, interpolation)
    if grid > 1 and augment.crop is Crop.patch:
        steps[0] = GridCrop(size, grid)
    transform: Transform = v2.Compose([*steps, v2.PILToTensor()])
    return transform


def decode_transform(augment: AugmentConfig, size: int, crop_ratio: float, interpolation: str) -> Decode:
    """`sample_transform` for items that are not decoded yet, with the same random numbers: decodes only the crop."""
    import_transforms()
    from torchvision.transforms import v2

    first, *steps = _steps(augment, size, crop_ratio, None, interpolation)
    crop = first if augment.crop is Crop.resized else None
    return Decode(first.size[0], crop, v2.Compose(steps) if steps else v2.Identity(), interpolation)


def _steps(augment: AugmentConfig, size: int, crop_ratio: float, native: int | None, interpolation: str) -> list[Any]:
    """Transforms of torchvision, for Pillow images or tensors. The first resizes, unless images have one size."""
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    check_augment(augment, size, crop_ratio, native)
    mode = v2.InterpolationMode(interpolation)
    resize = v2.Resize(round(size / crop_ratio), mode)
    steps: list[Any]
    if augment.crop is Crop.none:
        steps = [resize, v2.CenterCrop(size)]
    elif augment.crop is Crop.pad:
        crop = v2.RandomCrop(native or size, padding=augment.padding, padding_mode=augment.padding_mode.value,
                             fill={tv_tensors.Mask: IGNORE, "others": 0})  # fmt: skip
        steps = [crop, resize, v2.CenterCrop(size)] if native else [v2.Resize(size, mode), v2.CenterCrop(size), crop]
    elif augment.crop is Crop.random:
        steps = [resize, v2.RandomCrop(size)]
    elif augment.crop is Crop.patch:
        steps = [v2.RandomCrop(size, pad_if_needed=True, fill={tv_tensors.Mask: IGNORE, "others": 0})]
    else:
        steps = [v2.RandomResizedCrop(size, scale=augment.scale, ratio=augment.ratio, interpolation=mode)]
    if augment.flip and not augment.alternate:
        steps.append(v2.RandomHorizontalFlip())
    return [*steps, *_changes(augment, size)]


def _changes(augment: AugmentConfig, size: int) -> Iterator[Any]:
    """Transforms after the crop."""
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    if augment.rotate > 0:
        outside = {tv_tensors.Mask: IGNORE, "others": None}
        yield v2.RandomRotation(augment.rotate, v2.InterpolationMode.BILINEAR, fill=outside)
    if augment.color > 0:
        yield v2.ColorJitter(augment.color, augment.color, augment.color)
    if augment.blur > 0:
        yield v2.GaussianBlur(2 * reach_of(augment.blur) + 1, (least_sigma(augment.blur), augment.blur))
    if policy := policy_of(augment):
        yield policy


def policy_of(augment: AugmentConfig) -> RandomOperations | None:
    """Operations drawn for each image; None where there are none."""
    if augment.policy is Policy.none:
        return None
    return RandomOperations(policy=augment.policy, learnt_on=augment.learnt_on, operations=augment.operations,
                            magnitude=augment.magnitude)  # fmt: skip


def check_augment(augment: AugmentConfig, size: int, crop_ratio: float, native: int | None = None) -> None:
    """UserError for settings that would blank the images or have no effect."""
    for key in ("scale", "ratio", "erase_scale", "erase_ratio"):
        values = getattr(augment, key)
        if len(values) != 2 or values[0] > values[1]:
            raise UserError(f"augment.{key} must be two numbers, the smaller first, not {list(values)}.")
    if augment.crop is Crop.iou or augment.zoom_out > 1:
        raise UserError("augment.crop=iou and augment.zoom_out are for images with boxes")
    if augment.crop is Crop.pad and augment.padding >= (native or size):
        raise UserError(f"augment.padding={augment.padding} must be less than the images' side, {native or size}.")
    if augment.crop is Crop.random and round(size / crop_ratio) == size:
        raise UserError(
            f"augment.crop=random has no room: data.crop_ratio={crop_ratio:g} resizes images to the crop's own size.\n"
            "Set data.crop_ratio=0.875, or use augment.crop=pad."
        )
    if augment.alternate and not augment.flip:
        raise UserError("augment.alternate=true needs augment.flip=true.")
    if augment.cutout >= size:
        raise UserError(f"augment.cutout={augment.cutout} covers the whole image of {size} pixels.")
    if augment.erase and augment.erase_scale[1] == 1:
        raise UserError("augment.erase_scale=[…,1] erases whole images: give less than 1, as 0.33.")
    if reach_of(augment.blur) >= size:
        raise UserError(f"augment.blur={augment.blur:g} leaves nothing of images of {size} pixels: give {size / 8:g}.")
