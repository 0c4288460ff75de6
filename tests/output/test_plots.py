"""Line plots of a training show the right values and names, and odd input still gives a picture."""

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cnnbench.output import figure as figures
from cnnbench.output import plots
from cnnbench.output.figure import pictures_of, short_label
from cnnbench.output.prediction_cards import Card, draw_cards
from cnnbench.transfer.comparison import draw_comparison
from cnnbench.utils.format import probability_percent
from cnnbench.visual.html_page import Picture
from cnnbench.visual.signal_flow import draw_signals
from cnnbench.visual.signals import Signal, draw

METRICS = {"top1_error": plots.Quantity("top-1 error, %"), "top5_error": plots.Quantity("top-5 error, %")}


def row(epoch, loss=1.0, error=20.0, **changes):
    values = {"loss/train": loss, "loss/val": loss + 1, "top1_error/train": error, "top1_error/val": error + 5,
              "top5_error/train": error / 5, "top5_error/val": error / 4, "lr": 0.1}  # fmt: skip
    return {"epoch": epoch, "step": 10 * epoch, **values, **changes}


def png_size(path) -> tuple[int, int]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.size


def legend(figure: Figure, panel: int = 0) -> list[str]:
    return [text.get_text() for text in figure.axes[panel].get_legend().get_texts()]


def test_curves_show_every_value_once_and_name_the_last_and_the_best(tmp_path):
    rows = [row(epoch, loss=2 - 0.1 * epoch, error=error) for epoch, error in [(1, 40.0), (2, 10.0), (3, 12.5)]]
    figure = plots.plot_curves(rows, tmp_path / "curves.png", "resnet20 on cifar10", METRICS)
    assert png_size(tmp_path / "curves.png") > (800, 400)
    loss, top1, top5 = figure.axes[:3]
    assert [ax.get_ylabel() for ax in (loss, top1, top5)] == ["loss", "top-1 error, %", "top-5 error, %"]
    drawn = {
        line.get_label().split()[0]: line.get_ydata().tolist() for line in top1.lines if len(line.get_ydata()) == 3
    }
    assert drawn == {"train": [40.0, 10.0, 12.5], "val": [45.0, 15.0, 17.5]}
    assert legend(figure, 1) == ["train   last 12.50", "val   last 17.50,  best 15.00 in epoch 2"]
    assert figure.get_suptitle() == "resnet20 on cifar10"


def test_curves_mark_the_highest_value_where_more_is_better(tmp_path):
    rows = [row(epoch, **{"miou/val": value}) for epoch, value in enumerate([0.3, math.nan, 0.51239, 0.4], start=1)]
    quantity = plots.Quantity("mean IoU", lower_is_better=False, number=".3f")
    figure = plots.plot_curves(rows, tmp_path / "c.png", "", {"miou": quantity})
    assert [ax.get_ylabel() for ax in figure.axes[:2]] == ["loss", "mean IoU"]
    assert legend(figure, 1) == ["val   last 0.400,  best 0.512 in epoch 3,  × 1 not finite"]


def test_curves_tell_train_from_val_by_more_than_colour(tmp_path):
    lines = plots.plot_curves([row(1), row(2)], tmp_path / "c.png", "", METRICS).axes[0].lines
    styles = {line.get_label().split()[0]: line.get_linestyle() for line in lines if len(line.get_ydata()) == 2}
    assert styles["train"] != styles["val"]


@pytest.mark.parametrize("epochs", [0, 1, 2, 300])
def test_curves_of_any_length_have_whole_epochs_on_the_axis(tmp_path, epochs):
    figure = plots.plot_curves([row(epoch) for epoch in range(1, epochs + 1)], tmp_path / "c.png", "", METRICS)
    low, high = figure.axes[0].get_xlim()
    assert low < min(1, epochs) or epochs == 0
    assert high >= epochs
    assert all(tick == round(tick) for tick in figure.axes[0].get_xticks())


