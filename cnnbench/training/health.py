"""Checks for numbers that go wrong in silence while a net trains."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cnnbench.analysis.complexity import layer_complexity
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.layers import Net
from cnnbench.runtime.device import Runtime
from cnnbench.utils.console import warn_if_unwritable
from cnnbench.utils.files import write_text
from cnnbench.utils.format import are, plural

IN_A_ROW = 20  # steps: fp16 needs up to some ten at its start to find its scale
BEYOND = 10  # times the loss of guessing: a net that is merely wrong stays below
SAME_SIZE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Counts(NamedTuple):
    """Steps that a guard has counted."""

    skipped: int  # in all
    in_a_row: int  # skipped one after the other, up to now
    first: int  # of these; the next step, where there are none
    still: int  # one after the other, up to now, with a gradient of exactly zero


class Guard:
    """Undoes what a skipped step left in the net, and counts such steps, on the device: nobody waits for the counts."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        # BatchNorm's running statistics: one forward pass that is not finite would spoil them for good. As integers,
        # so that they can be kept or taken back by a factor of 1 or 0; not a number times 0 is not a number.
        floats = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self.buffers = [buffer.view(SAME_SIZE[buffer.element_size()]) for buffer in floats]
        self.kept = [buffer.clone() for buffer in self.buffers]
        self.counts = torch.zeros(4, dtype=torch.int64, device=device)
        self.skipped, self.in_a_row, self.still, self.step = self.counts

    def after_step(self, norm: Tensor) -> None:
        """norm: what `Runtime.step()` returned."""
        finite = norm < math.inf  # a norm is not negative; nothing is less for what is not a number
        skipped = ~finite
        if self.kept:
            change = torch._foreach_sub(self.buffers, self.kept)
            torch._foreach_mul_(change, finite.int())
            torch._foreach_add_(self.kept, change)
            torch._foreach_copy_(self.buffers, self.kept)
        self.skipped += skipped
        self.counts[1:] += 1
        self.in_a_row *= skipped
        self.still *= norm == 0

    def take_back(self) -> None:
        """Restore the buffers before a step is done again."""
        if self.kept:
            torch._foreach_copy_(self.buffers, self.kept)

    def look(self) -> Counts:
        """Waits for the device."""
        skipped, in_a_row, still, step = self.counts.tolist()
        return Counts(skipped, in_a_row, step - in_a_row, still)

    def restart(self, skipped: int, step: int) -> None:
        """After weights have been loaded. skipped, step: steps skipped and done so far."""
        if self.kept:
            torch._foreach_copy_(self.kept, self.buffers)
        self.counts.zero_()
        self.skipped.fill_(skipped)
        self.step.fill_(step)


class OutputRange:
    """A net as it is called that notices between which values each of its first `count` output channels lies; of a net
    that gives its loss beside its answer, nothing."""

    def __init__(self, net: Callable[..., Any], count: int) -> None:
        self.net, self.count = net, count
        self.low: Tensor | None = None
        self.high: Tensor | None = None
        self.images = 0

    def __call__(self, images: Tensor, *targets: Any) -> Any:
        outputs = self.net(images, *targets)
        if targets:
            return outputs
        self.images += len(images)
        others = [dim for dim in range(outputs.ndim) if dim != 1]
        low, high = outputs.amin(others)[: self.count], outputs.amax(others)[: self.count]
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)
        return outputs

    def all_reduce(self, runtime: Runtime) -> None:
        """Range over the images of all processes, some of which may have had none."""
        if runtime.group.alone:
            return
        if self.low is None or self.high is None:
            self.low, self.high = (
                torch.full((self.count,), end, device=runtime.device) for end in (math.inf, -math.inf)
            )
        self.low, self.high = self.low.float(), self.high.float()
        runtime.group.all_reduce_min_max(self.low, self.high)
        self.images = int(runtime.group.all_reduce_numbers(self.images)[0])

    def dead(self) -> list[int]:
        """The outputs that were the same for every image: where a ReLU comes before them, it may never wake again."""
        if self.low is None or self.high is None or self.images < 2:
            return []
        return (self.low == self.high).nonzero().flatten().tolist()


