"""Muon (Jordan et al., 2024) for a net's filters and matrices, SGD for all else, as one optimizer."""

from typing import Any

import torch
from torch import Tensor

SHARED = ("lr", "momentum", "weight_decay", "nesterov")  # settings of a group that both optimizers read


class Muon(torch.optim.SGD):
    """SGD for groups with `muon: False`; for those with `muon: True` torch's Muon, which steps along the nearest
    orthogonal matrix to the momentum, so that no direction of a layer is faster than another.

    torch's Muon takes matrices alone. It is given filters as such, each one a row, in the memory where they are.
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
            own = {"params": matrices, **{key: group[key] for key in SHARED}}
            if self.muon is None:
                self.muon = torch.optim.Muon([own])
            else:
                self.muon.add_param_group(own)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        if self.muon is not None:
            ours = [group for group in self.param_groups if group["muon"]]
            for group, own in zip(ours, self.muon.param_groups, strict=True):
                own.update({key: group[key] for key in SHARED})
                for parameter, matrix in zip(group["params"], own["params"], strict=True):
                    if parameter.grad is not None:
                        matrix.grad = parameter.grad.permute(_order(parameter)).reshape(matrix.shape)
                        parameter.grad = None  # SGD leaves alone what has none
            self.muon.step()
            self.muon.zero_grad()
        super().step()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "muon": self.muon.state_dict() if self.muon else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if self.muon is not None:
            self.muon.load_state_dict(state_dict["muon"])


def _order(parameter: Tensor) -> tuple[int, ...]:
    """The dimensions as they lie in memory, the outer ones first: filters may be channels last."""
    return (0, 2, 3, 1) if parameter.ndim == 4 and not parameter.is_contiguous() else tuple(range(parameter.ndim))
