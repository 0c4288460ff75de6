"""A net of two layers that says a class for each pixel."""

from torch import Tensor, nn

from cnnbench.models.layers import MASK, Net


class TinyFcn(Net):
    """A class for each pixel."""

    image_size, answers = 16, MASK

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(in_channels, 8, 3, padding=1), nn.Conv2d(8, num_classes, 1)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {"stem": [self.conv], "head": [self.fc]}

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.conv(images).relu())
