"""Parts of detection beside torchvision's: matching, loss, decoding and suppression."""

from types import SimpleNamespace

import pytest
import torch
import torchvision
from torchvision.models.detection import _utils as theirs
from torchvision.models.detection.ssd import SSD

from cnnbench.data.boxes import CLASS, CORNERS, CROWD, KIND, NONE, tables
from cnnbench.tasks.detection.decode import KEPT, detections, in_file
from cnnbench.tasks.detection.matching import decoded, encoded, losses, matches, overlaps, parts

SIDE, CLASSES = 96, 3
CODER = theirs.BoxCoder((10.0, 10.0, 5.0, 5.0))


def objects(generator, count):
    corners = torch.rand(count, 4, generator=generator) * 60
    corners[:, 2:] = corners[:, :2] + 8 + corners[:, 2:] / 2
    rows = torch.zeros(count, 7)
    rows[:, CORNERS], rows[:, CLASS] = corners, torch.arange(count) % CLASSES
    return rows


def answered(counts=(4, 0, 7)):
    """Outputs for images with so many objects, and their tables."""
    generator = torch.Generator().manual_seed(0)
    step = torch.arange(4, SIDE, 8.0)
    x, y = torch.meshgrid(step, step, indexing="xy")
    boxes = torch.cat([torch.stack([x - r, y - r, x + r, y + r], -1).view(-1, 4) for r in (6.0, 14.0)])
    outputs = torch.randn(len(counts), CLASSES + 1 + 8, len(boxes), generator=generator)
    outputs[:, -8:-4] *= 0.5
    outputs[:, -4:] = boxes.T
    return outputs, tables([objects(generator, count) for count in counts], [(SIDE, SIDE)] * len(counts))


def test_boxes_and_overlaps_are_torchvisions():
    generator = torch.Generator().manual_seed(1)
    ours, others = objects(generator, 9)[:, CORNERS], objects(generator, 9)[:, CORNERS]
    torch.testing.assert_close(overlaps(ours, others), torchvision.ops.box_iou(ours, others))
    offsets = CODER.encode_single(ours, others)
    torch.testing.assert_close(encoded(ours, others), offsets)
    torch.testing.assert_close(decoded(offsets * 3, others), CODER.decode_single(offsets * 3, others))


def matched_by_torchvision(table, boxes):
    known = table[table[:, CLASS] >= 0]
    if not len(known):
        return torch.full((len(boxes),), -1)
    return theirs.SSDMatcher(0.5)(torchvision.ops.box_iou(known[:, CORNERS], boxes))


def test_matches_are_torchvisions():
    outputs, truth = answered()
    boxes = parts(outputs).boxes
    expected = torch.stack([matched_by_torchvision(*pair) for pair in zip(truth, boxes, strict=True)])
    assert torch.equal(matches(truth, boxes), expected.clamp(min=-1) + 1) and (expected >= 0).sum() > 11


def test_the_loss_of_an_image_is_torchvisions():
    outputs, truth = answered()
    own = losses(outputs, truth)
    net = SimpleNamespace(box_coder=CODER, neg_to_pos_ratio=3)
    for number in (0, 2):
        one = parts(outputs[number : number + 1])
        head = {"cls_logits": one.scores.roll(1, dims=2), "bbox_regression": one.offsets}
        table = truth[number][truth[number][:, CLASS] >= 0]
        targets = [{"boxes": table[:, CORNERS], "labels": table[:, CLASS].long() + 1}]
        found = SSD.compute_loss(net, targets, head, [one.boxes[0]], [matched_by_torchvision(table, one.boxes[0])])
        torch.testing.assert_close(own[number], sum(found.values()))
    assert own[1] > 0  # an image without objects is trained on: its likeliest boxes are wrong


def test_the_loss_of_an_image_does_not_depend_on_its_batch():
    outputs, truth = answered()
    alone = torch.cat([losses(outputs[i : i + 1], truth[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(losses(outputs, truth), alone)


def test_crowds_are_no_objects():
    outputs, truth = answered()
    truth[0, 1:, KIND] = CROWD
    assert not matches(truth, parts(outputs).boxes)[0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_detections_are_torchvisions(dtype):
    outputs, _ = answered()
    outputs = outputs.to(dtype)
    net = SimpleNamespace(box_coder=CODER, score_thresh=0.2, nms_thresh=0.45, topk_candidates=400,
                          detections_per_img=KEPT)  # fmt: skip
    one = parts(outputs)
    head = {"cls_logits": one.scores.roll(1, dims=2), "bbox_regression": one.offsets}
    expected = SSD.postprocess_detections(net, head, list(one.boxes), [(SIDE, SIDE)] * 3)
    found = in_file(detections(outputs, SIDE, least=0.2), torch.full((3, 2), float(SIDE)), SIDE)
    for rows, other in zip(found, expected, strict=True):
        count = len(other["scores"])
        assert count > 10 and (rows[count:, 0] == NONE).all() and not rows[count:, 1].any()
        torch.testing.assert_close(rows[:count, 1], other["scores"])
        assert torch.equal(rows[:count, 0].long() + 1, other["labels"])
        torch.testing.assert_close(rows[:count, 2:], other["boxes"])
