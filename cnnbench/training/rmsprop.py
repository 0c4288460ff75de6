"""RMSProp (Hinton, 2012) as the Inception nets were trained with it."""

from typing import Any

import torch
from torch import Tensor


class RMSProp(torch.optim.Optimizer):
    """RMSProp of TensorFlow, whose epsilon lies under the root, whose mean of squares begins at 1, and whose momentum
    is of steps that have been multiplied by the lr.

    torch's has epsilon beside the root, which for the papers' value of 1 is another method, and reads the lr on the
    host. This one may be recorded, and skips a step that is not finite (`found_inf`) without waiting for the device.
    """

    def __init__(self, groups: list[dict[str, Any]], **defaults: Any) -> None:
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            if trained:
                self._step(trained, group, getattr(self, "found_inf", None))

    def _step(self, trained: list[Tensor], group: dict[str, Any], found_inf: Tensor | None) -> None:
        """Step of the parameters of a group; nothing changes where found_inf is 1."""
        memory = [self._memory(parameter) for parameter in trained]
        squares, velocities = [square for square, _ in memory], [velocity for _, velocity in memory]
        gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, trained, alpha=group["weight_decay"]))
        new = list(torch._foreach_mul(squares, group["decay"]))
        torch._foreach_addcmul_(new, gradients, gradients, 1 - group["decay"])
        roots = list(torch._foreach_sqrt(torch._foreach_add(new, group["epsilon"])))
        steps = list(torch._foreach_div(gradients, roots))
        torch._foreach_mul_(steps, group["lr"])
        torch._foreach_add_(steps, torch._foreach_mul(velocities, group["momentum"]))
        if found_inf is None:
            torch._foreach_sub_(trained, steps)
        else:
            torch._foreach_sub_(trained, [torch.where(found_inf == 0, step, 0.0) for step in steps])
            new, steps = _unless(found_inf, new, squares), _unless(found_inf, steps, velocities)
        torch._foreach_copy_(squares, new)
        torch._foreach_copy_(velocities, steps)

    def _memory(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of squares and velocity of a parameter."""
        state = self.state[parameter]
        if not state:
            state["square"], state["velocity"] = torch.ones_like(parameter), torch.zeros_like(parameter)
        return state["square"], state["velocity"]


def _unless(found_inf: Tensor, new: list[Tensor], kept: list[Tensor]) -> list[Tensor]:
    """The new values, or where found_inf is 1 those that are kept."""
    return [torch.where(found_inf == 0, one, other) for one, other in zip(new, kept, strict=True)]
