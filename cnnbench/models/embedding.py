"""Embedding: a classifier's net without its last layer, and a head that tells people apart while it trains.

Whoever is asked about later is none of these people: only the embeddings stay, of length 1, and are compared by their
cosine. The heads: `softmax`, the plain linear layer; `cosface` (Wang et al., CVPR 2018) and `arcface` (Deng et al.,
CVPR 2019), which give the cosines between an embedding and a direction for each person (the margin is the loss's);
`none`, for losses that compare embeddings.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.models.adaptation import replace_layer
from cnnbench.models.layers import Linear, Net, normal, output_layer

EMBEDDING = "an embedding of each image"
HeadName = Literal["softmax", "cosface", "arcface", "none"]


class Cosine(Linear):
    """Cosines (N, classes) between embeddings (N, D) and a direction for each class, in float32."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(F.normalize(x.float()), F.normalize(self.weight.float()))


class Embedder(Net):
    """`net` up to its last layer: images (N, in_channels, H, W) -> embeddings (N, D) of length 1, float32.

    In training it returns what its head gives: logits or cosines (N, num_classes); without a head, embeddings too.
    """

    answers = EMBEDDING

    def __init__(self, net: Net, head: HeadName, num_classes: int | None) -> None:
        super().__init__()
        last = output_layer(net)
        self.name, self.image_size, self.any_size, self.map_dims = net.name, net.image_size, net.any_size, net.map_dims
        self.length = last.in_features if isinstance(last, nn.Linear) else last.in_channels
        self.net = replace_layer(net, last, nn.Identity())
        self.head = new_head(head, self.length, num_classes or 0)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        *below, (_, last) = self.net.stages.items()
        kept = [layer for layer in last if not isinstance(layer, nn.Identity)]
        return {**dict(below), "head": [*kept, self.head]}

    @property
    def backbone_names(self) -> dict[str, str]:
        return {name: f"net.{name}" for name, _ in self.net.named_children()}

    def forward(self, x: Tensor) -> Tensor:
        features = self.net(x)
        if self.training and not isinstance(self.head, nn.Identity):
            scores: Tensor = self.head(features)
            return scores
        return F.normalize(features.float())


def new_head(head: HeadName, features: int, classes: int) -> nn.Module:
    if head == "none":
        return nn.Identity()
    layer = Linear(features, classes) if head == "softmax" else Cosine(features, classes)
    normal(layer, std=0.01)
    return layer


def features(net: Net, x: Tensor) -> Tensor:
    """What the last layer of a net sees of images (N, in_channels, H, W): (N, D), of maps the mean over the places.
    Of a net that answers with embeddings, these."""
    if net.answers == EMBEDDING:
        embeddings: Tensor = net(x)
        return embeddings
    seen: list[Tensor] = []
    handle = output_layer(net).register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    try:
        net(x)
    finally:
        handle.remove()
    return seen[-1].flatten(2).mean(2) if seen[-1].ndim == 4 else seen[-1]
