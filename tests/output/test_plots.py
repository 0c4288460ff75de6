"""The pictures of a run: that they show the right values and names, and that odd input still gives a picture."""

import math
import warnings

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from cnnbench.output import plots
from cnnbench.output.figure import label
from cnnbench.tasks.classification import plots as class_plots
from cnnbench.utils.format import probability_percent

METRICS = {"top1_error": plots.Quantity("top-1 error, %"), "top5_error": plots.Quantity("top-5 error, %")}


def row(epoch, loss=1.0, error=20.0, **changes):
    values = {"loss/train": loss, "loss/val": loss + 1, "top1_error/train": error, "top1_error/val": error + 5,
              "top5_error/train": error / 5, "top5_error/val": error / 4, "lr": 0.1}  # fmt: skip
    return {"epoch": epoch, "step": 10 * epoch, **values, **changes}


def png_size(path) -> tuple[int, int]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.size


def texts(figure: Figure) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def legend(figure: Figure, panel: int = 0) -> list[str]:
    return [text.get_text() for text in figure.axes[panel].get_legend().get_texts()]


def test_curves_show_every_value_once_and_name_the_last_and_the_best(tmp_path):
    rows = [row(epoch, loss=2 - 0.1 * epoch, error=error) for epoch, error in [(1, 40.0), (2, 10.0), (3, 12.5)]]
    figure = plots.curves(rows, tmp_path / "curves.png", "resnet20 on cifar10", METRICS)
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
    figure = plots.curves(rows, tmp_path / "c.png", "", {"miou": quantity})
    assert [ax.get_ylabel() for ax in figure.axes[:2]] == ["loss", "mean IoU"]
    assert legend(figure, 1) == ["val   last 0.400,  best 0.512 in epoch 3,  × 1 not finite"]


def test_curves_tell_train_from_val_by_more_than_colour(tmp_path):
    lines = plots.curves([row(1), row(2)], tmp_path / "c.png", "", METRICS).axes[0].lines
    styles = {line.get_label().split()[0]: line.get_linestyle() for line in lines if len(line.get_ydata()) == 2}
    assert styles["train"] != styles["val"]


@pytest.mark.parametrize("epochs", [0, 1, 2, 300])
def test_curves_of_any_length_have_whole_epochs_on_the_axis(tmp_path, epochs):
    figure = plots.curves([row(epoch) for epoch in range(1, epochs + 1)], tmp_path / "c.png", "", METRICS)
    low, high = figure.axes[0].get_xlim()
    assert low < min(1, epochs) or epochs == 0
    assert high >= epochs
    assert all(tick == round(tick) for tick in figure.axes[0].get_xticks())


def test_curves_survive_divergence_and_say_so(tmp_path):
    rows = [row(1), row(2, **{"loss/train": math.nan, "loss/val": math.inf})]
    figure = plots.curves(rows, tmp_path / "c.png", "", METRICS)
    assert legend(figure) == [
        "train   last nan,  × 1 not finite",
        "val   last nan,  best 2.00 in epoch 1,  × 1 not finite",
    ]
    plots.curves([row(1, **{"loss/train": math.nan, "loss/val": math.nan})], tmp_path / "c.png", "", METRICS)


def test_curves_leave_out_what_was_not_recorded(tmp_path):
    rows = [{"epoch": 1, "loss/train": 2.0, "loss/val": None}, {"epoch": 2, "loss/train": 1.0, "loss/val": 1.5}]
    figure = plots.curves(rows, tmp_path / "c.png", "", METRICS)
    assert [ax.get_ylabel() for ax in figure.axes] == ["loss", "lr"]
    assert plots.series(rows, "loss/val").epochs.tolist() == [2]
    assert plots.series(rows, "top1_error/val").best() is None


def test_a_loss_over_two_decades_gets_a_logarithmic_axis(tmp_path):
    scales = [plots.curves([row(1, loss=high), row(2, loss=0.5)], tmp_path / "c.png", "", METRICS).axes[0].get_yscale()
              for high in (2.0, 900.0)]  # fmt: skip
    assert scales == ["linear", "log"]


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32), (3, 300)])
@pytest.mark.parametrize("count", [1, 7, 40])
def test_train_batch_shows_up_to_32_pictures_with_their_classes(tmp_path, channels, size, count):
    images = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8)
    figure = class_plots.train_batch(images, torch.arange(count) % 2, ["ants", "bees"], tmp_path / "t.png")
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.texts] == [["ants", "bees"][i % 2] for i in range(min(count, 32))]
    assert np.array_equal(figure.axes[0].images[0].get_array().squeeze(), images[0].permute(1, 2, 0).squeeze())
    assert f"{size} × {size} pixels, {channels} channel" in figure.get_suptitle()


