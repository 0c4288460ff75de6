"""Lightning: a LightningModule and a Trainer with its usual checkpoints, logger and progress bar."""

import lightning
import torch
import torch.nn.functional as F
from references import accuracy, loaders
from torch import Tensor
from torchvision.models import resnet18
from work import CLASSES, DECAY, LR, MOMENTUM, arguments


class Classifier(lightning.LightningModule):
    def __init__(self, compiled: bool, steps: int) -> None:
        super().__init__()
        self.model = resnet18(num_classes=CLASSES).to(memory_format=torch.channels_last)
        self.net = [torch.compile(self.model) if compiled else self.model]  # in a list: not a second submodule
        self.steps = steps

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        images, targets = batch
        loss = F.cross_entropy(self.net[0](images.to(memory_format=torch.channels_last)), targets)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        images, targets = batch
        top1, top5 = accuracy(self.net[0](images.to(memory_format=torch.channels_last)), targets)
        self.log_dict({"val_top1": top1, "val_top5": top5}, batch_size=len(images))

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.SGD(self.model.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main() -> None:
    work = arguments()
    lightning.seed_everything(0)
    train, test = loaders(work)
    precision = "bf16-mixed" if work.precision == "bf16" else "32-true"
    trainer = lightning.Trainer(max_epochs=work.epochs, accelerator="cpu", precision=precision, logger=True,
                                default_root_dir=work.out, num_sanity_val_steps=0, log_every_n_steps=10)  # fmt: skip
    trainer.fit(Classifier(work.compile, work.epochs * len(train)), train, test)
    print(f"error {100 - trainer.callback_metrics['val_top1'].item():.2f} %")


if __name__ == "__main__":
    main()