def test_curves_survive_divergence_and_say_so(tmp_path):
    rows = [row(1), row(2, **{"loss/train": math.nan, "loss/val": math.inf})]
    figure = plots.plot_curves(rows, tmp_path / "c.png", "", METRICS)
    assert legend(figure) == [
        "train   last nan,  × 1 not finite",
        "val   last nan,  best 2.00 in epoch 1,  × 1 not finite",
    ]
    plots.plot_curves([row(1, **{"loss/train": math.nan, "loss/val": math.nan})], tmp_path / "c.png", "", METRICS)


def test_curves_leave_out_what_was_not_recorded(tmp_path):
    rows = [{"epoch": 1, "loss/train": 2.0, "loss/val": None}, {"epoch": 2, "loss/train": 1.0, "loss/val": 1.5}]
    figure = plots.plot_curves(rows, tmp_path / "c.png", "", METRICS)
    assert [ax.get_ylabel() for ax in figure.axes] == ["loss", "lr"]
    assert plots.series(rows, "loss/val").epochs.tolist() == [2]
    assert plots.series(rows, "top1_error/val").best() is None


def test_a_loss_over_two_decades_gets_a_logarithmic_axis(tmp_path):
    figures = [plots.plot_curves([row(1, loss=high), row(2, loss=0.5)], tmp_path / "c.png", "", METRICS)
               for high in (2.0, 900.0)]  # fmt: skip
    assert [figure.axes[0].get_yscale() for figure in figures] == ["linear", "log"]


@pytest.mark.parametrize(
    ("probability", "text"), [(1, "100 %"), (0.9999, ">99 %"), (0.994, "99 %"), (0.003, "<1 %"), (0, "0 %")]
)
def test_percent_claims_no_certainty_that_is_not_there(probability, text):
    assert probability_percent(probability) == text


def test_dollar_signs_are_not_mathematics():
    assert short_label("$5 and $6", 20) == r"\$5 and \$6"


def test_a_long_title_is_cut_and_not_clipped(tmp_path):
    figure = plots.plot_curves([row(1)], tmp_path / "c.png", "word " * 100, METRICS)
    box = figure._suptitle.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


def test_pictures_are_written_in_one_step_and_leave_nothing_beside(tmp_path, monkeypatch):
    path = tmp_path / "c.png"
    path.write_bytes(b"the old picture")

    def fail(self, *args, **kwargs):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", fail)
        with pytest.raises(OSError, match="disk full"):
            plots.plot_curves([row(1)], path, "", METRICS)
    assert path.read_bytes() == b"the old picture"
    plots.plot_curves([row(1)], path, "", METRICS)
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.png"]


def test_pyplot_is_never_imported(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from cnnbench.output import plots; plots.plot_curves([], sys.argv[1], '', {}); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "c.png")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_signals_of_a_narrow_range_have_ticks_that_can_be_told_apart(tmp_path: Path) -> None:
    history = [
        {f"{kind}/rms/s{stage}": 0.6 + 0.05 * stage for kind in ("activation", "gradient") for stage in range(4)}
    ]
    axis = draw_signals(history, tmp_path / "s.png", "net").axes[0].yaxis
    assert [text.get_text() for text in axis.get_ticklabels()] == ["0.6", "0.65", "0.7", "0.75"]


def test_seconds_between_two_whole_ones_are_written_as_they_are() -> None:
    row = {"model": "net", "data": "set", "strategy": "full", "top1_error": 5.0}
    figure = draw_comparison([row | {"train_n": 10, "wall_seconds": 1.6}, row | {"train_n": 100, "wall_seconds": 7.0}])
    labels = [text.get_text() for text in figure.axes[1].xaxis.get_ticklabels()]
    assert labels == ["1.5", "2", "3", "5", "7"]


def test_a_single_epoch_is_drawn_as_marks_without_lines(tmp_path):
    figure = plots.plot_curves([row(1)], tmp_path / "c.png", "", METRICS)
    assert [ax.get_ylabel() for ax in figure.axes] == ["loss", "top-1 error, %", "top-5 error, %"]  # no curve of the lr
    assert {line.get_linestyle() for ax in figure.axes for line in ax.lines} == {"None"}
    assert len({line.get_marker() for line in figure.axes[0].lines}) == 2


