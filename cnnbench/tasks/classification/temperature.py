"""Temperature of a classifier: its logits are divided by it, so that a probability of 0.9 is right in 90 of 100 cases.

Guo et al. (2017), On calibration of modern neural networks. It is one number, the one of the least loss on validation
images. It changes probabilities alone, never which class is the likeliest.
"""

import math

from torch import Tensor, nn

from cnnbench.data.model_spec import ModelSpec
from cnnbench.utils.errors import UserError

KEY = "temperature"  # in the `extra` of a net's spec
LEAST, MOST = 0.01, 100.0
STEPS = 200


def temperature(spec: ModelSpec) -> float:
    """Temperature that is stored with a net; 1 where none is."""
    return float(spec.extra.get(KEY, 1.0))


def note(spec: ModelSpec, source: str) -> list[str]:
    """What the user of a calibrated net is told."""
    return [f"{source}: probabilities by its temperature {temperature(spec):.3g}"] if KEY in spec.extra else []


class Tempered(nn.Module):
    """Net whose logits are divided by its temperature."""

    def __init__(self, net: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.net, self.temperature = net, temperature(spec)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits.float() / self.temperature


def tempered(net: nn.Module, spec: ModelSpec) -> nn.Module:
    """Net with the logits that its temperature asks for: the net itself where it has none."""
    return Tempered(net, spec) if KEY in spec.extra else net


def fit(logits: Tensor, targets: Tensor, source: str) -> float:
    """Temperature of the least cross-entropy, from LEAST to MOST. logits (N, classes), finite; targets int64 (N,).

    UserError where the loss has no minimum.
    """
    scores = logits.double()
    gaps = scores - scores.gather(1, targets[:, None].to(scores.device))  # to the logit of the truth
    images = f"{source}: its answers to the {len(targets):,} validation images"
    if gaps.mean() >= 0:
        raise UserError(f"{images} are no better than guessing, so no temperature makes its probabilities true")
    if gaps.max() <= 0:
        raise UserError(f"{images} are all right: no temperature has the least loss, so calibrate with more images")
    low, high, factor = 1 / MOST, 1 / LEAST, 1.0  # the loss is convex in the factor, the inverse of the temperature
    for _ in range(STEPS):
        probabilities = (factor * gaps).softmax(dim=1)
        means = (probabilities * gaps).sum(dim=1)
        slope = means.mean().item()
        curvature = ((probabilities * gaps.square()).sum(dim=1) - means.square()).mean().item()
        low, high = (low, factor) if slope > 0 else (factor, high)
        newton = factor - slope / curvature if curvature > 0 else high
        before, factor = factor, newton if low <= newton < high else math.sqrt(low * high)
        if math.isclose(before, factor, rel_tol=1e-12):
            break
    return 1 / factor
