"""Parameters, multiply-adds and depth of nets as their papers print them, to be compared with what is counted.

None: not published. Published metrics are in the `published.py` of the task.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LENET = "LeCun, Bottou, Bengio & Haffner, Gradient-Based Learning Applied to Document Recognition, 1998"
ALEXNET = "Krizhevsky, Sutskever & Hinton, ImageNet Classification with Deep CNNs, NIPS 2012"
OWT = "Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014, as torchvision has it"
VGG = "Simonyan & Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014"
NIN = "Lin, Chen & Yan, Network in Network, 2013"
GOOGLENET = "Szegedy et al., Going Deeper with Convolutions, CVPR 2015 (10.1109/CVPR.2015.7298594)"
BATCH_NORM = "Ioffe & Szegedy, Batch Normalization, 2015"
INCEPTION = "Szegedy et al., Rethinking the Inception Architecture, CVPR 2016 (10.1109/CVPR.2016.308)"
AIRBENCH = "Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024"
RESNET = "He et al., Deep Residual Learning for Image Recognition, 2015"
PREACT = "He et al., Identity Mappings in Deep Residual Networks, 2016"
DEEPFACE = "Taigman et al., DeepFace: Closing the Gap to Human-Level Performance in Face Verification, CVPR 2014"

ALEXNET_PARAMS = 60_965_224  # of the net in the paper, counted; other nets are compared with it

LENET_CONNECTIONS = (
    "the paper's 340,908 connections count biases and the sums of S2 and S4 too: 326,520 are products with weights"
)
CONV_1 = (
    "the paper gives conv1 253,440 neurons: 55 x 55 x 96 makes 290,400; and 55 takes images of 227 pixels, or padding "
    "around 224"
)
ALEXNET_60M = "60 M is 60.97 M cut off, not rounded"
ALEXNET_SLIDE = (
    "the lecture's 0.63 M neurons: its own column adds up to 659,272; its 37 M, 16 M and 57 M of fully connected "
    "weights are cut off, not rounded: 37.7 M, 16.8 M and 58.6 M"
)
LRN_ALPHA = "the printed response norm does not divide alpha by n, as Caffe and PyTorch do: this net follows the print"
GOOGLENET_STEM = (
    "Table 1 gives conv1 2.7 K parameters and 34 M multiply-adds, which a separable 7x7 has "
    "(model.separable_stem=true); a plain one has 9.4 K and 118 M, and makes the total 1.58 G instead of 1.50 G"
)
GOOGLENET_TABLE = (
    "Table 1's parameters of 4a, 4c, 4d, 4e, 5a and 5b (in units of 1024: 364, 463, 580, 840, 1072, 1388) do not "
    "follow from its own filters (367, 498, 591, 847, 1018, 1409); the paper gives no total"
)
GOOGLENET_TWELVE = (
    "12 times fewer parameters than AlexNet: by count it is 8.7 times (60.97 M / 7.00 M), and 4.6 with auxiliary heads"
)
BN_FILTERS = (
    "the filters of 4c and 4d add up to 608 where 576 is printed: this net has 576, model.pool_proj=128 makes 608; "
    "neither comes near the 13.6 M of the paper"
)
V3_COMPUTE = "the paper's 4.8 G (5 in its text) is not what the printed net takes on 299 x 299 pixels: that is 5.71 G"
V3_DEPTH = "the paper says 42 layers deep; the longest way through the net passes 48, and 95 layers have weights"
VGG16_CONV = "15.3 G, from the ResNet paper, is the convolutions alone; VGG-19's 19.6 G beside it is not"
RESNET50_FLOOR = "3.8 G is 3.86 G cut off, for the stride in the first 1x1 (resnet50_v1)"
STRIDE_3X3 = "the stride is in the 3x3 and not in the 1x1 before it, as the field's weights have it: 0.23 G more"
OPTION_A = "with shortcut A, which has no parameters, the net equals its plain twin in parameters and compute"
PREACT_WEIGHTS = "10.2 M counts the weights alone, without BatchNorm"
FACE_COUNT = "more than 120 M, says the paper; its layers make 118.9 M, 99.9 % of them weights"
FACE_DEPTH = "C3 is printed with kernels 16 deep on 32 maps, which takes two groups (model.c3_groups=2)"
FACE_VIEW = "L6 is said to see 74 x 74 pixels; the arithmetic gives 73"


@dataclass(frozen=True)
class Facts:
    citation: str
    params: str | None = None  # as printed: "60 M"
    macs: str | None = None
    depth: int | None = None
    notes: tuple[str, ...] = ()


# By name, or by name and the argument that makes it another net of the paper.
FACTS: dict[str, Facts] = {
    "lenet5": Facts(LENET, "60000", None, None, (LENET_CONNECTIONS,)),
    "alexnet": Facts(ALEXNET, "60 M", None, 8, (ALEXNET_60M, CONV_1, ALEXNET_SLIDE, LRN_ALPHA)),
    "alexnet_owt": Facts(OWT, None, None, 8),
    "vgg11": Facts(VGG, "133 M", None, 11),
    "vgg11_lrn": Facts(VGG, "133 M", None, 11),
    "vgg13": Facts(VGG, "133 M", None, 13),
    "vgg16_c": Facts(VGG, "134 M", None, 16),
    "vgg16": Facts(VGG, "138 M", "15.3 G", 16, (VGG16_CONV,)),
    "vgg19": Facts(VGG, "144 M", "19.6 G", 19),
    "vgg11_bn": Facts(VGG, None, None, 11),
    "vgg13_bn": Facts(VGG, None, None, 13),
    "vgg16_bn": Facts(VGG, None, None, 16),
    "vgg19_bn": Facts(VGG, None, None, 19),
    "nin": Facts(NIN),
    "nin_cifar": Facts(NIN),
    "googlenet": Facts(GOOGLENET, None, "1.5 G", 22, (GOOGLENET_STEM, GOOGLENET_TABLE, GOOGLENET_TWELVE)),
    "googlenet_tv": Facts(GOOGLENET, None, None, 22),
    "bn_inception": Facts(BATCH_NORM, "13.6 M", None, None, (BN_FILTERS,)),
    "inception_v3": Facts(INCEPTION, "<25 M", "4.8 G", 42, (V3_COMPUTE, V3_DEPTH)),
    "plain18": Facts(RESNET, None, "1.8 G", 18),
    "plain34": Facts(RESNET, None, "3.6 G", 34, (OPTION_A,)),
    "resnet18": Facts(RESNET, None, "1.8 G", 18),
    "resnet34": Facts(RESNET, None, "3.6 G", 34, (f"3.6 G: {OPTION_A}",)),
    "resnet34 shortcut=A": Facts(RESNET, None, "3.6 G", 34, (OPTION_A,)),
    "resnet34 shortcut=C": Facts(RESNET, None, None, 34),
    "resnet50_v1": Facts(RESNET, None, "3.8 G", 50, (RESNET50_FLOOR,)),
    "resnet101_v1": Facts(RESNET, None, "7.6 G", 101),
    "resnet152_v1": Facts(RESNET, None, "11.3 G", 152),
    "resnet50": Facts(RESNET, None, "3.8 G", 50, (STRIDE_3X3, RESNET50_FLOOR)),
    "resnet101": Facts(RESNET, None, "7.6 G", 101, (STRIDE_3X3,)),
    "resnet152": Facts(RESNET, None, "11.3 G", 152, (STRIDE_3X3,)),
    "resnet20": Facts(RESNET, "0.27 M", None, 20),
    "resnet32": Facts(RESNET, "0.46 M", None, 32),
    "resnet44": Facts(RESNET, "0.66 M", None, 44),
    "resnet56": Facts(RESNET, "0.85 M", None, 56),
    "resnet110": Facts(RESNET, "1.7 M", None, 110),
    "resnet1202": Facts(RESNET, "19.4 M", None, 1202),
    "resnet164": Facts(PREACT, "1.7 M", None, 164),
    "resnet1001": Facts(PREACT, "10.2 M", None, 1001, (PREACT_WEIGHTS,)),
    **{f"plain{depth}": Facts(RESNET, None, None, depth) for depth in (20, 32, 44, 56, 110)},
    "preact_resnet110": Facts(PREACT, None, None, 110),
    "preact_resnet164": Facts(PREACT, "1.7 M", None, 164),
    "preact_resnet1001": Facts(PREACT, "10.2 M", None, 1001, (PREACT_WEIGHTS,)),
    "preact_resnet152": Facts(PREACT, None, None, 152),
    "preact_resnet200": Facts(PREACT, None, None, 200),
    "airbench": Facts(AIRBENCH),
    "deepface": Facts(DEEPFACE, ">120 M", None, None, (FACE_COUNT, FACE_DEPTH, FACE_VIEW)),
}


def facts_key(name: str, arguments: Mapping[str, Any]) -> str | None:
    """Key in FACTS of a net with these arguments; None if no paper has numbers for it."""
    by_argument = (f"{name} {key}={value}" for key, value in arguments.items())
    return next((key for key in (*by_argument, name) if key in FACTS), None)


def parse_printed(printed: str) -> tuple[float, float]:
    """Value and unit of a printed number: (60e6, 1e6) for "60 M", (25e6, 1e6) for "<25 M"; without a letter the unit
    is 1."""
    digits, _, letter = printed.lstrip("<>").partition(" ")
    unit = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}[letter]
    return float(digits) * unit, unit
