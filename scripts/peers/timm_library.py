"""timm's library as its train.py uses it. (Its source distribution holds the library alone, without train.py.)"""

import logging

import torch
from timm.data import create_dataset, create_loader
from timm.models import create_model
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, CheckpointSaver, accuracy, setup_default_logging, update_summary
from torch.utils.data import DataLoader
from work import BATCH, CLASSES, DECAY, LR, MEAN, MOMENTUM, STD, WORKERS, Work, arguments, chosen

log = logging.getLogger("train")


def loaders(work: Work) -> tuple[DataLoader, DataLoader]:
    train = create_dataset("torch/cifar10", root=str(work.data), split="train", is_training=True)
    test = create_dataset("torch/cifar10", root=str(work.data), split="validation")
    picked = chosen(train.targets, work.images)
    train.data, train.targets = train.data[picked], [train.targets[index] for index in picked]
    shared = {"input_size": (3, 32, 32), "batch_size": BATCH, "use_prefetcher": True, "interpolation": "bilinear",
              "mean": MEAN, "std": STD, "num_workers": WORKERS, "device": torch.device("cpu")}  # fmt: skip
    # Without the colour jitter, which is on by default: nobody else here has it.
    return (create_loader(train, is_training=True, color_jitter=0.0, **shared),
            create_loader(test, crop_pct=1.0, **shared))  # fmt: skip


def main() -> None:
    work = arguments()
    setup_default_logging()
    torch.manual_seed(0)
    model = create_model("resnet18", num_classes=CLASSES).to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt="momentum", lr=LR, weight_decay=DECAY, momentum=MOMENTUM)
    net = torch.compile(model) if work.compile else model
    train, test = loaders(work)
    schedule, epochs = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=work.epochs, step_on_epochs=False, updates_per_epoch=len(train)
    )
    criterion = torch.nn.CrossEntropyLoss()
    saver = CheckpointSaver(model, optimizer, checkpoint_dir=str(work.out), recovery_dir=str(work.out))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=work.precision == "bf16")
    for epoch in range(epochs):
        losses, top1, top5 = AverageMeter(), AverageMeter(), AverageMeter()
        model.train()
        for number, (images, targets) in enumerate(train):
            with autocast:
                loss = criterion(net(images.contiguous(memory_format=torch.channels_last)), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.update(loss.item(), len(images))
            if number % 50 == 0:
                log.info("%d %d loss %.3f", epoch, number, losses.avg)
            schedule.step_update(epoch * len(train) + number + 1, metric=losses.avg)
        model.eval()
        with torch.inference_mode(), autocast:
            for images, targets in test:
                logits = net(images.contiguous(memory_format=torch.channels_last))
                hits = accuracy(logits, targets, topk=(1, 5))
                top1.update(hits[0].item(), len(images))
                top5.update(hits[1].item(), len(images))
        log.info("epoch %d error %.2f %%", epoch + 1, 100 - top1.avg)
        rows = {"loss": losses.avg}, {"top1": top1.avg, "top5": top5.avg}
        update_summary(epoch, *rows, filename=str(work.out / "summary.csv"), write_header=epoch == 0)
        saver.save_checkpoint(epoch, metric=top1.avg)


if __name__ == "__main__":
    main()
