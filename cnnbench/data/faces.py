"""Faces in folders, one for each person: people to train on, and others to judge by."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnnbench.config.sections import DataConfig
from cnnbench.data.scan import images_below
from cnnbench.data.sources import Arrays, Dataset, quiet_pillow, read_image
from cnnbench.utils.errors import UserError
from cnnbench.utils.system import cores

SIDE = 32  # the lecture's: faces of 8 x 8 pixels become 32 x 32


def faces(cfg: DataConfig, root: Path) -> Dataset:
    """ROOT/train/PERSON/*.jpg and ROOT/test/PERSON/*.jpg, in memory, resized to data.image_size, by default 32."""
    home = next(
        (home for home in (root, root / "faces64") if (home / "train").is_dir() and (home / "test").is_dir()), None
    )
    if home is None:
        raise UserError(f"data=faces expects in '{root}' the folders train and test, with a folder for each person.\n"
                        "Set data.root=DIR (or $CNNBENCH_DATA) to where they are.")  # fmt: skip
    side = cfg.image_size or SIDE
    train, val = (_read(home / split, side) for split in ("train", "test"))
    return Dataset(
        name=cfg.name,
        classes=[],
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        image_size=side,
        crop_ratio=1.0,
        in_channels=3,
        train=train,
        val=val,
        split="test",
        task="super_resolution",
    )


def _read(folder: Path, side: int) -> Arrays:
    found = images_below(folder)
    if not found.names:
        raise UserError(f"no images in '{folder}'")
    with quiet_pillow(), ThreadPoolExecutor(cores()) as pool:
        images = list(pool.map(lambda name: _face(folder / name, side), found.names))
    return Arrays(torch.stack(images), torch.zeros(len(images), dtype=torch.int64))


def _face(path: Path, side: int) -> Tensor:
    """Face uint8 (3, side, side), bicubic with antialiasing."""
    from PIL.Image import Resampling

    image = read_image(path, quietly=False)
    if image.size != (side, side):
        image = image.resize((side, side), Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
