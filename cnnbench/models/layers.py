"""What the nets share: the promise each one keeps, layers without torch's initialisation, a run without numbers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.func import functional_call


class Net(nn.Module):
    """A plain module that maps images (N, in_channels, H, W) to logits (N, num_classes), and knows two more things."""

    name = "this net"  # its key in MODELS, once build() made it
    image_size: int  # native side of the images, pixels

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        """The net's parts in forward order, from `stem` to `head`: together every parameter, each exactly once.

        The output of a stage is that of its last module. The layer that gives the logits is in `head`.
        """
        raise NotImplementedError


class Conv2d(nn.Conv2d):
    """nn.Conv2d without torch's own initialisation: each net draws its weights once, as its paper says."""

    def reset_parameters(self) -> None:
        pass


class Linear(nn.Linear):
    """nn.Linear without torch's own initialisation: each net draws its weights once, as its paper says."""

    def reset_parameters(self) -> None:
        pass


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; after it, each module is in the mode that it had (frozen parts may differ)."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def run_on_meta(model: nn.Module, image_size: int, in_channels: int | None = None) -> None:
    """One image through the net in eval mode, with shapes only: neither memory nor arithmetic, whatever its device.

    Forward hooks fire as usual. A RuntimeError says that the net cannot take images of this size.
    """
    if in_channels is None:
        in_channels = next(module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d))
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    image = torch.empty(1, in_channels, image_size, image_size, device="meta", dtype=next(model.parameters()).dtype)
    with evaluating(model):
        functional_call(model, shapes, (image,))
