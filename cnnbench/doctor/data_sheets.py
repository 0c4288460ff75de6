"""Pictures of what `cnnbench doctor data` found: the likeliest wrong labels, and the copies side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cnnbench.data.pictures import thumbnail
from cnnbench.data.sources import read_item
from cnnbench.doctor.copies import Copy
from cnnbench.doctor.image_files import Images
from cnnbench.doctor.labels import Suspect
from cnnbench.output.image_grid import Tile, draw_grid, in_rows
from cnnbench.output.prediction_cards import PIXELS, Card, draw_cards

BARS = 3  # classes shown under an image
HEIGHT, GAP = 200, 6  # pixels of the two images of a pair, and between them


def draw_suspects(
    images: Images, suspects: Sequence[Suspect], probabilities: dict[int, np.ndarray], path: Path
) -> None:
    """A card for each suspect: its label, and the likeliest classes as bars. probabilities: by the image's index."""
    title = (
        "The likeliest wrong labels: in bold the label (✓), below it what a classifier says that never saw the image"
    )
    draw_cards([_card(images, one, probabilities[one.index]) for one in suspects], path, title)


def _card(images: Images, suspect: Suspect, probabilities: np.ndarray) -> Card:
    best = np.argsort(-probabilities)[:BARS].tolist()
    shown = best if suspect.label in best else [*best[:-1], suspect.label]
    return Card(
        picture=_picture(images, suspect.index, PIXELS),
        title=images.classes[suspect.label],
        note=f"{images.splits[suspect.index]}: {Path(images.names[suspect.index]).name}",
        bars=[(images.classes[one], float(probabilities[one]), one == suspect.label) for one in shown],
    )


def draw_pairs(images: Images, pairs: Sequence[Copy], path: Path) -> None:
    """A tile for each pair, both images side by side; a frame marks pairs with two labels."""
    title = "Copies: those with two labels (framed) first, then those in two splits, then the most similar"
    draw_grid(in_rows([_tile(images, pair) for pair in pairs]), path, title, side=2.6, font=7.5)


def _tile(images: Images, pair: Copy) -> Tile:
    both = [images.place(index) for index in (pair.first, pair.other)]
    left, right = (f"{place['split']} {place['label']}" for place in both)
    how = "exact" if pair.exact else f"{pair.cosine:.3f}"
    return Tile(
        picture=_beside([_picture(images, index, PIXELS) for index in (pair.first, pair.other)]),
        title=f"{how}: {left} | {right}",
        note=" | ".join(Path(place["file"]).name for place in both),
        marked=both[0]["label"] != both[1]["label"],
    )


def _picture(images: Images, index: int, side: int) -> np.ndarray:
    source, at = images.source_of(index)
    return thumbnail(read_item(source.item(at)), side)


def _beside(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """The pictures fitted into squares side by side, so that all tiles have one shape."""
    whole = np.full((HEIGHT, len(pictures) * (HEIGHT + GAP) - GAP, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        scale = HEIGHT / max(picture.shape[:2])
        height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
        how = Image.Resampling.NEAREST if max(picture.shape[:2]) < 100 else Image.Resampling.LANCZOS
        small = np.asarray(Image.fromarray(picture).resize((width, height), how))
        top, left = (HEIGHT - height) // 2, number * (HEIGHT + GAP) + (HEIGHT - width) // 2
        whole[top : top + height, left : left + width] = small
    return whole
