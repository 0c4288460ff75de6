"""A net of three stages, the state of its training and batches for it: a step takes a millisecond."""

from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.data import Batch
from cnnbench.models.layers import Net
from cnnbench.runtime import device
from cnnbench.runtime.device import create_runtime
from cnnbench.tasks.classification.task import Classification
from cnnbench.training.state import TrainState

CPU = create_runtime("cpu", "fp32", seed=0)


class Tiny(Net):
    """A net of three stages; norm chooses whether it holds a BatchNorm, drop a dropout."""

    image_size = 8

    def __init__(self, norm: bool = False, drop: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.middle = nn.Conv2d(8, 8, 3)
        self.drop = nn.Dropout(drop)
        self.fc = nn.Linear(8, 4)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {"stem": [self.conv, self.norm], "layer1": [self.middle], "head": [self.drop, self.fc]}

    def forward(self, images: Tensor) -> Tensor:
        features = self.middle(self.norm(self.conv(images)).relu()).relu()
        return self.fc(self.drop(features.mean(dim=(2, 3))))


def train_state(model: Net, **changes: Any) -> TrainState:
    parameters = [p for p in model.parameters() if p.requires_grad]
    values: dict[str, Any] = {
        "model": model, "net": model, "task": Classification(), "schedule": lambda step: 1.0, "runtime": CPU,
        "optimizer": torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        "normalize": device.Normalize(CPU, [0.5] * 3, [0.25] * 3),
    }  # fmt: skip
    return TrainState(**{**values, **changes})


def batches(count: int, size: int = 12) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [
        {"image": torch.randint(256, (size, 3, 8, 8), dtype=torch.uint8, generator=generator),
         "target": torch.randint(4, (size,), generator=generator), "index": torch.arange(size)}
        for _ in range(count)
    ]  # fmt: skip