def test_a_long_title_is_broken_between_words_and_says_first_what_is_shown(tmp_path):
    title = "The worst mistakes: 12 of 18 images wrong. Under each image what it is, then what the net says."
    with pictures_of("resnet8 on pets"):
        figure = draw_cards([Card(np.zeros((8, 8, 3), np.uint8), "cat", "", [])], tmp_path / "m.png", title)
        other = plots.plot_curves([row(1)], tmp_path / "c.png", "resnet8 on pets", METRICS)
    first, *rest = figure.get_suptitle().split("\n")
    assert first == "resnet8 on pets"
    assert len(rest) > 1
    assert " ".join(rest) == title
    assert other.get_suptitle() == "resnet8 on pets"
    assert figure._suptitle.get_window_extent().y0 > figure.axes[0].images[0].get_window_extent().y1


def test_characters_without_a_font_are_said_once_in_plain_words(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(figures, "_said", set())
    monkeypatch.setattr(figures, "_fallbacks", lambda: [])
    for _ in range(2):
        plots.plot_curves([row(1)], tmp_path / "c.png", "猫 and 犬 and é", METRICS)
    assert capsys.readouterr().err.count("no font of this machine has 犬 猫: pictures show a box instead") == 1


def test_a_font_that_has_the_characters_is_found_and_used(tmp_path, capsys, monkeypatch):
    """The font is made here: one glyph, a full square, for one character that matplotlib's own font lacks."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    for step, point in enumerate([(0, 0), (0, 1000), (1000, 1000), (1000, 0)]):
        (pen.lineTo if step else pen.moveTo)(point)
    pen.closePath()
    build = FontBuilder(1000, isTTF=True)
    build.setupGlyphOrder([".notdef", "cat"])
    build.setupCharacterMap({ord("猫"): "cat"})
    build.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    build.setupHorizontalMetrics({".notdef": (1000, 0), "cat": (1000, 0)})
    build.setupHorizontalHeader(ascent=1000, descent=0)
    build.setupNameTable({"familyName": "Noto Sans CJK JP", "styleName": "Regular"})
    build.setupOS2()
    build.setupPost()
    build.save(tmp_path / "cat.ttf")
    monkeypatch.setattr(figures, "_said", set())
    manager = figures.font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", [*manager.ttflist])
    monkeypatch.setattr(figures.font_manager, "findSystemFonts", lambda: [str(tmp_path / "cat.ttf")])
    try:
        for cached in (figures._fallbacks, figures._characters):
            cached.cache_clear()
        plots.plot_curves([row(1)], tmp_path / "c.png", "猫", METRICS)
        assert figures._fallbacks() == ["Noto Sans CJK JP"]
    finally:
        for cached in (figures._fallbacks, figures._characters):
            cached.cache_clear()
    assert capsys.readouterr().err == ""
    with Image.open(tmp_path / "c.png") as image:
        title = np.asarray(image.convert("L"))[:30]
    assert (title < 50).sum() > 200  # the square


def test_a_range_test_of_one_step_has_a_mark_and_no_line(tmp_path):
    figure = plots.plot_lr_range([1e-3, 1e-2], [2.3, math.nan], [2.3], None, tmp_path / "l.png", "")
    assert legend(figure) == ["loss of each step"]
    assert [line.get_linestyle() for line in figure.axes[0].lines] == ["None"]


def test_untrained_nets_of_a_narrow_range_have_ticks_that_can_be_told_apart(tmp_path):
    layers = [Signal(f"l{layer}", 0.9 + 0.03 * layer, 0.002 + 0.00005 * layer, 1.0) for layer in range(8)]
    for ax in draw({"as it begins": layers}, Picture("", "", "", tmp_path / "s.png"), "").axes:
        ticks = [text.get_text() for text in ax.get_yticklabels()]
        assert 3 <= len(ticks) == len(set(ticks))
    figure = plots.plot_curves([row(1, loss=900.0), row(2, loss=0.5)], tmp_path / "c.png", "", METRICS)
    ticks = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert 3 <= len(ticks) == len(set(ticks))
