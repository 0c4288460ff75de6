"""Small configurations and pictures for the tests of the data."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cnnbench.config.sections import AugmentConfig, Crop, DataConfig, Decoder, Interpolation, OnBadImage


def data_config(name: str, **keys: Any) -> DataConfig:
    unset = dict.fromkeys(("image_size", "mean", "std", "workers", "num_classes", "num_images", "packed"))
    values = {"root": None, "download": False, "val_fraction": 0.0, "fraction": 1.0, "crop_ratio": 1.0,
              "interpolation": Interpolation.bilinear, "cache": "auto", "decode": Decoder.auto,
              "on_error": OnBadImage["raise"], **unset, **keys}  # fmt: skip
    paths = {key: None if values[key] is None else str(values[key]) for key in ("root", "packed")}
    return DataConfig(name=name, **{**values, **paths})


def augment_config(**keys: Any) -> AugmentConfig:
    off = {"crop": Crop.none, "padding": 0, "scale": [0.08, 1.0], "ratio": [0.75, 4 / 3]}
    return AugmentConfig(**{**off, "flip": False, "color": 0.0, "cutout": 0, **keys})


def picture(seed: int = 0, width: int = 40, height: int = 30) -> Image.Image:
    """Smooth noise in colour, as a photograph is."""
    small = np.random.default_rng(seed).integers(256, size=(4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def class_tree(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """ROOT/CLASS/0.jpg ...: so many pictures of each class, no two alike."""
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            picture(1000 * seed + 100 * number + index).save(root / name / f"{index}.jpg")
    return root
