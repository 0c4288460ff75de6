"""Parameter groups, optimizers, and learning-rate schedules as pure functions of the step."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from cnnbench.config import OptimConfig, Optimizer, Schedule, ScheduleConfig
from cnnbench.models.layers import LocallyConnected2d

WEIGHTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, LocallyConnected2d)


def parameter_groups(model: nn.Module, weight_decay: float, decay_all: bool) -> list[dict[str, object]]:
    """What trains, in two groups: the weights of convolutions and linear layers, which decay, and the rest.

    The kind of module decides, never a name. With decay_all everything decays, as in the papers.
    """
    decayed = {
        id(module.weight) for module in model.modules() if isinstance(module, WEIGHTS) and module.weight is not None
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if decay_all:
        return [{"params": trained, "weight_decay": weight_decay}]
    groups: list[dict[str, object]] = [
        {"params": [p for p in trained if id(p) in decayed], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) not in decayed], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, cfg: OptimConfig, batch_size: int, fused: bool = False) -> torch.optim.Optimizer:
    """The optimizer over the parameters that require gradients, with the lr that suits the batch."""
    groups, lr = parameter_groups(model, cfg.weight_decay, cfg.decay_all), scaled_lr(cfg, batch_size)
    kind = {"fused": True} if fused else {}
    if cfg.name is Optimizer.adamw:
        return torch.optim.AdamW(groups, lr=lr, betas=(cfg.momentum, 0.999), **kind)
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=cfg.momentum, nesterov=cfg.nesterov, **kind)
    if fused and cfg.momentum:  # if the first step is skipped, torch would go on with memory that nobody wrote
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def scaled_lr(cfg: OptimConfig, batch_size: int) -> float:
    """The lr for this batch: linear in the batch size, from the one it was tuned for (Goyal et al., 2017)."""
    return cfg.lr if cfg.lr_batch is None else cfg.lr * batch_size / cfg.lr_batch


def build_schedule(cfg: ScheduleConfig, total_steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor on the lr at each step, 0 <= step < total_steps."""
    warmup = min(round(cfg.warmup_epochs * steps_per_epoch), total_steps - 1)
    shape: Callable[[float], float] = {
        Schedule.constant: lambda done: 1.0,
        Schedule.multistep: lambda done: multistep(done, cfg.milestones, cfg.gamma),
        Schedule.cosine: cosine,
        Schedule.linear: linear,
    }[cfg.name]
    # The papers count their milestones from the first step; the smooth curves begin where the warm-up ends.
    begin = 0 if cfg.name is Schedule.multistep else warmup

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return shape(min(1.0, (step - begin) / (total_steps - begin)))

    return factor


def multistep(done: float, milestones: Iterable[float], gamma: float) -> float:
    """gamma to the number of milestones passed; done in [0, 1) is the part of the training that lies behind."""
    return math.prod(gamma for milestone in milestones if done >= milestone)


def cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def linear(done: float) -> float:
    return 1 - done


def set_lr(optimizer: torch.optim.Optimizer, base_lrs: list[float], factor: float) -> None:
    """Each group's lr, always from its base: a warm-up never leaks into the rest of the curve."""
    for group, base in zip(optimizer.param_groups, base_lrs, strict=True):
        group["lr"] = base * factor
