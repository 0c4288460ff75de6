"""Stochastic depth. Huang, Sun, Liu, Sedra and Weinberger, "Deep Networks with Stochastic Depth", 2016.

In training a block adds its residual to an image with a probability that falls linearly with depth (section 3); else
the image passes by the shortcut alone.

Not as in the paper: each image is drawn for, not the batch; and what is kept is enlarged in training, so that
evaluation needs no factor. Both as torchvision's StochasticDepth in mode "row".
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """Base of blocks that add to their input, or to its shortcut."""

    left_out: float = 0.0  # probability that an image passes by the shortcut alone

    @property
    def has_shortcut(self) -> bool:
        return True

    def drawn(self, residual: Tensor) -> Tensor:
        """Residual (N, C, H, W) as it is added: in training 0 for some images."""
        if not self.left_out or not self.training:
            return residual
        kept = torch.rand(len(residual), 1, 1, 1, device=residual.device) >= self.left_out
        return residual * (kept / (1 - self.left_out)).to(residual.dtype)


def blocks(net: nn.Module) -> Iterator[Residual]:
    """The blocks that may be left out, in their order."""
    return (module for module in net.modules() if isinstance(module, Residual) and module.has_shortcut)


def leave_out(net: nn.Module, last: float) -> int:
    """Leave out the residual of block l of L with the probability l / L * last. Returns L."""
    found = list(blocks(net))
    for number, block in enumerate(found, start=1):
        block.left_out = last * number / len(found)
    return len(found)
