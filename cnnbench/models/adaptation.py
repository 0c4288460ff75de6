"""Adaptation layers. Oquab, Bottou, Laptev and Sivic, "Learning and Transferring Mid-Level Image Representations using
Convolutional Neural Networks", CVPR 2014.

The layer that gives the logits is replaced by two new ones, FCa of so many units (2,048 in the paper) with a
ReLU, and FCb of the new classes. What lies below is copied from the net that has learnt already, and kept as it is.

The paper names no initialisation of the two; here it is He's.
"""

from torch import nn

from cnnbench.models.layers import Linear, Net, he_normal, output_layer
from cnnbench.utils.errors import UserError


def adapt(net: Net, units: int) -> Net:
    """The net with two new layers in the place of the one that gave the logits. UserError where it is not linear."""
    last = output_layer(net)
    if not isinstance(last, nn.Linear):
        raise UserError(f"transfer.adapt: the logits of {net.name} are of no linear layer")
    layers = nn.Sequential(Linear(last.in_features, units), nn.ReLU(), Linear(units, last.out_features))
    he_normal(layers)
    return replace_layer(net, last, layers)


def replace_layer(net: Net, layer: nn.Module, by: nn.Module) -> Net:
    """The net with another module in the place of this layer."""
    name = next(name for name, module in net.named_modules() if module is layer)
    outer, _, inner = name.rpartition(".")
    setattr(net.get_submodule(outer), inner, by)
    return net
