"""Object detection: boxes with a class and a score. The metrics alone are here, to be read without torch.

They are COCO's (Lin et al. 2014): the mean over the classes of the area under precision over recall, a box counting as
found at an IoU of 0.5 to 0.95 (mAP), of 0.5, of 0.75.
"""

from cnnbench.tasks.metric import Metric

MAP = Metric("map", "mAP", "%", lower_is_better=False)
AP50 = Metric("ap50", "AP50", "%", lower_is_better=False)
AP75 = Metric("ap75", "AP75", "%", lower_is_better=False)
METRICS = (MAP, AP50, AP75)
