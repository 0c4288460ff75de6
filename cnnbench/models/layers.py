"""Base class of all nets, layers without torch's initialisation, and a forward pass of shapes alone."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from cnnbench.models.meta_kernels import Shapes

CLASS, MASK, BOXES = "a class for each image", "a class for each pixel", "boxes with a class each"


class Net(nn.Module):
    """Module that maps images (N, in_channels, H, W) to logits (N, num_classes), with facts about itself.

    `answers` says in words what it answers with, by which a task knows the nets that suit it: CLASS; or MASK, where the
    logits are (N, num_classes, H, W).

    In training a net with auxiliary heads returns the plain tuple (logits, *auxiliary logits); every net returns its
    logits alone in eval mode.
    """

    name = "this net"  # its key in MODELS, set by build()
    answers = CLASS
    image_size: int  # native side of the images, pixels
    scale = 1  # side of an image of the data over that of what the net is given of it
    needs_targets = False  # whether it computes its loss itself: of images and targets it gives (answer, losses (N,))
    any_size = False  # whether images keep the data's own size, unless data.image_size says otherwise
    aux_weight = 0.0  # weight of each auxiliary loss
    image_channels: int | None = None  # of its images; None: those of its first convolution
    map_dims = (2, 3)  # dimensions of rows and columns in its feature maps
    aux_image_size = 0  # on smaller images the auxiliary heads are skipped: their maps would be too small

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        """Stages in forward order, from `stem` to `head`. Each parameter belongs to exactly one stage.

        The output of a stage is the output of its last module. The layer that gives the logits is in `head`.
        """
        raise NotImplementedError

    @property
    def backbone_names(self) -> dict[str, str]:
        """Of a net that is built on a classifier: beginnings of the names that the classifier's own weights have, and
        what they are called here. Its other weights, those of its head, are not used."""
        return {}

    @property
    def inner(self) -> str:
        """What all of its names begin with, where it only puts others' names behind a dot; empty for most nets."""
        return ""

    @property
    def auxiliary(self) -> dict[str, nn.Module]:
        """Auxiliary heads by name, which only training uses. They belong to the stage `head` too."""
        return {}

    @property
    def scoring(self) -> nn.Linear | nn.Conv2d | None:
        """Layer that gives the logits, where it is not the last one of the head."""
        return None

    @property
    def class_layers(self) -> list[nn.Module]:
        """Parts of the head that other classes need anew: all of it, unless a net says otherwise."""
        return self.stages["head"]

    def outputs_of(self, rows: int) -> int:
        """How many outputs it means that the weight of the layer that gives the logits has so many rows."""
        return rows

    def fit_to(self, batches: Iterable[Tensor]) -> None:
        """Compute fixed weights from training images, normalised (N, in_channels, H, W) each. Most nets have none."""

    def dense(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes, h, w) at each position of whole images of any size (N, in_channels, H, W).

        A net that pools all of its last map does so here too: it has one place. Where linear layers look at a map of a
        fixed size they are convolutions here (Simonyan and Zisserman, 2014, section 3.2); for images of the native size
        there is one place then, with the ordinary logits.
        """
        logits: Tensor = self(x)
        return logits[..., None, None]


class Dense(nn.Module):
    """Net applied to whole images, with logits averaged over all positions: (N, C, H, W) -> (N, num_classes)."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.dense(x).mean(dim=(2, 3))


def convolved(x: Tensor, classifier: Iterable[nn.Module], side: int) -> Tensor:
    """Logits (N, classes, h, w) of a classifier for maps of side x side, applied to a larger map x (N, C, H, W)."""
    for layer in classifier:
        if isinstance(layer, nn.Linear):
            weight = layer.weight.unflatten(1, (-1, side, side))
            x, side = F.conv2d(x, weight, layer.bias), 1
        else:
            x = layer(x)
    return x


