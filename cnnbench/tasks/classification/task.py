"""Image classification: one class for each image, cross-entropy, top-1 and top-5 error."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Classification:
    """The loss contract of all models: they return logits (N, classes), or (logits, *auxiliary logits) when training.

    aux_weight is the weight of each auxiliary loss (Szegedy et al., 2014: 0.3).
    """

    label_smoothing: float = 0.0
    aux_weight: float = 0.3

    def logits(self, outputs: Any) -> Tensor:
        logits: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
        return logits

    def training_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Mean over the batch, in float32 whatever the net computed in."""
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)
        for aux in auxiliary:
            loss = loss + self.aux_weight * F.cross_entropy(aux.float(), targets, label_smoothing=self.label_smoothing)
        return loss

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Plain cross-entropy, for validation: it compares across smoothing and auxiliary heads."""
        return F.cross_entropy(self.logits(outputs).float(), targets)
