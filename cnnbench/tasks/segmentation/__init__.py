"""Semantic segmentation: a class for each pixel. The metrics alone are here, to be read without torch."""

from cnnbench.tasks.metric import Metric

MIOU = Metric("miou", "mean IoU", "%", lower_is_better=False)
PIXELS = Metric("pixel_accuracy", "pixel accuracy", "%", lower_is_better=False)
CLASSES = Metric("class_accuracy", "mean class accuracy", "%", lower_is_better=False)
METRICS = (MIOU, PIXELS, CLASSES)
