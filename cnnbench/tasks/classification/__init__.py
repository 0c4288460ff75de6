"""Image classification: one class for each image. The metrics alone are here, to be read without torch."""

from cnnbench.tasks.metric import Metric

TOP1 = Metric("top1_error", "top-1 error", "%", short="top1")
TOP5 = Metric("top5_error", "top-5 error", "%", short="top5")
BALANCED = Metric("balanced_error", "balanced error", "%", short="balanced")
MACRO_F1 = Metric("macro_f1", "macro F1", "%", lower_is_better=False)
USUAL = (TOP1, TOP5)  # where classes are of similar size: there the balanced error says what the top-1 error says
METRICS = (*USUAL, BALANCED, MACRO_F1)
