"""Image classification: one class for each image. The metrics alone are here, to be read without torch."""

from cnnbench.tasks.metric import Metric

TOP1 = Metric("top1_error", "top-1 error", "%", short="top1")
TOP5 = Metric("top5_error", "top-5 error", "%", short="top5")
METRICS = (TOP1, TOP5)
