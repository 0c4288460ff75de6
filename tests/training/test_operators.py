"""Operators that a step dispatches, counted beside those of the same step in the fewest lines.

Each is work of the host, and on a GPU a small net waits for nothing else."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from cnnbench.config.sections import OptimConfig, Optimizer
from cnnbench.models import build
from cnnbench.runtime.device import Normalize, create_runtime
from cnnbench.tasks.detection.task import Detection
from cnnbench.training import loop, optim
from cnnbench.training.freezing import train_mode
from tests.helpers.tiny import train_state

SGD = OptimConfig(name=Optimizer.sgd, lr=0.1, lr_batch=None, momentum=0.9, nesterov=False, weight_decay=1e-4,
                  decay_all=False, clip=None, lr_decay=1.0, head_lr=1.0)  # fmt: skip
MORE = 1.10  # operators of the step over those of the bare loop


class Operators(TorchDispatchMode):
    """Counts the operators that are called inside."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def operators(step: Callable[[], None]) -> Counter[str]:
    step()  # the first one makes the momentum
    with Operators() as seen:
        step()
    return seen.counts


def test_a_step_dispatches_hardly_more_operators_than_a_bare_loop() -> None:
    bf16 = create_runtime("cpu", "bf16", 0)
    model = build("resnet20", num_classes=10)
    optimizer = optim.build_optimizer(model, SGD, 128)
    mean, std = (torch.tensor([value] * 3).view(1, 3, 1, 1) for value in (0.5, 0.25))
    state = train_state(model, runtime=bf16, optimizer=optimizer, normalize=Normalize(bf16, [0.5] * 3, [0.25] * 3))
    images, targets = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8), torch.arange(2)
    total, hits = torch.zeros(()), torch.zeros(2, dtype=torch.int64)
    train_mode(model)

    def bare() -> None:
        inputs = ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
        with bf16.autocast():
            logits = model(inputs)
        loss = F.cross_entropy(logits.float(), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        found = logits.topk(5).indices == targets[:, None]
        total.add_(loss.detach())
        hits.add_(torch.stack([found[:, 0].sum(), found.sum()]))

    ours = operators(lambda: loop.train_step(state, state.normalize(images), targets))
    theirs = operators(bare)
    assert sum(ours.values()) <= MORE * sum(theirs.values()), ours - theirs


def test_net_and_loss_of_an_ssd_ask_no_number_of_their_device() -> None:
    """So that a CUDA graph can hold them: such an operator would wait, or give a tensor of unknown size."""
    model, task = build("ssd", num_classes=2, backbone="resnet8", maps=1, extras=1, pyramid=16), Detection(2, 64)
    tables = torch.zeros(2, 4, 7)
    tables[:, :, 0] = -1
    tables[0, 1] = torch.tensor([1.0, 8, 8, 30, 40, 0, 0])
    images = torch.randn(2, 3, 64, 64)
    seen = operators(lambda: task.training_loss(model.train()(*task.inputs(images, tables)), tables).backward())
    asking = ("_local_scalar_dense", "nonzero", "masked_select", "aten.index.", "unique", "lift_fresh")
    assert len(seen) > 30 and not [name for name in seen if any(word in name for word in asking)], seen
