"""Weights that are numbers: one that is not finite would spoil every answer in silence."""

from collections.abc import Mapping

from torch import Tensor

from cnnbench.utils.errors import UserError


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """UserError with the name of the first tensor that holds NaN or infinity."""
    for name, value in state.items():
        if not value.isfinite().all():
            bad = int((~value.isfinite()).sum())
            raise UserError(
                f"{source} is of no use: {bad:,} of the {value.numel():,} numbers in {name} are not finite "
                "(NaN or infinity), as after a training that diverged"
            )
