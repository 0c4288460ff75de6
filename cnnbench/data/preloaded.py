"""What the fork server of `workers.py` imports before its first worker, torchvision without torch's compiler."""

from cnnbench.data import loaders as loaders
from cnnbench.utils.fast_start import import_transforms

import_transforms()
