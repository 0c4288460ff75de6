"""The floor: a script as one writes it by hand for this work alone, without a command line, files, curves or checks."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.datasets import CIFAR10
from torchvision.models import resnet18
from work import BATCH, CLASSES, DECAY, LR, MEAN, MOMENTUM, STD, arguments, chosen

work = arguments()
torch.manual_seed(0)
train, test = CIFAR10(str(work.data), train=True), CIFAR10(str(work.data), train=False)
picked = chosen(train.targets, work.images)
images, targets = torch.from_numpy(train.data[picked].transpose(0, 3, 1, 2)), torch.tensor(train.targets)[picked]
test_images, test_targets = torch.from_numpy(test.data.transpose(0, 3, 1, 2)), torch.tensor(test.targets)
mean, std = (255 * torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))


def prepared(batch: Tensor) -> Tensor:
    return ((batch - mean) / std).contiguous(memory_format=torch.channels_last)


def augmented(batch: Tensor) -> Tensor:
    """Each image shifted by up to 4 pixels and mirrored every other time."""
    n = len(batch)
    padded = F.pad(batch, (4, 4, 4, 4))
    rows, columns = torch.randint(9, (n, 1)) + torch.arange(32), torch.randint(9, (n, 1)) + torch.arange(32)
    columns = torch.where(torch.rand(n, 1) < 0.5, columns, columns.flip(1))
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


model = resnet18(num_classes=CLASSES).to(memory_format=torch.channels_last)
net = torch.compile(model) if work.compile else model
optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
steps = -(-len(images) // BATCH)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, work.epochs * steps)
autocast = torch.autocast("cpu", torch.bfloat16, enabled=work.precision == "bf16")
for epoch in range(work.epochs):
    model.train()
    total = 0.0
    for indices in torch.randperm(len(images)).split(BATCH):
        with autocast:
            loss = F.cross_entropy(net(prepared(augmented(images[indices]))), targets[indices])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        total += loss.item() * len(indices)
    model.eval()
    with torch.no_grad(), autocast:
        batches = zip(test_images.split(BATCH), test_targets.split(BATCH), strict=True)
        right = sum(int((net(prepared(x)).argmax(1) == y).sum()) for x, y in batches)
    print(f"epoch {epoch + 1} loss {total / len(images):.3f} error {100 - 100 * right / len(test_targets):.2f} %")
torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, work.out / "last.pt")
