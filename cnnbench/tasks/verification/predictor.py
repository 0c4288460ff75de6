"""A trained net in use: do the images that are given show the person of the first one?"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cnnbench.config.sections import Format
from cnnbench.output.tables import render
from cnnbench.tasks.predictor import ImagePrediction, Predictor, as_sequence
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import json_text


@dataclass(frozen=True)
class Comparison(ImagePrediction):
    """The image `file` beside the image `first`: their distance, and whether they show one person."""

    first: str | None = None
    distance: float | None = None  # 1 - cosine of the embeddings, 0..2
    threshold: float | None = None  # up to which two images show one person; None: the net has none
    same: bool | None = None  # None without a threshold, and for a file that could not be read
    pair: Sequence[np.ndarray] = field(default=(), repr=False, compare=False)  # thumbnails, where asked for

    @property
    def text(self) -> str:
        """`same`, `different`, or that nothing is known."""
        return "unknown" if self.same is None else "same" if self.same else "different"


class Verifier(Predictor):
    """Compares the first image with each of the others."""

    @property
    def known(self) -> dict[str, Any]:
        """Threshold of the net and where it is from; empty where it has none."""
        found: dict[str, Any] = self.spec.extra.get("threshold", {})
        return found

    def notes(self) -> list[str]:
        if not self.known:
            return [f"{self.source} has no threshold: distances are said, and nothing of whether two are one person"]
        return [f"one person up to a distance of {self.known['distance']:.4f}, which suits these best: "
                f"{self.known['origin']}"]  # fmt: skip

    def predict(self, images: Any, *, batch_size: int = 32) -> Sequence[Comparison]:
        """The first image beside each of the others, in their order. images: two or more, each as for any predictor."""
        return list(self.predictions(as_sequence(images), batch_size=batch_size))

    def predictions(self, images: Iterable[Any], **more: Any) -> Iterator[Any]:
        """Comparisons one by one, one less than images. UserError for a single image, or a first one that cannot be
        read."""
        found = super().predictions(images, **more)
        first = next(found, None)
        if first is None or first.error is not None:
            raise UserError("name two images to compare" if first is None else str(first.error))
        second = next(found, None)
        if second is None:
            raise UserError(f"predict compares images, but '{first.file}' is alone: name another one as well")
        yield self.compared(first, second)
        for one in found:
            yield self.compared(first, one)

    def decode(self, answers: Tensor, top: int) -> Iterator[dict[str, Any]]:
        for embedding in answers.float().cpu():
            yield {"picture": embedding}

    def compared(self, first: ImagePrediction, one: ImagePrediction) -> Comparison:
        if one.error is not None:
            return Comparison(one.file, error=one.error, first=first.file)
        assert first.picture is not None and one.picture is not None
        distance = 1 - float(first.picture.double() @ one.picture.double())
        threshold = self.known["distance"] if self.known else None
        same = None if threshold is None else distance <= threshold
        pair = () if one.thumbnail is None or first.thumbnail is None else (first.thumbnail, one.thumbnail)
        found = Comparison(one.file, thumbnail=one.thumbnail, first=first.file, distance=distance, threshold=threshold,
                           same=same, pair=pair)  # fmt: skip
        return replace(found, answer={"answer": found.text, "distance": distance, "threshold": threshold})

    def text(self, found: Sequence[Comparison], format: Format, width: int | None) -> str:
        rows = [self.row(one) for one in found]
        if format is Format.json:
            return json_text(rows, ascii=False)
        return render([{key: value for key, value in one.items() if key != "threshold_origin"} for one in rows], format)

    def row(self, one: Comparison) -> dict[str, Any]:
        said = {"answer": one.text, "distance": one.distance, "threshold": one.threshold,
                "threshold_origin": self.known["origin"] if self.known else None}  # fmt: skip
        return {"first": one.first, "second": one.file, **said, **({"error": one.error} if one.error else {})}

    def draw_sheet(self, found: Sequence[Any], path: Path, title: str) -> None:
        from cnnbench.output.image_grid import Tile, draw_grid, in_rows
        from cnnbench.tasks.verification.plots import beside

        tiles = [
            Tile(
                beside(*one.pair),
                f"{one.text}, {one.distance:.3f}",
                "/".join(Path(one.file or "").parts[-2:]),
                one.same is False,
            )
            for one in found
        ]
        about = f"threshold {self.known['distance']:.3f}, {self.known['origin']}" if self.known else "no threshold"
        draw_grid(
            in_rows(tiles), path, title, side=2.4, footer=f"Distance of the embeddings; {about}. Framed: different."
        )
