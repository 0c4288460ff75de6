"""A trained classifier in use: the likeliest classes of an image and their probabilities."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cnnbench.config.sections import Format
from cnnbench.output.tables import one_line, render
from cnnbench.tasks.predictor import ImageLike, ImagePrediction, Predictor, as_sequence
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import json_text
from cnnbench.utils.format import Percent, shorten
from cnnbench.utils.named_files import common_folder

FILE = 40  # characters of a path in a table


@dataclass(frozen=True)
class ClassProbability:
    """One class and its probability in 0..1."""

    name: str
    probability: float


@dataclass(frozen=True)
class ClassPrediction(ImagePrediction):
    """Classes of one image, the likeliest first; or why the file could not be read."""

    predictions: tuple[ClassProbability, ...] = ()

    @property
    def best(self) -> ClassProbability:
        """The likeliest class. UserError for a file that could not be read."""
        if self.error is not None:
            raise UserError(self.error)
        return self.predictions[0]


class Classifier(Predictor):
    """A trained classifier, ready to be asked."""

    def predict(
        self, images: "ImageLike | Iterable[ImageLike]", top: int = 5, batch_size: int = 32
    ) -> list[ClassPrediction]:
        """The `top` likeliest classes of each image, in the order of the images. images: see `Predictor.predict`."""
        return list(self.predictions(as_sequence(images), top=top, batch_size=batch_size))

    def empty(self, file: str | None, **known: Any) -> ClassPrediction:
        return ClassPrediction(file, **known)

    def decode(self, answers: Tensor, top: int) -> Iterator[dict[str, Any]]:
        best = answers.float().softmax(dim=1).topk(min(top, len(self.classes)), dim=1)
        for probabilities, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            pairs = zip(indices, probabilities, strict=True)
            named = tuple(ClassProbability(self.classes[index], probability) for index, probability in pairs)
            yield {"predictions": named}

    def bars(self, prediction: ClassPrediction) -> tuple[str, list[tuple[str, float, bool]]]:
        return prediction.best.name, [(found.name, found.probability, False) for found in prediction.predictions[:5]]

    def text(self, found: Sequence[ClassPrediction], format: Format, width: int | None) -> str:
        """A table of the first answers with the runners-up beside them; as JSON or CSV every one of them."""
        if format is Format.json:
            return json_text([_as_json(one) for one in found], ascii=False)
        if format is Format.csv:
            return render([row for one in found for row in _long_rows(one)], format)
        if len(found) == 1 and found[0].error is None and format is Format.table:
            rows = [{"": one.name, " ": Percent(100 * one.probability)} for one in found[0].predictions]
            lines = render(rows, format).splitlines()[1:]
            return "\n".join([one_line(str(found[0].file)), *(f"  {line}" for line in lines)])
        return render([_short_row(one, file, width) for one, file in zip(found, _names(found), strict=True)], format)


def _as_json(prediction: ClassPrediction) -> dict[str, Any]:
    predictions = [{"class": found.name, "probability": found.probability} for found in prediction.predictions]
    return {"file": prediction.file, "predictions": predictions, "error": prediction.error}


def _long_rows(prediction: ClassPrediction) -> list[dict[str, Any]]:
    """A row for each class; a single one, with the reason, for a file that could not be read."""
    rows: list[dict[str, Any]] = [
        {"file": prediction.file, "rank": rank, "class": found.name, "probability": found.probability, "error": None}
        for rank, found in enumerate(prediction.predictions, start=1)
    ]
    unread = {"file": prediction.file, "rank": None, "class": None, "probability": None, "error": prediction.error}
    return rows or [unread]


def _names(found: Sequence[ClassPrediction]) -> list[str]:
    """The files; where their paths are long, without the folder that they share."""
    files = [str(one.file) for one in found]
    if len(files) > 1 and max(map(len, files)) > FILE:
        shared = common_folder(files)
        files = [os.path.relpath(file, shared) if shared else file for file in files]
    return [shorten(file, FILE) for file in files]


def _short_row(prediction: ClassPrediction, file: str, width: int | None) -> dict[str, Any]:
    also = max(20, width - 80) if width else 90
    if prediction.error is not None:
        return {"file": file, "answer": "(not read)", "probability": None, "or else": None}
    best, *others = prediction.predictions
    more = ", ".join(f"{found.name} {100 * found.probability:.1f} %" for found in others)
    if len(more) > also:
        more = f"{more[:also].rpartition(',')[0]}, …".removeprefix(", ")
    return {"file": file, "answer": shorten(best.name, 24), "probability": Percent(100 * best.probability),
            "or else": more or None}  # fmt: skip
