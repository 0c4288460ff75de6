"""A made-up set of images with boxes, in every layout that is read: bright squares and dark bars on gray noise."""

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("bar", "square")
WIDTH, HEIGHT = 80, 64
Boxes = list[tuple[str, tuple[int, int, int, int]]]


def picture(rng: np.random.Generator, count: int) -> tuple[np.ndarray, Boxes]:
    """Pixels and the name and corners (left, top, right, bottom) of each object; none lies on another."""
    pixels = rng.integers(90, 130, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    boxes: Boxes = []
    taken = np.zeros((HEIGHT, WIDTH), bool)
    for _ in range(count):
        name = NAMES[rng.integers(2)]
        wide, high = (24, 8) if name == "bar" else (14, 14)
        left, top = int(rng.integers(0, WIDTH - wide)), int(rng.integers(0, HEIGHT - high))
        part = np.s_[top : top + high, left : left + wide]
        if not taken[part].any():
            pixels[part] = (20, 20, 60) if name == "bar" else (240, 230, 40)
            taken[part] = True
            boxes.append((name, (left, top, left + wide, top + high)))
    return pixels, boxes


def made(parts: dict[str, int], seed: int = 0) -> dict[str, dict[str, tuple[np.ndarray, Boxes]]]:
    """Images of each split by name; the first of each has no box."""
    rng = np.random.default_rng(seed)
    return {split: {f"{split}{n:02d}": picture(rng, 0 if n == 0 else 1 + n % 4) for n in range(count)}
            for split, count in parts.items()}  # fmt: skip


PARTS = {"train": 24, "val": 8}


def write_voc(root: Path, parts: dict[str, int] | None = None) -> Path:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, images in made(parts or PARTS).items():
        (root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{name}\n" for name in images))
        for name, (pixels, boxes) in images.items():
            Image.fromarray(pixels).save(root / f"JPEGImages/{name}.png")
            objects = "".join(
                f"<object>\n<name>{label}</name><difficult>0</difficult>\n<bndbox><xmin>{left + 1}</xmin>"
                f"<ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox>\n</object>\n"
                for label, (left, top, right, bottom) in boxes
            )
            size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
            (root / f"Annotations/{name}.xml").write_text(f"<annotation>\n{size}\n{objects}</annotation>\n")
    return root


def write_coco(root: Path) -> Path:
    (root / "annotations").mkdir(parents=True)
    for split, images in made(PARTS).items():
        (root / split).mkdir()
        content: dict[str, list] = {"images": [], "annotations": [],
                                    "categories": [{"id": 7, "name": "square"}, {"id": 3, "name": "bar"}]}  # fmt: skip
        for number, (name, (pixels, boxes)) in enumerate(images.items()):
            Image.fromarray(pixels).save(root / split / f"{name}.png")
            content["images"].append({"id": number, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT})
            for label, (left, top, right, bottom) in boxes:
                content["annotations"].append({
                    "id": len(content["annotations"]), "image_id": number, "category_id": 3 if label == "bar" else 7,
                    "bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top),
                    "iscrowd": 0,
                })  # fmt: skip
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    return root


def write_yolo(root: Path) -> Path:
    for split, images in made(PARTS).items():
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        for name, (pixels, boxes) in images.items():
            Image.fromarray(pixels).save(root / f"images/{split}/{name}.png")
            lines = [f"{NAMES.index(label)} {(left + right) / 2 / WIDTH} {(top + bottom) / 2 / HEIGHT} "
                     f"{(right - left) / WIDTH} {(bottom - top) / HEIGHT}\n"
                     for label, (left, top, right, bottom) in boxes]  # fmt: skip
            (root / f"labels/{split}/{name}.txt").write_text("".join(lines))
    (root / "data.yaml").write_text("names: [bar, square]\n")
    return root


def write_csv(root: Path) -> Path:
    (root / "images").mkdir(parents=True)
    for split, images in made(PARTS).items():
        with (root / f"{split}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["filename", "xmin", "ymin", "xmax", "ymax", "class"])
            for name, (pixels, boxes) in images.items():
                Image.fromarray(pixels).save(root / f"images/{name}.png")
                rows.writerows([f"{name}.png", *corners, label] for label, corners in boxes)
                if not boxes:
                    rows.writerow([f"{name}.png", "", "", "", "", ""])
    return root
