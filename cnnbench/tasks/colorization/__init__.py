"""Colorization: the colours of a gray photograph. The metrics alone are here, to be read without torch."""

from cnnbench.tasks.metric import Metric

AUC_REBALANCED = Metric("auc_rebalanced", "rebalanced AuC", "%", lower_is_better=False)
AUC = Metric("auc", "AuC", "%", lower_is_better=False)
PSNR = Metric("psnr", "PSNR", "dB", lower_is_better=False)
COLOURFULNESS = Metric("colourfulness", "colourfulness", lower_is_better=False, decimals=1)
METRICS = (AUC_REBALANCED, AUC, PSNR, COLOURFULNESS)
