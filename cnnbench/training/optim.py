"""Parameter groups and optimizers."""

import inspect
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.config.sections import OptimConfig, Optimizer
from cnnbench.models.layers import LocallyConnected2d, Net
from cnnbench.training.muon import Muon
from cnnbench.training.rmsprop import RMSProp

WEIGHTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, LocallyConnected2d)
MATRICES = (nn.Conv2d, nn.Linear)  # whose weights Muon takes


def parameter_groups(
    model: nn.Module, cfg: OptimConfig, lr: float, only: Iterable[Tensor] | None = None
) -> list[dict[str, object]]:
    """Parameter groups of what trains (or `only` these of it), by weight decay and lr, and with Muon by optimizer.

    The weights of convolutions and linear layers decay, the rest does not; the kind of module decides, never a name.
    With decay_all everything decays, as in the papers. lr differs by the distance from the head, and for biases, as cfg
    says.
    """
    chosen = list(model.parameters() if only is None else only)
    if cfg.name is Optimizer.muon:
        return _muon_groups(model, cfg, lr, chosen)
    weights = {id(module.weight) for module in model.modules() if isinstance(module, WEIGHTS)}
    factors = lr_factors(model, cfg)
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for parameter in chosen:
        if parameter.requires_grad:
            decayed = cfg.decay_all or id(parameter) in weights
            extra = 1.0 if id(parameter) in weights else cfg.bias_lr
            # Of what the larger lr would add to the decay, nothing: a step takes as much from biases as from weights.
            decay = cfg.weight_decay / extra if decayed else 0.0
            groups.setdefault((factors.get(id(parameter), 1.0) * extra, -decay), []).append(parameter)
    return [{"params": groups[key], "lr": lr * key[0], "weight_decay": -key[1]} for key in sorted(groups)]


def _muon_groups(model: nn.Module, cfg: OptimConfig, lr: float, chosen: list[Tensor]) -> list[dict[str, object]]:
    """Muon trains the weights of convolutions and of linear layers that come before the head; SGD what is left."""
    assert isinstance(model, Net)
    head = {id(parameter) for module in model.stages["head"] for parameter in module.parameters()}
    layers = (module for module in model.modules() if isinstance(module, MATRICES))
    inner = {id(layer.weight) for layer in layers} - head
    matrices = [parameter for parameter in chosen if id(parameter) in inner]
    others = [parameter for parameter in chosen if id(parameter) not in inner]
    as_sgd = replace(cfg, name=Optimizer.sgd)
    rest = replace(as_sgd, weight_decay=cfg.rest.weight_decay)
    return [
        *({**group, "muon": True} for group in parameter_groups(model, as_sgd, lr, matrices)),
        *(
            {**group, "muon": False, "momentum": cfg.rest.momentum}
            for group in parameter_groups(model, rest, lr * cfg.rest.lr / cfg.lr, others)
        ),
    ]


def lr_factors(model: nn.Module, cfg: OptimConfig) -> dict[int, float]:
    """Factor on the lr by the id of the parameter: head_lr for the head, lr_decay to the power of the distance to it.

    Empty where every parameter has the same lr. (Layer-wise decay: Howard and Ruder, 2018.)
    """
    if cfg.lr_decay == cfg.head_lr == 1:
        return {}
    assert isinstance(model, Net)
    factors: dict[int, float] = {}
    for distance, part in enumerate(reversed(model.stages.values())):
        factor = cfg.head_lr if distance == 0 else cfg.lr_decay**distance
        factors |= {id(parameter): factor for module in part for parameter in module.parameters()}
    return factors


def build_optimizer(model: nn.Module, cfg: OptimConfig, batch_size: int, fused: bool = False) -> torch.optim.Optimizer:
    """The optimizer over the parameters that require gradients, with the lr that suits the batch."""
    lr = scaled_lr(cfg, batch_size)
    groups = parameter_groups(model, cfg, lr)
    # One call for all tensors, in place of several for each; on a CPU the bits are those of the loop over tensors.
    kind = {"fused": True} if fused else {"foreach": True}
    optimizer: torch.optim.Optimizer
    if cfg.name is Optimizer.adamw:
        optimizer = _light(torch.optim.AdamW)(groups, lr=lr, betas=(cfg.momentum, 0.999), capturable=fused, **kind)
    elif cfg.name is Optimizer.muon:
        optimizer = Muon(groups, lr=lr, momentum=cfg.momentum, nesterov=cfg.nesterov, **kind)
    elif cfg.name is Optimizer.rmsprop:
        memory = {"decay": cfg.rms.decay, "epsilon": cfg.rms.epsilon}
        optimizer = _light(RMSProp)(groups, lr=lr, momentum=cfg.momentum, fused=fused, **memory)
    else:
        optimizer = _light(torch.optim.SGD)(groups, lr=lr, momentum=cfg.momentum, nesterov=cfg.nesterov, **kind)
    prepare(optimizer)
    return optimizer


def _light(kind: type[torch.optim.Optimizer]) -> Any:
    """The optimizer without what keeps torch's compiler from compiling it, for which torch imports all of the compiler:
    more than a second at the start of every training. The functions inside are the same."""
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    bare = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), {**bare, "step": torch.no_grad()(inspect.unwrap(kind.step))})


def prepare(optimizer: torch.optim.Optimizer) -> None:
    """Give a fused optimizer what its groups lack: on a GPU the lr as a tensor, which a recorded step reads anew each
    time; and momentum of zeros.

    If the first step is skipped, torch would go on with memory that nobody wrote; from zeros that step is the same.
    """
    if not optimizer.defaults["fused"]:
        return
    for group in optimizer.param_groups:
        device = group["params"][0].device
        if device.type == "cuda" and not isinstance(group["lr"], Tensor):
            group["lr"] = torch.tensor(group["lr"], device=device)
        if isinstance(optimizer, torch.optim.SGD) and group["momentum"] and not group.get("muon"):
            for parameter in group["params"]:
                optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))


def plain_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """State of the optimizer for a checkpoint, every lr a number."""
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["lr"] = float(group["lr"])
    return state


def scaled_lr(cfg: OptimConfig, batch_size: int) -> float:
    """The lr for this batch: linear in the batch size, from the one it was tuned for (Goyal et al., 2017)."""
    return cfg.lr if cfg.lr_batch is None else cfg.lr * batch_size / cfg.lr_batch


def set_lr(optimizer: torch.optim.Optimizer, base_lrs: list[float], factor: float) -> None:
    """Each group's lr, always from its base: a warm-up never leaks into the rest of the curve."""
    for group, base in zip(optimizer.param_groups, base_lrs, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(base * factor)
        else:
            group["lr"] = base * factor
