"""Transforms in two parts: what is done to an image once, and what is drawn and done anew whenever a net sees it.

`anew(once(item))` has the bits of the transform that it is made of, from the same random numbers, drawn in the same
order. The random numbers are drawn apart from the work, so that threads can share the work: torch's generator is one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from cnnbench.data.geometry import as_tensor, height_and_width, rescaled_size
from cnnbench.data.jpeg import Decode, Region, Scales, in_pixels, read_scales
from cnnbench.data.sources import Pair, read_bytes, read_item, read_mask
from cnnbench.data.transforms import EvalTransform, GridCrop, Transform, moved_together, whole


class Prepared(NamedTuple):
    """What is kept of an image: its pixels, or these at several scales; behind them its mask. uint8, (C, H, W) or
    (H, W)."""

    parts: list[Tensor]
    scales: Scales | None = None
    pillow: bool = False  # whether it was read as a picture of Pillow

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)


class Twofold(Protocol):
    """A transform in two parts. `shift`: what is drawn, where all that is kept has one size and whole batches can be
    shifted and mirrored; None where images are taken one by one."""

    @property
    def shift(self) -> "Shift | None": ...

    def once(self, item: Any) -> Prepared: ...

    def draw(self, kept: Prepared) -> Any: ...

    def anew(self, kept: Prepared, drawn: Any) -> Any: ...


@dataclass(frozen=True)
class Shift:
    """Shift by up to `padding` pixels and mirroring, as torchvision's RandomCrop and RandomHorizontalFlip draw them."""

    padding: int = 0
    mode: str = "constant"
    flip: bool = False

    def draw(self) -> tuple[int, int, int]:
        down, right = (int(torch.randint(0, 2 * self.padding + 1, ())) if self.padding else 0 for _ in range(2))
        return down, right, int(torch.rand(1) < 0.5) if self.flip else 0


@dataclass(frozen=True)
class Fixed:
    """A transform that draws nothing, as those of validation. square: it gives images of one size."""

    transform: Transform
    square: bool

    @property
    def shift(self) -> Shift | None:
        return Shift() if self.square else None

    def once(self, item: Any) -> Prepared:
        if isinstance(item, Pair):
            return Prepared(moved_together(self.transform, read_item(item.image), read_mask(item.mask)))
        return Prepared([self.transform(read_item(item))])

    def draw(self, kept: Prepared) -> None:
        return None

    def anew(self, kept: Prepared, drawn: None) -> Any:
        return kept.parts if len(kept.parts) > 1 else kept.parts[0]


class Pictures:
    """`sample_transform`: torchvision's steps on whole pictures, the mask of a picture moved with it."""

    def __init__(self, steps: Sequence[Any], masks: bool) -> None:
        from torchvision.transforms import v2

        self.fixed, self.steps = split(steps)
        self.shift = None if masks else shift_of(self.fixed, self.steps)
        # Pillow resizes, rotates and recolours otherwise than torch; to cut and to mirror is the same in both.
        alike = v2.RandomCrop | v2.RandomHorizontalFlip | GridCrop
        self.by_pillow = not all(isinstance(step, alike) for step in self.steps)

    def once(self, item: Any) -> Prepared:
        from torchvision import tv_tensors

        if isinstance(item, Pair):
            picture, mask = read_item(item.image), tv_tensors.Mask(read_mask(item.mask))
            for step in self.fixed:
                picture, mask = step(picture, mask)
            return Prepared([as_bytes(picture), mask.as_subclass(Tensor)], pillow=not isinstance(picture, Tensor))
        picture = read_item(item)
        for step in self.fixed:
            picture = picture if leaves(step, *height_and_width(picture)) else step(picture)
        return Prepared([as_bytes(picture)], pillow=not isinstance(picture, Tensor))

    def draw(self, kept: Prepared) -> "Drawn":
        return drawn(self.steps, *kept.parts[0].shape[1:])

    def anew(self, kept: Prepared, drawn: "Drawn") -> Any:
        from PIL import Image
        from torchvision import tv_tensors

        picture: Any = kept.parts[0]
        if self.by_pillow and kept.pillow:
            picture = Image.fromarray(picture.permute(1, 2, 0).numpy())
        moved = [picture, *(tv_tensors.Mask(mask) for mask in kept.parts[1:])]
        for step, params in drawn:
            moved = [step.transform(one, params) for one in moved]
        image, *masks = moved
        return [as_tensor(image), masks[0].as_subclass(Tensor)] if masks else as_tensor(image)


