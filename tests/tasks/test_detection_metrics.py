"""COCO's numbers beside pycocotools, Pascal VOC's beside its development kit, and the kinds of mistakes."""

import io
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pytest
import torch

from cnnbench.data.boxes import AREA, CLASS, CORNERS, CROWD, DIFFICULT, KIND, tables
from cnnbench.runtime.device import create_runtime
from cnnbench.tasks.detection.decode import KEPT
from cnnbench.tasks.detection.evaluation import kinds
from cnnbench.tasks.detection.metrics import STATS, BoxMeter, as_coco, as_results, coco_stats
from cnnbench.tasks.detection.verdicts import judge, voc
from tests.tasks.test_detection_parts import CLASSES, SIDE, answered

SIZE = (640, 480)


def scene(images: int = 40, classes: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Detections and tables of images: most objects found more or less well, some twice, some in vain; small and large,
    some crowds; one class without objects, one image without either."""
    rng = np.random.default_rng(seed)
    found, rows = torch.zeros(images, KEPT, 6), []
    found[:, :, 0] = -1
    for image in range(images):
        count = int(rng.integers(0, 9)) if image else 0
        own = torch.zeros(count, 7)
        corners = rng.uniform(0, 300, (count, 4))
        corners[:, 2:] = corners[:, :2] + rng.choice([15, 60, 150], (count, 1)) * rng.uniform(0.7, 1.3, (count, 2))
        own[:, CORNERS], own[:, CLASS] = torch.from_numpy(corners).float(), torch.from_numpy(rng.integers(0, 3, count))
        own[:, KIND] = torch.from_numpy(rng.choice([0, 0, 0, CROWD], count))
        own[:, AREA] = torch.from_numpy((corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]) * 0.8)
        rows.append(own)
        said = []
        for row in own.tolist():
            for _ in range(rng.integers(0, 3)):
                shift = rng.normal(0, 0.12, 4) * (row[3] - row[1])
                label = row[0] if rng.random() < 0.85 else rng.integers(0, classes)
                said.append([label, rng.random(), *(np.array(row[1:5]) + shift)])
        for _ in range(rng.integers(0, 3) if image else 0):
            left, top = rng.uniform(0, 300, 2)
            said.append([rng.integers(0, classes), rng.random() * 0.6, left, top, left + 40, top + 30])
        if said:
            said.sort(key=lambda one: -one[1])
            found[image, : len(said)] = torch.tensor(said, dtype=torch.float32)
    return found, tables(rows, [SIZE] * images)


def test_cocos_numbers_are_those_of_pycocotools() -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found, truth = scene()
    known = COCO()
    known.dataset = as_coco(truth, 4)
    with redirect_stdout(io.StringIO()):
        known.createIndex()
        counted = COCOeval(known, known.loadRes(as_results(found)), "bbox")
        counted.evaluate(), counted.accumulate(), counted.summarize()
    ours = coco_stats(found, truth, 4)
    expected = np.where(counted.stats[: len(STATS)] < 0, np.nan, 100 * counted.stats[: len(STATS)])
    np.testing.assert_allclose([ours.stats[name] for name in STATS], expected, atol=1e-9)
    assert 20 < ours.stats["map"] < 80 and ours.stats["ap_small"] != ours.stats["ap_large"]
    theirs = counted.eval["precision"][:, :, :, 0, -1]
    np.testing.assert_allclose(ours.precision, np.where(theirs < 0, np.nan, 100 * theirs), atol=1e-9)
    assert np.isnan(ours.precision[:, :, 3]).all()  # a class without objects


def test_nothing_found_is_zero() -> None:
    found, truth = scene(4)
    found[:, :, 0], found[:, :, 1] = -1, 0
    assert coco_stats(found, truth, 4).stats["map"] == 0 and voc(judge(found, truth, 4), eleven=False)[0] == 0


def devkit(found: torch.Tensor, truth: torch.Tensor, label: int, *, eleven: bool) -> float:
    """Average precision as the development kit's `voc_eval.py` computes it, without its rounding to whole pixels."""
    objects = {image: [row for row in table.tolist() if row[CLASS] == label] for image, table in enumerate(truth)}
    rows = [(score, image, corners) for image, boxes in enumerate(found.tolist())
            for own, score, *corners in boxes if own == label and score > 0]  # fmt: skip
    rows.sort(key=lambda row: -row[0])
    seen: set[Any] = set()
    hits, total = [], sum(row[KIND] == 0 for own in objects.values() for row in own)
    for _, image, (left, top, right, bottom) in rows:
        best, at = 0.0, -1
        for number, row in enumerate(objects[image]):
            wide, high = min(right, row[3]) - max(left, row[1]), min(bottom, row[4]) - max(top, row[2])
            inside = max(wide, 0) * max(high, 0)
            union = (right - left) * (bottom - top) + (row[3] - row[1]) * (row[4] - row[2]) - inside
            if inside / union > best:
                best, at = inside / union, number
        if best >= 0.5 and objects[image][at][KIND]:
            continue
        hits.append(best >= 0.5 and (image, at) not in seen)
        seen |= {(image, at)} if best >= 0.5 else set()
    right_so_far = np.cumsum(hits)
    recall, precision = right_so_far / total, right_so_far / np.arange(1, len(hits) + 1)
    if eleven:
        return 100 * sum(max(precision[recall >= t], default=0.0) for t in np.arange(11) / 10) / 11
    area, before = 0.0, 0.0
    for at, place in enumerate(recall):
        area += (place - before) * precision[at:].max()
        before = place
    return 100 * area


@pytest.mark.parametrize("eleven", [True, False])
def test_vocs_numbers_are_those_of_its_development_kit(eleven: bool) -> None:
    found, truth = scene(seed=3)
    truth[:, :, KIND] = torch.where(truth[:, :, KIND] == CROWD, DIFFICULT, 0)
    ours = voc(judge(found, truth, 4), eleven=eleven)
    np.testing.assert_allclose(ours[:3], [devkit(found, truth, label, eleven=eleven) for label in range(3)], atol=1e-6)
    assert np.isnan(ours[3]) and min(ours[:3]) > 5


def test_each_mistake_has_its_kind() -> None:
    rows = torch.tensor([[0, 0, 0, 10, 10, 0, 100], [1, 50, 50, 70, 70, 0, 400], [0, 90, 90, 99, 99, DIFFICULT, 81]])
    truth = tables([rows.float(), torch.zeros(0, 7)], [(100, 100)] * 2)
    found = torch.zeros(2, KEPT, 6)
    found[:, :, 0] = -1
    found[0, :6] = torch.tensor([
        [0, 0.9, 0, 0, 10, 10], [0, 0.8, 0, 0, 10, 9], [0, 0.7, 50, 50, 70, 70], [1, 0.6, 60, 60, 80, 80],
        [0, 0.55, 90, 90, 99, 99], [0, 0.2, 30, 0, 40, 10],
    ])  # fmt: skip
    found[1, 0] = torch.tensor([1, 0.95, 0, 0, 10, 10])
    expected = {"missed": 1, "background": 1, "badly placed": 1, "wrong class": 1, "twice": 1}
    assert kinds(judge(found, truth, 2, least=0.5)) == expected
    assert kinds(judge(found, truth, 2))["background"] == 2


def test_images_of_several_processes_count_as_those_of_one() -> None:
    """Rows are gathered in the images' order, so the numbers are the same to the bit."""
    outputs, truth = answered((4, 0, 7, 2))
    runtime = create_runtime("cpu", "fp32", seed=None)
    whole, parts = BoxMeter(runtime, CLASSES, SIDE, 0.45), [BoxMeter(runtime, CLASSES, SIDE, 0.45) for _ in range(2)]
    whole.add(torch.tensor(1.0), outputs, truth)
    for meter, own in zip(parts, (slice(0, 1), slice(1, 4)), strict=True):
        meter.add(torch.tensor(1.0), outputs[own], truth[own])
    others = iter(parts[1].rows())
    parts[0].gather(lambda rows: torch.cat([rows, next(others)]))
    assert parts[0].metrics() == whole.metrics()


def test_a_process_without_images_gathers_no_rows() -> None:
    """Fewer images than processes: its rows are none, of detections as long as the others'."""
    outputs, truth = answered((4,))
    runtime = create_runtime("cpu", "fp32", seed=None)
    whole, none = (BoxMeter(runtime, CLASSES, SIDE, 0.45) for _ in range(2))
    whole.add(torch.tensor(1.0), outputs, truth)
    assert [tuple(rows.shape) for rows in none.rows()] == [(0, KEPT, 6), (0, 0, 7)]
    others = iter(whole.rows())
    none.gather(lambda rows: next(others))
    assert none.metrics() == whole.metrics()
