"""Errors that papers published for their nets, and the ImageNet challenge year by year.

Errors are in percent of the validation images of ImageNet (2012), or of CIFAR-10's test images; the protocol says how
they were measured, since ten crops are worth two points.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cnnbench.analysis.published import FACTS
from cnnbench.tasks.classification import USUAL

ONE_CROP = "ImageNet val, 1 crop"
TEN_CROPS = "ImageNet val, 10 crops"
TEN_PATCHES = "ImageNet val, 1 net, 10 crops averaged"
DENSE = "ImageNet val, images of 256 pixels, dense"
TORCHVISION = "ImageNet val, 1 crop, torchvision's first weights"
LARGE_CROP = "ImageNet val, 1 crop of 320 pixels"
CIFAR = "CIFAR-10 test"


@dataclass(frozen=True)
class PublishedMetrics:
    """Metrics that a paper published. values: by the metric's name; a metric that was not published is left out."""

    citation: str
    protocol: str
    values: Mapping[str, float]

    @property
    def data(self) -> str | None:
        """Name of the data set here; None where there is none of these images."""
        ours = {"ImageNet": "imagenet", "CIFAR-10": "cifar10"}
        return ours.get(self.protocol.partition(" ")[0].rstrip(";,"))


@dataclass(frozen=True)
class Winner:
    """An entry of the ImageNet challenge (ILSVRC), classification: top-5 error in percent of the test images."""

    year: int | None  # None: people
    team: str
    net: str
    layers: int | None  # with weights; None: no deep net
    error: float
    note: str = ""


# As the lecture shows them.
HISTORY = (
    Winner(2010, "NEC-UIUC", "linear SVM", None, 28.2),
    Winner(2011, "XRCE", "Fisher vectors", None, 25.8),
    Winner(2012, "SuperVision", "AlexNet", 8, 16.4, "with the challenge's images alone; 15.3 with ImageNet's 22,000 "
           "classes, which won"),
    Winner(2013, "Clarifai", "Zeiler's nets", 8, 11.7, "with the challenge's images alone; 11.2 with others"),
    Winner(2014, "VGG", "VGG-19", 19, 7.3, "second of its year"),
    Winner(2014, "GoogLeNet", "GoogLeNet", 22, 6.7),
    Winner(2015, "MSRA", "ResNet-152", 152, 3.57),
    Winner(None, "a person", "human", None, 5.1, "one trained annotator, 1,500 images (Russakovsky et al., 2015)"),
)  # fmt: skip


# Top-1 error, top-5 error (None: not published) and protocol, by the keys of FACTS.
ERRORS: dict[str, tuple[float | None, float | None, str]] = {
    "lenet5": (0.95, None, "MNIST; 0.8 with distorted training images"),
    "alexnet": (40.7, 18.2, TEN_PATCHES),
    "alexnet_owt": (43.478, 20.934, TORCHVISION),
    "vgg11": (29.6, 10.4, DENSE),
    "vgg13": (28.7, 9.9, DENSE),
    "vgg16_c": (28.1, 9.4, DENSE),
    "vgg16": (27.0, 8.8, DENSE),
    "vgg19": (27.3, 9.0, DENSE),
    "vgg11_bn": (29.63, 10.19, TORCHVISION),
    "vgg13_bn": (28.414, 9.626, TORCHVISION),
    "vgg16_bn": (26.64, 8.484, TORCHVISION),
    "vgg19_bn": (25.782, 8.158, TORCHVISION),
    "nin": (40.64, None, f"{ONE_CROP}, the authors' later weights; not in the paper"),
    "nin_cifar": (10.41, None, f"{CIFAR}; 8.81 with augmentation"),
    "googlenet": (None, 10.07, ONE_CROP),
    "googlenet_tv": (30.222, 10.47, TORCHVISION),
    "bn_inception": (25.2, 7.82, ONE_CROP),
    "inception_v3": (21.2, 5.6, ONE_CROP),
    "plain18": (27.94, None, TEN_CROPS),
    "plain34": (28.54, 10.02, TEN_CROPS),
    "resnet18": (27.88, None, f"{TEN_CROPS}, shortcut A"),
    "resnet34": (24.52, 7.46, f"{TEN_CROPS}, shortcut B"),
    "resnet34 shortcut=A": (25.03, 7.76, TEN_CROPS),
    "resnet34 shortcut=C": (24.19, 7.4, TEN_CROPS),
    "resnet50_v1": (22.85, 6.71, TEN_CROPS),
    "resnet101_v1": (21.75, 6.05, TEN_CROPS),
    "resnet152_v1": (21.43, 5.71, TEN_CROPS),
    "resnet50": (23.87, 7.138, TORCHVISION),
    "resnet101": (22.626, 6.454, TORCHVISION),
    "resnet152": (21.688, 5.954, TORCHVISION),
    "resnet20": (8.75, None, CIFAR),
    "resnet32": (7.51, None, CIFAR),
    "resnet44": (7.17, None, CIFAR),
    "resnet56": (6.97, None, CIFAR),
    "resnet110": (6.43, None, f"{CIFAR}, best of 5 (mean 6.61)"),
    "resnet1202": (7.93, None, CIFAR),
    "resnet164": (5.93, None, CIFAR),
    "resnet1001": (7.61, None, CIFAR),
    "preact_resnet110": (6.37, None, CIFAR),
    "preact_resnet164": (5.46, None, CIFAR),
    "preact_resnet1001": (4.92, None, f"{CIFAR} (mean of 5: 4.89)"),
    "preact_resnet152": (21.1, 5.5, LARGE_CROP),
    "preact_resnet200": (20.7, 5.3, LARGE_CROP),
    "airbench": (5.99, None, f"{CIFAR}, six views, mean of 1,000 seeds, 9.9 epochs"),
    "deepface": (8.7, None, "photographs of 4,030 people"),
}


def published_metrics(key: str | None) -> PublishedMetrics | None:
    """Published errors of the net with this key in FACTS; None where there are none."""
    if key is None or key not in ERRORS:
        return None
    *errors, protocol = ERRORS[key]
    values = {metric.name: error for metric, error in zip(USUAL, errors, strict=True) if error is not None}
    return PublishedMetrics(FACTS[key].citation, protocol, values)
