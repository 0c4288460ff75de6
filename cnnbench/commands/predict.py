"""`cnnbench predict`: what a trained net says of images. Exit code 1 where some of them could not be read."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from cnnbench.config.commands import PredictConfig
from cnnbench.config.sections import Format
from cnnbench.data.inputs import find_images
from cnnbench.output.tables import ENDINGS
from cnnbench.runtime.device import create_runtime
from cnnbench.tasks.predictor import ImagePrediction, Predictor, predictor_of
from cnnbench.utils.errors import UserError
from cnnbench.utils.exit_codes import DONE, FAILED
from cnnbench.utils.files import write_text
from cnnbench.utils.format import plural
from cnnbench.weights import sources
from cnnbench.weights.load import ready

NAMED = 20  # unreadable files that are listed
SHEET_PIXELS = 320  # longest side of a picture on a sheet


def run(cfg: PredictConfig) -> int:
    files = find_images(cfg.input if isinstance(cfg.input, list) else [str(cfg.input)])
    for key, path in (("out", cfg.out), ("sheet", cfg.sheet)):
        if path and not Path(path).expanduser().parent.is_dir():
            raise UserError(f"{key}={path}: there is no folder {Path(path).parent}")
    if cfg.sheet and Path(cfg.sheet).suffix.lower() != ".png":
        raise UserError(f"sheet={cfg.sheet}: the picture is a PNG, so its name ends in .png")
    runtime = create_runtime(cfg.device, cfg.precision.value, seed=0)
    loaded = sources.load(cfg.weights, cfg.model, cfg.weights_key)
    model, spec, notes = ready(loaded, cfg.model, cfg.prepare, cfg.weights_rename, cfg.weights_skip)
    for note in notes:
        print(note, file=sys.stderr)
    predictor = predictor_of(model, spec, loaded.source, runtime)
    found = list(_with_sheets(_asked(predictor, files, cfg), cfg.sheet, predictor))
    if cfg.out:
        _write(Path(cfg.out).expanduser(), predictor, found, cfg.format)
    print(predictor.text(found, cfg.format, _width()))
    return _complain([one for one in found if one.error is not None], len(found))


def _asked(predictor: Predictor, files: list[str], cfg: PredictConfig) -> Iterator[ImagePrediction]:
    """Predictions as they come, with a bar on the terminal, where a person is looking."""
    found = predictor.predictions(files, top=cfg.top, batch_size=cfg.batch_size, workers=cfg.workers,
                                  thumbnails=SHEET_PIXELS if cfg.sheet else 0)  # fmt: skip
    hidden = not sys.stderr.isatty() or len(files) == 1
    yield from tqdm(found, total=len(files), desc="predict", unit="image", leave=False, disable=hidden)


def _with_sheets(
    found: Iterator[ImagePrediction], sheet: str | None, predictor: Predictor
) -> Iterator[ImagePrediction]:
    """Predictions, drawn page by page as they pass: of a thousand photographs only a page is kept."""
    if sheet is None:
        yield from found
        return
    # matplotlib takes its time, and one image is to take less than that
    from cnnbench.output.prediction_cards import PAGE, Card, draw_cards

    path, page = Path(sheet).expanduser(), 1
    waiting: list[Card] = []

    def draw() -> None:
        file = path if page == 1 else path.with_name(f"{path.stem}-{page}{path.suffix}")
        title = f"What {Path(predictor.source).name} says" + (f", page {page}" if page > 1 else "")
        try:
            draw_cards(waiting, file, title)
        except OSError as error:
            raise UserError(f"sheet={sheet}: cannot write there: {error.strerror}") from None

    for one in found:
        if one.error is None and one.thumbnail is not None:
            if len(waiting) == PAGE:
                draw()
                waiting, page = [], page + 1
            title, bars = predictor.bars(one)
            waiting.append(Card(one.thumbnail, title, Path(one.file).name if one.file else "", bars))
        yield one
    if waiting:
        draw()


def _width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _write(out: Path, predictor: Predictor, found: Sequence[ImagePrediction], format: Format) -> None:
    try:
        write_text(out, predictor.text(found, ENDINGS.get(out.suffix.lower(), format), None) + "\n")
    except OSError as error:
        raise UserError(f"out={out}: cannot write there: {error.strerror}") from None


def _complain(unread: Sequence[ImagePrediction], count: int) -> int:
    """Name the files that could not be read, after the answers; the exit code."""
    if not unread:
        return DONE
    lines = [f"cnnbench: {len(unread):,} of {plural(count, 'image')} could not be read:"]
    lines += [f"  {one.error}" for one in unread[:NAMED]]
    if len(unread) > NAMED:
        lines.append(f"  and {len(unread) - NAMED:,} more; format=json and csv name them all")
    print("\n".join(lines), file=sys.stderr)
    return FAILED
