"""The pictures of a classification show the right values and names, and odd input still gives a picture."""

import warnings

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from cnnbench.tasks.classification import plots


def png_size(path) -> tuple[int, int]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.size


def texts(figure: Figure) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32), (3, 300)])
@pytest.mark.parametrize("count", [1, 7, 40])
def test_train_batch_shows_up_to_32_pictures_with_their_classes(tmp_path, channels, size, count):
    images = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8)
    figure = plots.plot_train_batch(images, torch.arange(count) % 2, ["ants", "bees"], tmp_path / "t.png")
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.texts] == [["ants", "bees"][i % 2] for i in range(min(count, 32))]
    assert np.array_equal(figure.axes[0].images[0].get_array().squeeze(), images[0].permute(1, 2, 0).squeeze())
    assert f"{size} × {size} pixels, {channels} channel" in figure.get_suptitle()


def test_pictures_do_not_overlap_and_stay_inside(tmp_path):
    figure = plots.plot_train_batch(np.zeros((11, 3, 20, 40), np.uint8), np.zeros(11), ["a"], tmp_path / "t.png")
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
    figure = plots.plot_val_predictions(images, torch.tensor([0, 1]), probabilities, ["cat", "dog"], tmp_path / "v.png")
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.texts] == ["cat", "✓ cat, 75 %", "dog", "✗ cat, >99 %"]
    assert [text.get_fontweight() == "bold" for text in ax.texts] == [False, False, False, True]
    right, wrong = ax.patches
    assert wrong.get_linewidth() > right.get_linewidth()
    assert "1 of these 2 wrong" in figure.get_suptitle()


def test_confusion_matrix_writes_counts_and_the_overall_error(tmp_path):
    figure = plots.plot_confusion_matrix(
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
    figure = plots.plot_confusion_matrix(matrix, classes, tmp_path / "m.png", "")
    shown = texts(figure)
    assert sum(label.get_text() in classes for label in figure.axes[0].get_yticklabels()) == names
    assert bool(figure.axes[0].texts) == counts
    assert any("7 ×  class 1 → class 0" in text for text in shown) == (not counts)
    assert max(png_size(tmp_path / "m.png")) < 2200


def test_rows_are_normalised_and_an_empty_class_is_blank():
    shares = plots.row_shares(np.array([[1, 3], [0, 0]]))
    assert shares[0].tolist() == [0.25, 0.75]
    assert np.isnan(shares[1]).all()


def test_grouping_keeps_every_count():
    counts = np.arange(25).reshape(5, 5)
    assert plots.grouped(counts, 1).tolist() == counts.tolist()
    assert plots.grouped(counts, 2).shape == (3, 3)
    assert plots.grouped(counts, 2)[0, 2] == 4 + 9
    assert plots.grouped(counts, 2).sum() == counts.sum()


def test_confused_pairs_are_the_largest_off_the_diagonal():
    assert plots.confused_pairs(np.array([[9, 1, 0], [4, 9, 0], [0, 2, 9]]), 5) == [
        (4, 1, 0),
        (2, 2, 1),
        (1, 0, 1),
    ]


@pytest.mark.parametrize(
    "name", ["蜜蜂", "🐝 bee", "costs $5 and $6", "x" * 200, "a_b^c \\frac", "two\nlines", "", "قطة"]
)
def test_any_class_name_is_drawn_without_a_warning(tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.plot_confusion_matrix(np.eye(2, dtype=int), [name, "b"], tmp_path / "m.png", name)
        images = np.zeros((1, 1, 8, 8), np.uint8)
        plots.plot_val_predictions(images, np.array([0]), np.array([[0.9, 0.1]]), [name, "b"], tmp_path / "v.png")
