"""Muon (Jordan et al., 2024) for a net's filters and matrices, SGD for all else, as one optimizer."""

import math
from typing import Any

import torch
from torch import Tensor

SHARED = ("momentum", "weight_decay", "nesterov")  # settings of a group that both optimizers read


class Muon(torch.optim.SGD):
    """SGD for groups with `muon: False`; for those with `muon: True` Muon, which steps along the nearest orthogonal
    matrix to the momentum, so that no direction of a layer is faster than another.

    torch's Muon holds the momentum; it is given filters as matrices, each filter a row, in the memory where they are.
    Its step is done here, with the same bits, since torch's reads the lr on the host: this one may be recorded, and
    skips a step that is not finite (`found_inf`) without waiting for the device, as a fused SGD does.
    """

    def __init__(self, groups: list[dict[str, Any]], **defaults: Any) -> None:
        self.muon: torch.optim.Muon | None = None
        super().__init__(groups, **defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group["muon"]:
            matrices = [
                parameter.data.permute(_order(parameter)).view(len(parameter), -1) for parameter in group["params"]
            ]
            own = {"params": matrices, "lr": group["lr"], **{key: group[key] for key in SHARED}}
            if self.muon is None:
                self.muon = torch.optim.Muon([own])
            else:
                self.muon.add_param_group(own)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        if self.muon is not None:
            found_inf: Tensor | None = getattr(self, "found_inf", None)
            ours = [group for group in self.param_groups if group["muon"]]
            for group, own in zip(ours, self.muon.param_groups, strict=True):
                own.update({key: group[key] for key in SHARED})
                for parameter, matrix in zip(group["params"], own["params"], strict=True):
                    if parameter.grad is not None:
                        gradient = parameter.grad.permute(_order(parameter)).reshape(matrix.shape)
                        parameter.grad = None  # SGD leaves alone what has none
                        _step(matrix, gradient, self.muon.state[matrix], group["lr"], own, found_inf)
        super().step()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "muon": self.muon.state_dict() if self.muon else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if self.muon is not None:
            self.muon.load_state_dict(state_dict["muon"])


def _step(
    matrix: Tensor,
    gradient: Tensor,
    state: dict[str, Tensor],
    lr: float | Tensor,
    group: dict[str, Any],
    found_inf: Tensor | None,
) -> None:
    """Step of one matrix (rows, columns). Nothing changes where found_inf is 1."""
    momentum, blend = group["momentum"], 1 - group["momentum"]
    if found_inf is not None:
        taken = 1 - found_inf
        gradient, lr, blend = torch.where(taken == 1, gradient, 0.0), lr * taken, blend * taken
    buffer = state.setdefault("momentum_buffer", torch.zeros_like(gradient))
    buffer.lerp_(gradient, blend)
    step = orthogonal(gradient.lerp(buffer, momentum) if group["nesterov"] else buffer, group)
    length = lr * math.sqrt(max(1, matrix.shape[0] / matrix.shape[1]))
    matrix.mul_(1 - lr * group["weight_decay"])
    if isinstance(length, Tensor):
        matrix.sub_(step.float() * length)
    else:
        matrix.add_(step, alpha=-length)


def orthogonal(matrix: Tensor, group: dict[str, Any]) -> Tensor:
    """Nearest orthogonal matrix, roughly, in bf16: some Newton-Schulz steps with the coefficients of the group."""
    a, b, c = group["ns_coefficients"]
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(torch.bfloat16, copy=True)
    x = x.T if tall else x
    x.div_(x.norm().clamp(min=group["eps"]))
    for _ in range(group["ns_steps"]):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def _order(parameter: Tensor) -> tuple[int, ...]:
    """The dimensions as they lie in memory, the outer ones first: filters may be channels last."""
    return (0, 2, 3, 1) if parameter.ndim == 4 and not parameter.is_contiguous() else tuple(range(parameter.ndim))
