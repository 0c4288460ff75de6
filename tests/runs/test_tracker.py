"""Progress on the terminal: one line for an epoch, and a bar whose numbers are whole, in a terminal of any width."""

import io

import pytest
from tqdm import tqdm

from cnnbench import tasks
from cnnbench.runs.tracker import SHORT_BAR, epoch_text, fit_bar
from cnnbench.utils.format import display_width

VALUES = {"loss": 1261.25, "top1_error": 89.75, "top5_error": 50.5}
TASK = tasks.find("classification")()


def line(width: int | None) -> str:
    return epoch_text(TASK, 7, 100, VALUES, VALUES, 12345.6, 3700.0, width)


def test_an_epoch_is_one_line() -> None:
    assert line(None) == (
        "epoch   7/100  train loss 1261.250, top-1 err 89.75 %, top-5 err 50.50 %"
        "  val loss 1261.250, top-1 err 89.75 %, top-5 err 50.50 %  12,346 images/s  1:01:40 left"
    )
    assert line(200) == line(None)
    assert line(120) == ("epoch   7/100  train loss 1261.250, top-1 err 89.75 %  val loss 1261.250, top-1 err 89.75 %"
                         "  1:01:40 left")  # fmt: skip
    assert line(80) == "epoch   7/100  train loss 1261.250  val top-1 err 89.75 %  1:01:40 left"
    assert line(60) == "epoch   7/100  train loss 1261.250  val top-1 err 89.75 %"
    assert all(display_width(line(width)) <= width for width in range(37, 200))


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160])
def test_no_number_of_the_bar_is_cut(width: int) -> None:
    out = io.StringIO()
    with tqdm(total=782, initial=391, desc="epoch 7/100", unit="batch", file=out, ncols=width, bar_format=SHORT_BAR,
              leave=False) as bar:  # fmt: skip
        fit_bar(bar, TASK, VALUES, 12345.6)
        shown = str(bar)
    assert display_width(shown) == width
    numbers = {40: "391/782", 60: "391/782, loss 1261.250", 80: "391/782, loss 1261.250, top-1 err 89.75 %",
               100: "391/782, loss 1261.250, top-1 err 89.75 %, 12,346 images/s"}  # fmt: skip
    assert shown.endswith(numbers.get(width, ", 12,346 images/s]")), shown