class Regions:
    """`Decode`: a crop is cut from the pixels of an item, which are kept at the scales that crops need; or, where none
    is drawn, the resized image is kept."""

    def __init__(self, decode: Decode, steps: Sequence[Any]) -> None:
        from torchvision.transforms import v2

        self.decode = decode
        self.fixed, self.steps = split(steps) if decode.crop is None else ([], list(steps))
        self.whole = replace(decode, then=v2.Compose(self.fixed) if self.fixed else v2.Identity())
        self.shift = shift_of(self.fixed, self.steps) if decode.crop is None else None

    def once(self, item: Any) -> Prepared:
        if self.decode.crop is None:
            return Prepared([self._png(item) if str(item).lower().endswith(".png") else self.whole(item)])
        scales, parts = read_scales(read_bytes(item), item, self.decode)
        return Prepared(parts, scales)

    def _png(self, item: Any) -> Tensor:
        """What the transform makes of a file that is always decoded whole: it may be small, and left as it is."""
        picture = read_item(item)
        if getattr(picture, "format", None) != "PNG":  # the name is not all there is to a file
            return self.whole(item)
        pixels = as_tensor(picture)
        height, width = pixels.shape[1:]
        same = rescaled_size(height, width, self.decode.side) == (height, width)
        if same and all(leaves(step, height, width) for step in self.fixed):
            return pixels
        return self.whole.cut(self.whole.region(height, width), pixels)

    def draw(self, kept: Prepared) -> tuple[Region | None, "Drawn"]:
        if kept.scales is None:
            return None, drawn(self.steps, *kept.parts[0].shape[1:])
        return self.decode.region(kept.scales.height, kept.scales.width), drawn(self.steps, 0, 0)

    def anew(self, kept: Prepared, drawn: tuple[Region | None, "Drawn"]) -> Tensor:
        region, steps = drawn
        image = kept.parts[0]
        if region is not None and kept.scales is not None:
            pixels = kept.parts[kept.scales.number(region)]
            image = self.whole.cut(in_pixels(region, kept.scales[:2], pixels), pixels)
        for step, params in steps:
            image = step.transform(image, params)
        return image


def in_two(transform: Any, masks: bool) -> Twofold:
    """The two parts of a transform that `SampleReader` takes."""
    if isinstance(transform, Decode):
        return Regions(transform, getattr(transform.then, "transforms", []))
    if transform is whole or isinstance(transform, EvalTransform):
        return Fixed(transform, square=transform is not whole and not masks)
    return Pictures(transform.transforms[:-1], masks)  # without the last, which makes a tensor of the picture


Drawn = list[tuple[Any, dict[str, Any]]]
"""Steps of torchvision with the parameters that were drawn for them."""


def split(steps: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The steps that draw nothing, up to the first that does; and the others."""
    from torchvision.transforms import v2

    fixed = list(takewhile(lambda step: isinstance(step, v2.Resize | v2.CenterCrop), steps))
    return fixed, list(steps[len(fixed) :])


def shift_of(fixed: Sequence[Any], steps: Sequence[Any]) -> Shift | None:
    """What is drawn, where after a central crop images are only shifted and mirrored."""
    from torchvision.transforms import v2

    if not fixed or not isinstance(fixed[-1], v2.CenterCrop):
        return None
    crop = next((step for step in steps if isinstance(step, v2.RandomCrop)), None)
    flip = any(isinstance(step, v2.RandomHorizontalFlip) for step in steps)
    if len(steps) != (crop is not None) + flip:
        return None
    padding = crop.padding[0] if crop is not None and crop.padding else 0
    return Shift(padding, crop.padding_mode if crop is not None else "constant", flip)


def drawn(steps: Sequence[Any], height: int, width: int) -> Drawn:
    """Parameters of steps for an image of this size, from torch's generator. Only the first step looks at the size."""
    from torchvision.transforms import v2

    found: Drawn = []
    shape = [torch.empty(3, height, width, device="meta")]
    for step in steps:
        if not isinstance(step, v2.RandomHorizontalFlip):
            found.append((step, step.make_params(shape)))
        elif torch.rand(1) < step.p:
            found.append((step, {}))
    return found


def leaves(step: Any, height: int, width: int) -> bool:
    """Whether a Resize or CenterCrop leaves an image of this size as it is."""
    from torchvision.transforms import v2

    after = rescaled_size(height, width, step.size[0]) if isinstance(step, v2.Resize) else tuple(step.size)
    return after == (height, width)


def as_bytes(picture: Any) -> Tensor:
    """Pixels (C, H, W) of a picture, the channels of a pixel side by side in memory as Pillow has them."""
    return picture if isinstance(picture, Tensor) else torch.from_numpy(np.array(picture)).permute(2, 0, 1)
