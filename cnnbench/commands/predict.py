"""`cnnbench predict`: what a trained net says of images. Exit code 1 where some of them could not be read."""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cnnbench.config.commands import PredictConfig
from cnnbench.config.sections import Format
from cnnbench.data.inputs import find_images
from cnnbench.output.tables import ENDINGS, Percent, plural, render, shorten
from cnnbench.runtime.device import create_runtime
from cnnbench.tasks.classification.predictor import Answer, Classifier
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import write_text
from cnnbench.weights import sources
from cnnbench.weights.load import ready

DONE, SOME_UNREADABLE = 0, 1
FILE = 40  # characters of a path in a table
NAMED = 20  # unreadable files that are listed
SHEET_PIXELS = 320  # longest side of a picture on a sheet


def run(cfg: PredictConfig) -> int:
    files = find_images(cfg.input if isinstance(cfg.input, list) else [str(cfg.input)])
    for key, path in (("out", cfg.out), ("sheet", cfg.sheet)):
        if path and not Path(path).expanduser().parent.is_dir():
            raise UserError(f"{key}={path}: there is no folder {Path(path).parent}")
    if cfg.sheet and Path(cfg.sheet).suffix.lower() != ".png":
        raise UserError(f"sheet={cfg.sheet}: the picture is a PNG, so its name ends in .png")
    device = create_runtime(cfg.device, cfg.precision.value, seed=0)
    loaded = sources.load(cfg.weights, cfg.model)
    model, spec, notes = ready(loaded, cfg.model, cfg.prepare, cfg.weights_rename, cfg.weights_skip)
    for note in notes:
        print(note, file=sys.stderr)
    classifier = Classifier(model, spec, loaded.source, device)
    answers = list(_with_sheets(_asked(classifier, files, cfg), cfg.sheet, classifier.source))
    if cfg.out:
        _write(Path(cfg.out).expanduser(), answers, cfg.format)
    print(text(answers, cfg.format, _width()))
    return _complain([answer for answer in answers if answer.error is not None], len(answers))


def _asked(classifier: Classifier, files: list[str], cfg: PredictConfig) -> Iterator[Answer]:
    """The answers as they come, with a bar on the terminal, where a person is looking."""
    found = classifier.answers(files, top=cfg.top, batch_size=cfg.batch_size, workers=cfg.workers,
                               thumbnails=SHEET_PIXELS if cfg.sheet else 0)  # fmt: skip
    hidden = not sys.stderr.isatty() or len(files) == 1
    yield from tqdm(found, total=len(files), desc="predict", unit="image", leave=False, disable=hidden)


def _with_sheets(answers: Iterator[Answer], sheet: str | None, source: str) -> Iterator[Answer]:
    """The answers, drawn page by page as they pass: of a thousand photographs only a page is kept."""
    if sheet is None:
        yield from answers
        return
    from cnnbench.output import image_grid  # matplotlib takes its time, and one image is to take less than that

    path, page = Path(sheet).expanduser(), 1
    waiting: list[image_grid.Cell] = []

    def draw() -> None:
        file = path if page == 1 else path.with_name(f"{path.stem}-{page}{path.suffix}")
        try:
            image_grid.draw(waiting, file, f"What {Path(source).name} says" + (f", page {page}" if page > 1 else ""))
        except OSError as error:
            raise UserError(f"sheet={sheet}: cannot write there: {error.strerror}") from None

    for answer in answers:
        if answer.error is None and answer.thumbnail is not None:
            if len(waiting) == image_grid.PAGE:
                draw()
                waiting, page = [], page + 1
            bars = [(found.name, found.probability, False) for found in answer.predictions[:5]]
            note = Path(answer.file).name if answer.file else ""
            waiting.append(image_grid.Cell(answer.thumbnail, answer.best.name, note, bars))
        yield answer
    if waiting:
        draw()


# As text


def text(answers: Sequence[Answer], format: Format, width: int | None) -> str:
    """All answers: a table of the first with the runners-up beside it; as JSON or CSV every one of them."""
    if format is Format.json:
        return json.dumps([as_json(answer) for answer in answers], indent=2, ensure_ascii=False)
    if format is Format.csv:
        return render([row for answer in answers for row in _long(answer)], format)
    if len(answers) == 1 and answers[0].error is None and format is Format.table:
        rows = [{"": found.name, " ": Percent(100 * found.probability)} for found in answers[0].predictions]
        lines = render(rows, format).splitlines()[1:]
        return "\n".join([str(answers[0].file), *(f"  {line}" for line in lines)])
    return render([_short(answer, file, width) for answer, file in zip(answers, _names(answers), strict=True)], format)


def as_json(answer: Answer) -> dict[str, Any]:
    predictions = [{"class": found.name, "probability": found.probability} for found in answer.predictions]
    return {"file": answer.file, "predictions": predictions, "error": answer.error}


def _long(answer: Answer) -> list[dict[str, Any]]:
    """A row for each class; a single one, with the reason, for a file that could not be read."""
    rows: list[dict[str, Any]] = [
        {"file": answer.file, "rank": rank, "class": found.name, "probability": found.probability, "error": None}
        for rank, found in enumerate(answer.predictions, start=1)
    ]
    unread = {"file": answer.file, "rank": None, "class": None, "probability": None, "error": answer.error}
    return rows or [unread]


def _names(answers: Sequence[Answer]) -> list[str]:
    """The files; where their paths are long, without the folder that they share."""
    files = [str(answer.file) for answer in answers]
    if len(files) > 1 and max(map(len, files)) > FILE:
        shared = os.path.commonpath([os.path.dirname(file) for file in files])  # noqa: PTH120
        files = [os.path.relpath(file, shared) if shared else file for file in files]
    return [shorten(file, FILE) for file in files]


def _short(answer: Answer, file: str, width: int | None) -> dict[str, Any]:
    also = max(20, width - 80) if width else 90
    if answer.error is not None:
        return {"file": file, "answer": "(not read)", "probability": None, "or else": None}
    best, *others = answer.predictions
    more = ", ".join(f"{found.name} {100 * found.probability:.1f} %" for found in others)
    if len(more) > also:
        more = f"{more[:also].rpartition(',')[0]}, …".removeprefix(", ")
    return {"file": file, "answer": shorten(best.name, 24), "probability": Percent(100 * best.probability),
            "or else": more or None}  # fmt: skip


def _width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _write(out: Path, answers: Sequence[Answer], format: Format) -> None:
    try:
        write_text(out, text(answers, ENDINGS.get(out.suffix.lower(), format), None) + "\n")
    except OSError as error:
        raise UserError(f"out={out}: cannot write there: {error.strerror}") from None


def _complain(unread: Sequence[Answer], count: int) -> int:
    """Name the files that could not be read, after the answers; the exit code."""
    if not unread:
        return DONE
    lines = [f"cnnbench: {len(unread):,} of {plural(count, 'image')} could not be read:"]
    lines += [f"  {answer.error}" for answer in unread[:NAMED]]
    if len(unread) > NAMED:
        lines.append(f"  and {len(unread) - NAMED:,} more; format=json and csv name them all")
    print("\n".join(lines), file=sys.stderr)
    return SOME_UNREADABLE