def output_layer(net: Net) -> nn.Linear | nn.Conv2d:
    """Layer that gives the logits: `scoring`, else the last linear layer or convolution of the head, without auxiliary
    heads; of a net whose head has none, the last one of the net."""
    if net.scoring is not None:
        return net.scoring
    auxiliary = list(net.auxiliary.values())
    parts = [part for part in net.stages["head"] if not any(part is head for head in auxiliary)]
    layers = [layer for part in parts for layer in part.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return (layers or [layer for layer in net.modules() if isinstance(layer, nn.Linear | nn.Conv2d)])[-1]


class Conv2d(nn.Conv2d):
    """nn.Conv2d without torch's own initialisation: each net draws its weights once, as its paper says."""

    def reset_parameters(self) -> None:
        pass


class Linear(nn.Linear):
    """nn.Linear without torch's own initialisation: each net draws its weights once, as its paper says."""

    def reset_parameters(self) -> None:
        pass


class ConvUnit(nn.Module):
    """Convolution, BatchNorm unless `bn` is false, ReLU: the unit of the Inception nets, named as in torchvision.

    The convolution has biases only without BatchNorm, which would cancel them; `bias` overrides this.
    """

    def __init__(self, in_channels: int, channels: int, kernel: int | tuple[int, int], stride: int = 1,
                 padding: int | tuple[int, int] = 0, *, bn: bool = True, bias: bool | None = None) -> None:  # fmt: skip
        super().__init__()
        bias = not bn if bias is None else bias
        self.conv: nn.Module = Conv2d(in_channels, channels, kernel, stride, padding, bias=bias)
        self.bn = nn.BatchNorm2d(channels, eps=1e-3) if bn else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        activation: Tensor = self.relu(self.bn(self.conv(x)))
        return activation


def separate(unit: ConvUnit) -> ConvUnit:
    """Unit with a separable convolution: 8 filters for each input channel, then a 1x1 convolution."""
    conv = unit.conv
    assert isinstance(conv, Conv2d) and not isinstance(conv.padding, str)
    channels, inner = conv.in_channels, 8 * conv.in_channels
    unit.conv = nn.Sequential(
        Conv2d(channels, inner, conv.kernel_size, conv.stride, conv.padding, groups=channels, bias=False),  # type: ignore[arg-type]
        Conv2d(inner, conv.out_channels, 1, bias=conv.bias is not None),
    )
    return unit


class LocallyConnected2d(nn.Module):
    """Convolution with other filters at each position: (N, C, size, size) -> (N, channels, out, out).

    weight (out * out, C * kernel * kernel, channels), bias (channels, out, out); not initialised.
    """

    def __init__(self, in_channels: int, channels: int, size: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.size, self.kernel, self.stride = size, kernel, stride
        self.out_size = (size - kernel) // stride + 1
        if self.out_size < 1:
            raise ValueError(f"a map of side {size} is too small for filters of {kernel}x{kernel}")
        self.fan_in = in_channels * kernel * kernel
        self.weight = nn.Parameter(torch.empty(self.out_size**2, self.fan_in, channels))
        self.bias = nn.Parameter(torch.empty(channels, self.out_size, self.out_size))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (self.size, self.size):
            raise ValueError(f"the filters need maps of {self.size} x {self.size}, not {tuple(x.shape[-2:])}")
        patches = F.unfold(x, self.kernel, stride=self.stride)  # N x fan_in x places
        out = torch.bmm(patches.permute(2, 0, 1), self.weight)  # places x N x channels
        return out.permute(1, 2, 0).unflatten(2, (self.out_size, self.out_size)) + self.bias

    def extra_repr(self) -> str:
        return f"{self.weight.shape[2]} filters of {self.kernel}x{self.kernel}/{self.stride} at each place"


WEIGHTED = (Conv2d, Linear, LocallyConnected2d)


def he_normal(net: nn.Module, linear_std: float | None = None) -> None:
    """Initialise weights by N(0, 2 / fan_in) and biases by zero (He et al., 2015): ReLU layers keep the signal's size.

    linear_std is another deviation for the linear layers. Those of AlexNet and VGG have so many inputs that with He's
    a first step of the usual lr throws them out of reach; 0.01 is what those papers' nets are trained with.
    """
    for layer in net.modules():
        if isinstance(layer, WEIGHTED):
            fan_in = layer.fan_in if isinstance(layer, LocallyConnected2d) else layer.weight[0].numel()
            std = linear_std if linear_std is not None and isinstance(layer, Linear) else math.sqrt(2 / fan_in)
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def normal(net: nn.Module, std: float, bias: float = 0.0) -> None:
    """Initialise all weights by N(0, std^2) and all biases by one value, as nets before 2014."""
    for layer in net.modules():
        if isinstance(layer, WEIGHTED):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, bias)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set eval mode inside the block; afterwards each module has its former mode (frozen parts may differ)."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def run_on_meta(model: nn.Module, image_size: int, in_channels: int | None = None) -> None:
    """Run one image through the net in eval mode with shapes only: no memory, no arithmetic, on any device.

    Forward hooks fire as usual. RuntimeError where the net cannot take images of this size.
    """
    with Shapes():
        run_under(model, image_size, in_channels)


@torch.no_grad()
def run_under(model: nn.Module, image_size: int, in_channels: int | None = None) -> None:
    """`run_on_meta()` inside a `Shapes` block of the caller."""
    if in_channels is None:
        in_channels = getattr(model, "image_channels", None) or next(
            module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)
        )
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    image = torch.empty(1, in_channels, image_size, image_size, device="meta", dtype=next(model.parameters()).dtype)
    with evaluating(model):
        functional_call(model, shapes, (image,))