def stopped_by(counts: Counts, epoch: int, batch: int, lr: float, images: list[str], folder: Path) -> str:
    """Why a training stops at so many skipped steps, with the images of the batch at which it began; all of them go
    into a file."""
    file = folder / "bad_batch.txt"
    with warn_if_unwritable(file.name):
        write_text(file, "".join(f"{name}\n" for name in images))
    return (
        f"the loss is not finite: {plural(counts.in_a_row, 'step')} in a row, from step {counts.first + 1} on "
        f"(epoch {epoch}, batch {batch}), at lr {lr:.3g}\n"
        f"that batch: {', '.join(images[:3])}{' …' if len(images) > 3 else ''} (all in {file})\n"
        "try a lower lr, optim.clip=1 or precision=fp32; the last checkpoint is as it was"
    )


def smaller_parts(parts: int, batch_size: int, model: nn.Module) -> str:
    """Warning that a batch did not fit into memory, and was split."""
    part = -(-batch_size // parts)
    normed = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    but = f", but BatchNorm now sees {plural(part, 'image')} at a time" if normed else ""
    return (
        f"out of memory: each batch of {batch_size} is taken in {parts} parts of {plural(part, 'image')} from here on, "
        f"as with accumulate={parts}; the steps are the same{but}"
    )


def dead_outputs(dead: list[int], spec: ModelSpec) -> str:
    """Sentence about outputs that do not depend on the image; empty where there are none."""
    if not dead or (spec.embeds and len(dead) < spec.answers):  # a feature that these images lack is no harm
        return ""
    said = [spec.labels[index] if spec.labels else f"channel {index}" for index in dead[:5]]
    names = ", ".join(said) + (", …" if len(dead) > 5 else "")
    which = (
        "every output is"
        if len(dead) == spec.answers
        else f"{len(dead)} of {spec.outputs} outputs ({names}) {are(len(dead))}"
    )
    return (
        f"{which} the same for every image: dead, as after a ReLU that gives 0 to all; try a lower lr or another seed"
    )


def divergence(rows: list[dict[str, Any]], guessing: float | None) -> str:
    """Sentence where the last epoch's training loss is far above what it was and above that of guessing (where that is
    not known: above that of the first epoch), or its validation loss is beyond all that a net would say."""
    *before, last = [row["loss/train"] for row in rows]
    if before and last > 2 * min(before) and last > 1.5 * (before[0] if guessing is None else guessing):
        return (
            f"the training loss rose from {min(before):.3g} to {last:.3g}: it diverges; try a lower lr or optim.clip=1"
        )
    *earlier, now = [row["loss/val"] for row in rows]
    usual = min(earlier, default=now) if guessing is None else guessing
    if now > BEYOND * usual:
        than = "of the best epoch" if guessing is None else "of guessing"
        return (
            f"the validation loss is {now:.3g} after epoch {rows[-1]['epoch']}, far beyond the {usual:.3g} {than}: the "
            "training diverged; try a lower lr or optim.clip=1"
        )
    return ""


def wrong_gradients(model: Net, image_size: int, in_channels: int) -> list[str]:
    """A sentence where the net trains filters that a `Runtime.spoils_wide_filters` would spoil."""
    wide = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and min(module.kernel_size) >= 5 and module.weight.requires_grad
    ]
    if not wide:
        return []
    shapes = {row.name: row.input_shape[1:] for row in layer_complexity(model, image_size, in_channels)}
    return [
        f"in bf16 the gradient of {name}, wide filters over maps of one pixel, is wrong here (a fault of oneDNN): give "
        "precision=fp32, or larger images"
        for name in wide
        if shapes.get(name) == (1, 1)
    ][:1]
