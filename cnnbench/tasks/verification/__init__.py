"""Verification: do two images show one person? The metrics alone: reading them imports no torch.

All but the AUC of the training's choice are those of the pairs that are judged; each part of them by the threshold that
suits the other parts best, as in LFW's view 2.
"""

from cnnbench.tasks.metric import Metric

ACCURACY = Metric("accuracy", "accuracy", "%", lower_is_better=False)
AUC = Metric("auc", "AUC", lower_is_better=False, decimals=4)
EER = Metric("eer", "equal error rate", "%", short="eer")
TAR = Metric("tar_at_far_1e-2", "TAR at FAR 1e-2", "%", lower_is_better=False, short="tar")
METRICS = (ACCURACY, AUC, EER, TAR)
STANDARD_ERROR = "accuracy_standard_error"  # key beside them
