"""`cnnbench predict`: what a trained net says of images. Exit code 1 where some of them could not be read."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cnnbench import tasks
from cnnbench.config.commands import PredictConfig
from cnnbench.data.grids import KEY as GRID
from cnnbench.data.grids import grids_in
from cnnbench.data.inputs import find_images
from cnnbench.data.model_spec import ModelSpec
from cnnbench.data.pictures import any_suffixes, suffixes_for
from cnnbench.data.sound_files import moments
from cnnbench.data.spectrogram import KEY as SOUND
from cnnbench.data.spectrogram import Spectrogram
from cnnbench.models.layers import Net
from cnnbench.output.tables import ENDINGS, for_people
from cnnbench.runs.run_directory import make_for_results, path_for
from cnnbench.runtime.device import create_runtime
from cnnbench.tasks.embedding import embedded
from cnnbench.tasks.measurement import measuring
from cnnbench.tasks.predictor import ImagePrediction, Predictor, predictor_of
from cnnbench.utils.console import say, warn
from cnnbench.utils.errors import UserError
from cnnbench.utils.exit_codes import DONE, FAILED
from cnnbench.utils.files import write_text
from cnnbench.utils.format import plural
from cnnbench.utils.named_files import check_output, output
from cnnbench.utils.terminal import terminal_width
from cnnbench.utils.text import slug
from cnnbench.weights import sources
from cnnbench.weights.load import ready
from cnnbench.weights.sources import Weights

NAMED = 20  # unreadable files that are listed
TELL = 10.0  # seconds between two lines of progress, where no terminal shows a bar
SHEET_PIXELS = 320  # longest side of a picture on a sheet


def run(cfg: PredictConfig) -> int:
    inputs = cfg.input if isinstance(cfg.input, list) else [str(cfg.input)]
    try:
        loaded = [sources.load(where, cfg.model, cfg.weights_key) for where in sources.places(cfg.weights)]
    except UserError:
        find_images(inputs, suffixes=any_suffixes())  # a mistake in what is asked about is told first
        raise
    suffixes = suffixes_for(loaded[0].spec) if loaded[0].spec else None
    files = find_images(inputs, suffixes=suffixes)
    sheet = check_outputs(cfg, files)
    runtime = create_runtime(cfg.device, cfg.precision and cfg.precision.value, seed=0)
    predictor = predictor_of([_net(cfg, one) for one in loaded], measuring(runtime, cfg.precision, loaded), cfg.crop,
                             cfg.min_probability)  # fmt: skip
    if cfg.embed and len(loaded) > 1:
        raise UserError("embed=true asks one net: give weights=… one only")
    if cfg.embed:
        return write_embeddings(cfg, predictor, files)
    for note in predictor.notes():
        print(note, file=sys.stderr)
    if cfg.every is not None:
        files = _moments(predictor, files, cfg.every)
    files = [one for file in files for one in _grids(predictor, file)]
    asked = _with_sheets(_asked(predictor, files, cfg), sheet, predictor)
    folder = picture_folder(cfg, loaded[0], files) if predictor.pictorial else None
    found = list(_saved(asked, files, folder, predictor) if folder else asked)
    if cfg.out is not None:
        with output("out", cfg.out) as file:
            write_text(file, predictor.text(found, ENDINGS.get(file.suffix.lower(), cfg.format), None) + "\n")
        say(f"answers -> {cfg.out}", sys.stderr)
    print(predictor.text(found, cfg.format, terminal_width()))
    for remark in predictor.remarked():
        warn(remark)
    if said := predictor.closing(found):
        say(said, sys.stderr)
    if folder:
        say(f"-> {folder}", for_people(cfg.format))
    what = "file" if suffixes else "image"
    return _complain([one for one in found if one.error is not None], len(found), what)


def _net(cfg: PredictConfig, loaded: Weights) -> tuple[Net, ModelSpec, str]:
    model, spec, notes = ready(loaded, cfg.model, cfg.prepare, cfg.weights_rename, cfg.weights_skip)
    for note in notes:
        print(note, file=sys.stderr)
    return model, spec, loaded.source


def _moments(predictor: Predictor, files: Sequence[str], every: float) -> list[Any]:
    if SOUND not in predictor.spec.extra:
        raise UserError(f"every={every:g} is for nets that hear sounds, which {predictor.source} does not")
    spectrogram = Spectrogram.of(predictor.spec.extra[SOUND])
    return [moment for file in files for moment in moments(file, spectrogram, every)]


def _grids(predictor: Predictor, file: Any) -> list[Any]:
    """A file that is asked about; in its place all grids of an .npz, where the net is for grids."""
    if GRID not in predictor.spec.extra or not str(file).endswith(".npz"):
        return [file]
    try:
        return list(grids_in(file))
    except UserError:
        return [file]  # it is read once more, and then named among those that cannot be


def check_outputs(cfg: PredictConfig, files: list[str]) -> Path | None:
    """The sheet's first page. UserError where `out=` or a page of `sheet=` cannot be written, or is an input."""
    used = [*files, *sources.places(cfg.weights)]
    if cfg.out is not None:
        check_output("out", cfg.out, used)
    if cfg.embed and (cfg.sheet is not None or not str(cfg.out).endswith(".npz")):
        raise UserError("embed=true writes the embeddings into a file: give out=FILE.npz, and no sheet")
    if cfg.sheet is None:
        return None
    sheet = check_output("sheet", cfg.sheet, used)
    if sheet.suffix.lower() != ".png":
        raise UserError(f"sheet={cfg.sheet}: the picture is a PNG, so its name ends in .png")
    from cnnbench.output.prediction_cards import PAGE  # matplotlib takes its time, and is not always needed

    for number in range(2, len(files) // PAGE + 2):
        check_output("sheet", page_file(sheet, number), used)
    return sheet


def write_embeddings(cfg: PredictConfig, predictor: Predictor, files: Sequence[str]) -> int:
    """Write the names `files` and the rows `embeddings` float32 (N, D) of the images that can be read. Exit code."""
    assert cfg.out is not None
    watched = sys.stderr.isatty() and len(files) > 1
    found = list(tqdm(embedded(predictor, files, cfg.batch_size, cfg.workers), total=len(files), desc="embed",
                      unit="image", leave=False, disable=not watched))  # fmt: skip
    rows = {one.file: one.row for one in found if one.row is not None}
    if rows:
        table = np.stack(list(rows.values()))
        with output("out", cfg.out) as file, file.open("wb") as stream:
            np.savez(stream, files=np.array([str(name) for name in rows]), embeddings=table)
        say(f"{plural(len(table), 'embedding')} of {table.shape[1]:,} numbers -> {cfg.out}", for_people(cfg.format))
    return _complain([ImagePrediction(one.file, error=one.error) for one in found if one.error], len(found), "file")


def picture_folder(cfg: PredictConfig, loaded: Weights, files: Sequence[str]) -> Path:
    """Folder for the pictures that a net answers with, made before the work begins. UserError where images that are
    read lie there: an answer has its image's name, and would replace it."""
    folder = path_for("predict", cfg, slug([sources.short_name(loaded.source)]))
    if any(Path(file).resolve().parent == folder.resolve() for file in files):
        raise UserError(f"the answers are written to {folder}, which holds images that are read: give another run.dir")
    make_for_results(folder)
    return folder


def picture_names(files: Sequence[str]) -> list[str]:
    """`NAME.png` for each file; with the number of the file where several have one name."""
    stems = [Path(file).stem for file in files]
    often = {stem for stem, count in Counter(stems).items() if count > 1}
    return [f"{stem}-{number}.png" if stem in often else f"{stem}.png" for number, stem in enumerate(stems, start=1)]


def _saved(found: Iterator[Any], files: Sequence[str], folder: Path, predictor: Predictor) -> Iterator[Any]:
    """Predictions whose pictures are written as they come: of a thousand photographs only one is kept."""
    for one, name in zip(found, picture_names(files), strict=True):
        yield one if one.error is not None else predictor.save(one, folder / name)


def page_file(sheet: Path, number: int) -> Path:
    return sheet if number == 1 else sheet.with_name(f"{sheet.stem}-{number}{sheet.suffix}")


def _asked(predictor: Predictor, files: list[str], cfg: PredictConfig) -> Iterator[ImagePrediction]:
    """Predictions as they come, with a bar on the terminal where a person is looking, else a line now and then."""
    found = predictor.predictions(files, top=cfg.top, batch_size=cfg.batch_size, workers=cfg.workers,
                                  thumbnails=SHEET_PIXELS if cfg.sheet else 0,
                                  **tasks.own_keys(cfg, predictor.task))  # fmt: skip
    watched = sys.stderr.isatty()
    bar = tqdm(
        found, total=len(files), desc="predict", unit="image", leave=False, disable=not watched or len(files) == 1
    )
    told = time.monotonic()
    for number, one in enumerate(bar, start=1):
        if not watched and time.monotonic() - told > TELL:
            told = time.monotonic()
            say(f"predict: {number:,} of {len(files):,} images", sys.stderr)
        yield one


def _with_sheets(
    found: Iterator[ImagePrediction], sheet: Path | None, predictor: Predictor
) -> Iterator[ImagePrediction]:
    """Predictions, drawn page by page as they pass: of a thousand photographs only a page is kept."""
    if sheet is None:
        yield from found
        return
    from cnnbench.output.prediction_cards import PAGE

    page = 1
    waiting: list[ImagePrediction] = []

    def draw() -> None:
        title = f"What {predictor.name} says" + (f", page {page}" if page > 1 else "")
        with output("sheet", page_file(sheet, page)) as file:
            predictor.draw_sheet(waiting, file, title)

    for one in found:
        if one.error is None and one.thumbnail is not None:
            if len(waiting) == PAGE:
                draw()
                waiting, page = [], page + 1
            waiting.append(replace(one, picture=None))
        yield one
    if waiting:
        draw()
        more = f" to {page_file(sheet, page)}" if page > 1 else ""
        say(f"{plural(page, 'sheet')} -> {sheet}{more}", sys.stderr)


def _complain(unread: Sequence[ImagePrediction], count: int, what: str) -> int:
    """Name the files that could not be read, after the answers; the exit code."""
    if not unread:
        return DONE
    lines = [f"cnnbench: {len(unread):,} of {plural(count, what)} could not be read:"]
    lines += [f"  {one.error}" for one in unread[:NAMED]]
    if len(unread) > NAMED:
        lines.append(f"  and {len(unread) - NAMED:,} more; format=json and csv name them all")
    print("\n".join(lines), file=sys.stderr)
    return FAILED
