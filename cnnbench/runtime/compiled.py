"""torch.compile: which calls of a net run compiled, and where the compiler keeps its results."""

import logging
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def compile_if(model: nn.Module, enabled: bool) -> Callable[..., Any]:
    """Net for evaluation, compiled where `enabled`."""
    return torch.compile(model) if enabled else model


class Compiled:
    """Net compiled for training on batches of `size` images, in `parts` microbatches.

    Each other batch size, and evaluation, would compile again, which takes longer than most trainings gain: there the
    plain module runs. Both share their weights.
    """

    def __init__(self, model: nn.Module, size: int, parts: int) -> None:
        self.model, self.size, self.parts = model, size, parts
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns where there is no GPU
        self.fast = torch.compile(model, dynamic=False)

    def __call__(self, images: Tensor) -> Any:
        fits = self.model.training and len(images) == -(-self.size // self.parts)
        return (self.fast if fits else self.model)(images)


def set_compiler_cache(folder: str | None) -> str | None:
    """Set the folder of the compiler's cache, and forget results in memory. Returns the folder before."""
    torch.compiler.reset()
    before = os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)
    if folder is not None:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    return before
