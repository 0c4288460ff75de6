"""torch.compile: which calls of a net run compiled, and where the compiler keeps its results."""

import logging
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def compile_if(model: nn.Module, enabled: bool) -> Callable[..., Any]:
    """The net as it is called without training: compiled where asked for."""
    return torch.compile(model) if enabled else model


class Compiled:
    """How a net is called that is compiled for training on batches of `size` images, taken in `parts`.

    Every other number of images would be compiled anew, and evaluation too, which takes longer than most trainings win
    by it: there the plain module runs. Weights are always its own.
    """

    def __init__(self, model: nn.Module, size: int, parts: int) -> None:
        self.model, self.size, self.parts = model, size, parts
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns that there is no GPU
        self.fast = torch.compile(model, dynamic=False)

    def __call__(self, images: Tensor) -> Any:
        fits = self.model.training and len(images) == -(-self.size // self.parts)
        return (self.fast if fits else self.model)(images)


def set_compiler_cache(folder: str | None) -> str | None:
    """Where the compiler keeps its results; forgets those that it has in memory. Returns the folder before."""
    torch.compiler.reset()
    before = os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)
    if folder is not None:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    return before
