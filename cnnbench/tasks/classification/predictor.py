"""A trained classifier in use: the likeliest classes of an image and their probabilities."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cnnbench.config.sections import CropConfig, Format
from cnnbench.data.model_spec import ModelSpec
from cnnbench.data.pictures import as_input
from cnnbench.data.views import Groups
from cnnbench.models.layers import Net
from cnnbench.output.tables import one_line, render
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.base import Task
from cnnbench.tasks.classification import asking, temperature
from cnnbench.tasks.passes import check_answers
from cnnbench.tasks.predictor import ImageLike, ImagePrediction, Predictor, as_sequence, name_of
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import json_text
from cnnbench.utils.format import Percent, plural, shorten
from cnnbench.utils.named_files import common_folder

FILE = 40  # characters of a path in a table
UNSURE = "unsure"  # the answer below min_probability


@dataclass(frozen=True)
class ClassProbability:
    """One class and its probability in 0..1."""

    name: str
    probability: float


@dataclass(frozen=True)
class ClassPrediction(ImagePrediction):
    """Classes of one image, the likeliest first; or why the file could not be read."""

    predictions: tuple[ClassProbability, ...] = ()
    unsure: bool = False  # whether the likeliest class has less than `min_probability`

    @property
    def best(self) -> ClassProbability:
        """The likeliest class. UserError for a file that could not be read."""
        if self.error is not None:
            raise UserError(self.error)
        return self.predictions[0]

    @property
    def answer_text(self) -> str:
        """The likeliest class, or "unsure"."""
        return UNSURE if self.unsure else self.best.name


class Classifier(Predictor):
    """A trained classifier, ready to be asked; or several, whose probabilities are averaged.

    least: probability below which an answer is unsure. nets: this one and those that are asked with it; of each,
    `columns` are its logits in the order of this one's classes, `shown` the views by which it is asked.
    """

    def __init__(self, task: Task, model: Net, spec: ModelSpec, source: str, runtime: Runtime) -> None:
        super().__init__(task, model, spec, source, runtime)
        self.batch_size = 32
        self.asked()

    def asked(
        self, others: Sequence[Predictor] = (), crop: CropConfig | None = None, least: float | None = None
    ) -> "Classifier":
        if least is not None and not 0 < least <= 1:
            raise UserError(f"min_probability={least:g} is out of range: it must be > 0 and <= 1")
        self.least, self.nets = least, [self, *others]
        self.name = " + ".join(name_of(one.source) for one in self.nets)
        self.columns = [asking.columns_of(self.spec, self.source, one.spec, one.source) for one in self.nets]
        self.shown = [asking.views(crop or CropConfig(), one.model, one.spec) for one in self.nets]
        self.members = [asking.member(one.model, shown, one.spec, one.runtime)
                        for one, shown in zip(self.nets, self.shown, strict=True)]  # fmt: skip
        return self

    def predict(
        self, images: "ImageLike | Iterable[ImageLike]", top: int = 5, batch_size: int = 32
    ) -> list[ClassPrediction]:
        """The `top` likeliest classes of each image, in the order of the images. images: see `Predictor.predict`."""
        return list(self.predictions(as_sequence(images, self.spec), top=top, batch_size=batch_size))

    def predictions(self, images: Iterable[Any], *, batch_size: int = 32, **more: Any) -> Iterator[Any]:
        """As `Predictor.predictions`. batch_size: views in a forward pass; those of one image are at hand together."""
        self.batch_size = batch_size
        return super().predictions(images, batch_size=max(1, batch_size // max(shown.count for shown in self.shown)),
                                   **more)  # fmt: skip

    def empty(self, file: str | None, **known: Any) -> ClassPrediction:
        return ClassPrediction(file, **known)

    def notes(self) -> list[str]:
        said = [text for one in self.nets for text in temperature.note(one.spec, one.source)]
        if self.least is not None and self.least <= 1 / len(self.classes):
            said.append(f"min_probability={self.least:g} changes nothing: the likeliest of {len(self.classes):,} "
                        f"classes always has {1 / len(self.classes):.2g} or more")  # fmt: skip
        return said

    def prepared(self, image: Any) -> tuple[Any, list[Groups]]:
        channels = [one.spec.input.in_channels for one in self.nets]
        pictures = [as_input(image, one.spec, self.remarks) for one in self.nets]
        views = [shown(picture) for shown, picture in zip(self.shown, pictures, strict=True)]
        return pictures[channels.index(max(channels))], views

    def answers(self, inputs: Sequence[list[Groups]], names: Sequence[str]) -> Tensor:
        """Logits of a single net and view, else the logarithms of the mean probabilities: float32 (N, classes)."""
        found = []
        for number, one in enumerate(self.nets):
            views = [given[number] for given in inputs]
            scores = asking.scores_of(self.members[number], self.shown[number], views, self.batch_size)
            check_answers(scores, one.source, lambda at: [names[index] for index in at], self.runtime.precision)
            found.append(scores[:, self.columns[number]])
        return asking.ensemble(found)

    def decode(self, answers: Tensor, top: int) -> Iterator[dict[str, Any]]:
        best = answers.float().softmax(dim=1).topk(min(top, len(self.classes)), dim=1)
        for probabilities, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            pairs = zip(indices, probabilities, strict=True)
            named = tuple(ClassProbability(self.classes[index], probability) for index, probability in pairs)
            yield {"predictions": named, "unsure": self.least is not None and named[0].probability < self.least}

    def bars(self, prediction: ClassPrediction) -> tuple[str, list[tuple[str, float, bool]]]:
        return prediction.answer_text, [(found.name, found.probability, False) for found in prediction.predictions[:5]]

    def text(self, found: Sequence[ClassPrediction], format: Format, width: int | None) -> str:
        """A table of the first answers with the runners-up beside them; as JSON or CSV every one of them."""
        answered = self.least is not None
        if format is Format.json:
            return json_text([_as_json(one, answered) for one in found], ascii=False)
        if format is Format.csv:
            return render([row for one in found for row in _long_rows(one, answered)], format)
        if len(found) == 1 and found[0].error is None and format is Format.table:
            rows = [{"": one.name, " ": Percent(100 * one.probability)} for one in found[0].predictions]
            lines = [*([UNSURE] if found[0].unsure else []), *render(rows, format).splitlines()[1:]]
            return "\n".join([one_line(str(found[0].file)), *(f"  {line}" for line in lines)])
        return render([_short_row(one, file, width) for one, file in zip(found, _names(found), strict=True)], format)

    def closing(self, found: Sequence[ClassPrediction]) -> str:
        read = [one for one in found if one.error is None]
        if self.least is None or not read:
            return ""
        unsure = sum(one.unsure for one in read)
        return f"{unsure:,} of {plural(len(read), 'answer')} {UNSURE} (min_probability={self.least:g})"


def _as_json(prediction: ClassPrediction, answered: bool) -> dict[str, Any]:
    predictions = [{"class": found.name, "probability": found.probability} for found in prediction.predictions]
    answer = {"answer": prediction.answer_text if predictions else None} if answered else {}
    return {"file": prediction.file, **answer, "predictions": predictions, "error": prediction.error}


def _long_rows(prediction: ClassPrediction, answered: bool) -> list[dict[str, Any]]:
    """A row for each class; a single one, with the reason, for a file that could not be read."""
    answer = {"answer": prediction.answer_text if prediction.predictions else None} if answered else {}
    known = {"file": prediction.file, **answer}
    rows: list[dict[str, Any]] = [
        {**known, "rank": rank, "class": found.name, "probability": found.probability, "error": None}
        for rank, found in enumerate(prediction.predictions, start=1)
    ]
    unread = {**known, "rank": None, "class": None, "probability": None, "error": prediction.error}
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
    if prediction.unsure:
        others = [best, *others]
    more = ", ".join(f"{found.name} {100 * found.probability:.1f} %" for found in others)
    if len(more) > also:
        more = f"{more[:also].rpartition(',')[0]}, …".removeprefix(", ")
    return {"file": file, "answer": shorten(prediction.answer_text, 24), "probability": Percent(100 * best.probability),
            "or else": more or None}  # fmt: skip
