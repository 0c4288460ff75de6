"""In the style of torchvision's reference scripts: per-sample v2 transforms in worker processes, a metric logger."""

import time

import torch
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import CIFAR10
from torchvision.models import resnet18
from torchvision.transforms import v2
from work import BATCH, CLASSES, DECAY, LR, MEAN, MOMENTUM, STD, WORKERS, Work, arguments, chosen


def loaders(work: Work) -> tuple[DataLoader, DataLoader]:
    finish = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    crop = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), *finish])
    train = CIFAR10(str(work.data), train=True, transform=crop)
    test = CIFAR10(str(work.data), train=False, transform=v2.Compose(finish))
    picked = Subset(train, chosen(train.targets, work.images))
    return (DataLoader(picked, BATCH, shuffle=True, num_workers=WORKERS), DataLoader(test, BATCH, num_workers=WORKERS))


def accuracy(logits: torch.Tensor, targets: torch.Tensor) -> list[float]:
    """Percent right among the first 1 and 5 answers."""
    hits = logits.topk(5).indices == targets[:, None]
    return [100 * hits[:, :k].any(1).float().mean().item() for k in (1, 5)]


def main() -> None:
    work = arguments()
    torch.manual_seed(0)
    train, test = loaders(work)
    model = resnet18(num_classes=CLASSES).to(memory_format=torch.channels_last)
    net = torch.compile(model) if work.compile else model
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, work.epochs * len(train))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=work.precision == "bf16")
    for epoch in range(work.epochs):
        model.train()
        for number, (images, targets) in enumerate(train):
            begin = time.time()
            with autocast:
                logits = net(images.to(memory_format=torch.channels_last))
                loss = criterion(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            top1, top5 = accuracy(logits, targets)
            if number % 10 == 0:
                speed = len(images) / (time.time() - begin)
                print(f"{epoch} {number} loss {loss.item():.3f} top1 {top1:.1f} top5 {top5:.1f} {speed:.0f} images/s")
        model.eval()
        hits = 0.0
        with torch.inference_mode(), autocast:
            for images, targets in test:
                hits += accuracy(net(images.to(memory_format=torch.channels_last)), targets)[0] * len(images)
        print(f"epoch {epoch + 1} error {100 - hits / 10_000:.2f} %")
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
        torch.save(state, work.out / f"model_{epoch}.pth")


if __name__ == "__main__":
    main()