def test_pictures_do_not_overlap_and_stay_inside(tmp_path):
    figure = class_plots.train_batch(np.zeros((11, 3, 20, 40), np.uint8), np.zeros(11), ["a"], tmp_path / "t.png")
    (ax,) = figure.axes
    boxes = [patch.get_bbox() for patch in ax.patches]
    assert len(boxes) == len(ax.images) == 11
    page = Bbox.from_extents(0, 0, *figure.get_size_inches())
    assert all(page.fully_containsx(x) for box in boxes for x in (box.x0, box.x1))
    assert all(page.fully_containsy(y) for box in boxes for y in (box.y0, box.y1))
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(tuple(image.get_extent()) == tuple(box.extents[[0, 2, 1, 3]]) for image, box in zip(
        ax.images, boxes, strict=True))  # fmt: skip
    assert boxes[0].width == pytest.approx(2 * boxes[0].height)


def test_val_predictions_mark_the_wrong_ones_by_sign_weight_and_frame(tmp_path):
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    probabilities = torch.tensor([[0.75, 0.25], [0.996, 0.004]], dtype=torch.bfloat16)
    figure = class_plots.val_predictions(
        images, torch.tensor([0, 1]), probabilities, ["cat", "dog"], tmp_path / "v.png"
    )
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.texts] == ["cat", "✓ cat, 75 %", "dog", "✗ cat, >99 %"]
    assert [text.get_fontweight() == "bold" for text in ax.texts] == [False, False, False, True]
    right, wrong = ax.patches
    assert wrong.get_linewidth() > right.get_linewidth()
    assert "1 of these 2 wrong" in figure.get_suptitle()


@pytest.mark.parametrize(
    ("probability", "text"), [(1, "100 %"), (0.9999, ">99 %"), (0.994, "99 %"), (0.003, "<1 %"), (0, "0 %")]
)
def test_percent_claims_no_certainty_that_is_not_there(probability, text):
    assert probability_percent(probability) == text


def test_confusion_matrix_writes_counts_and_the_overall_error(tmp_path):
    figure = class_plots.confusion_matrix(
        torch.tensor([[1500, 0], [500, 0]]), ["cat", "dog"], tmp_path / "m.png", "a net"
    )
    ax = figure.axes[0]
    assert figure.get_suptitle() == "a net\ntop-1 error 25.00 % (500 of 2,000)"
    assert {text.get_position(): text.get_text() for text in ax.texts} == {(0, 0): "1,500", (0, 1): "500"}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")
    assert [text.get_text() for text in ax.get_yticklabels()] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("n", "names", "counts"), [(20, 20, True), (21, 21, False), (100, 100, False), (1000, 0, False)]
)
def test_confusion_matrix_at_any_number_of_classes(tmp_path, n, names, counts):
    matrix = np.eye(n, dtype=int) * 5
    matrix[1, 0] = 7
    classes = [f"class {i}" for i in range(n)]
    figure = class_plots.confusion_matrix(matrix, classes, tmp_path / "m.png", "")
    shown = texts(figure)
    assert sum(label.get_text() in classes for label in figure.axes[0].get_yticklabels()) == names
    assert bool(figure.axes[0].texts) == counts
    assert any("7 ×  class 1 → class 0" in text for text in shown) == (not counts)
    assert max(png_size(tmp_path / "m.png")) < 2200


def test_rows_are_normalised_and_an_empty_class_is_blank():
    shares = class_plots.row_shares(np.array([[1, 3], [0, 0]]))
    assert shares[0].tolist() == [0.25, 0.75]
    assert np.isnan(shares[1]).all()


def test_grouping_keeps_every_count():
    counts = np.arange(25).reshape(5, 5)
    assert class_plots.grouped(counts, 1).tolist() == counts.tolist()
    assert class_plots.grouped(counts, 2).shape == (3, 3)
    assert class_plots.grouped(counts, 2)[0, 2] == 4 + 9
    assert class_plots.grouped(counts, 2).sum() == counts.sum()


def test_confused_pairs_are_the_largest_off_the_diagonal():
    assert class_plots.confused(np.array([[9, 1, 0], [4, 9, 0], [0, 2, 9]]), 5) == [(4, 1, 0), (2, 2, 1), (1, 0, 1)]


@pytest.mark.parametrize(
    "name", ["蜜蜂", "🐝 bee", "costs $5 and $6", "x" * 200, "a_b^c \\frac", "two\nlines", "", "قطة"]
)
def test_any_class_name_is_drawn_without_a_warning(tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        class_plots.confusion_matrix(np.eye(2, dtype=int), [name, "b"], tmp_path / "m.png", name)
        images = np.zeros((1, 1, 8, 8), np.uint8)
        class_plots.val_predictions(images, np.array([0]), np.array([[0.9, 0.1]]), [name, "b"], tmp_path / "v.png")


def test_dollar_signs_are_not_mathematics():
    assert label("$5 and $6", 20) == r"\$5 and \$6"


def test_a_long_title_is_cut_and_not_clipped(tmp_path):
    figure = class_plots.confusion_matrix(np.eye(2, dtype=int), ["a", "b"], tmp_path / "m.png", "word " * 100)
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
            plots.curves([row(1)], path, "", METRICS)
    assert path.read_bytes() == b"the old picture"
    plots.curves([row(1)], path, "", METRICS)
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.png"]


def test_pyplot_is_never_imported(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from cnnbench.output import plots; plots.curves([], sys.argv[1], '', {}); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "c.png")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
