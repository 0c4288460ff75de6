"""Plain nets of 8 and 14 layers: n = 1 and 2 of the CIFAR family of resnet.py, ours, for quick runs."""

from collections.abc import Callable
from functools import partial

from cnnbench.models.layers import Net
from cnnbench.models.resnet import cifar_plain

MODELS: dict[str, Callable[..., Net]] = {"plain8": partial(cifar_plain, 1), "plain14": partial(cifar_plain, 2)}
