"""Lab, the 313 bins, and the metrics of a colorization, against the definitions and scikit-image."""

import math
import pickle
import tarfile

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnbench.runtime.device import create_runtime
from cnnbench.tasks.colorization import bins, lab
from cnnbench.tasks.colorization.metrics import THRESHOLDS, AucMeter, ColourMeter, colourfulness
from cnnbench.tasks.psnr import psnr
from tests.helpers.paths import SHARED

CPU = create_runtime("cpu", "fp32", seed=0)


def pictures(count: int = 6, size: int = 16) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, size, size), np.uint8))


def all_colours() -> Tensor:
    """Every fifth value of each channel, and the ends: uint8 (1, 3, N, 1)."""
    line = torch.tensor([*range(0, 255, 5), 255], dtype=torch.uint8)
    return torch.cartesian_prod(line, line, line).T[None, :, :, None]


def test_lab_is_that_of_scikit_image() -> None:
    color = pytest.importorskip("skimage.color", reason="scikit-image is in the dev extra")
    rgb = all_colours()
    theirs = color.rgb2lab(rgb[0].permute(1, 2, 0).numpy())
    ours = lab.rgb_to_lab(rgb)[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - theirs).max() < 2e-3
    back = (255 * color.lab2rgb(theirs)).round().astype(np.uint8)
    assert np.array_equal(lab.lab_to_rgb(torch.from_numpy(theirs).permute(2, 0, 1)).permute(1, 2, 0).numpy(), back)


def test_lab_of_known_colours() -> None:
    """White, black, and the primaries of sRGB under D65, by the published tables (two digits)."""
    rgb = torch.tensor([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)
    expected = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]]
    found = lab.rgb_to_lab(rgb[..., None, None])[..., 0, 0]
    torch.testing.assert_close(found, torch.tensor(expected), atol=0.02, rtol=0)


def test_there_and_back_is_the_same_picture() -> None:
    rgb = all_colours()
    assert torch.equal(lab.lab_to_rgb(lab.rgb_to_lab(rgb)), rgb)


def test_there_are_313_bins_and_they_cover_what_srgb_reaches() -> None:
    assert bins.COUNT == 313 == len(set(bins.COLOURS))
    ab = lab.rgb_to_lab(all_colours())[0, 1:, :, 0].T
    assert ab.abs().max() < 10 * bins.EDGE
    distances = torch.cdist(ab, bins.centres())
    assert distances.min(1).values.max() < 10  # of a colour at the edge of the gamut
    torch.testing.assert_close(distances.gather(1, bins.nearest_bin(ab)[:, None])[:, 0], distances.min(1).values)


def test_soft_encoding_is_that_of_the_five_nearest_bins() -> None:
    ab = 240 * torch.rand(5000, 2, generator=torch.Generator().manual_seed(0)) - 120  # beyond the gamut too
    near, numbers = torch.cdist(ab, bins.centres()).topk(5, largest=False)
    found, given = bins.soft_encode(ab)
    torch.testing.assert_close(given, (-near.square() / (2 * 5**2)).softmax(1), atol=1e-3, rtol=0)
    same = (found == numbers).all(1)
    assert same.float().mean() > 0.999  # others have two bins at the same distance


def test_the_annealed_mean_lies_between_the_mean_and_the_mode() -> None:
    logits = torch.zeros(1, 313, 1, 1)
    logits[0, [0, 200], 0, 0] = torch.tensor([8.0, 9.0])
    red, mean = bins.centres()[200], logits.softmax(1)[0, :, 0, 0] @ bins.centres()
    torch.testing.assert_close(bins.annealed_mean(logits, 1.0)[0, :, 0, 0], mean, atol=1e-3, rtol=0)
    torch.testing.assert_close(bins.annealed_mean(logits, 0.01)[0, :, 0, 0], red, atol=1e-3, rtol=0)
    apart = [(bins.annealed_mean(logits, t)[0, :, 0, 0] - red).norm() for t in (0.01, 0.38, 1.0)]
    assert apart == sorted(apart)


def test_rare_colours_weigh_more_and_the_mean_weight_is_one() -> None:
    counts = torch.zeros(313, dtype=torch.int64)
    counts[150], counts[20] = 9000, 1000
    prior = bins.smoothed(counts)
    assert prior.sum() == pytest.approx(1) and prior[150] < 0.9 and (prior > 0).sum() > 2
    weights = bins.rarity(prior)
    assert (weights * prior).sum() == pytest.approx(1)
    assert weights[150] == weights.min() and weights.max() / weights.min() == pytest.approx(
        (prior[150] + 1 / 313) / (prior.min() + 1 / 313)
    )


# Metrics


def by_definition(ab: Tensor, truth: Tensor) -> tuple[float, float]:
    """Rebalanced AuC and AuC, pixel by pixel and threshold by threshold."""
    error = (ab - truth).double().norm(dim=1).flatten()
    within = error[None] <= torch.arange(151)[:, None]
    own = torch.cdist(truth.permute(0, 2, 3, 1).reshape(-1, 2), bins.centres()).argmin(1)
    each = [within[:, own == number].double().mean() for number in own.unique()]
    return 100 * float(torch.stack(each).mean()), 100 * float(within.double().mean())


def test_auc_is_as_it_is_defined_and_the_same_for_any_batches() -> None:
    truth = lab.rgb_to_lab(pictures())
    answer = torch.randn(6, 2, 4, 4)
    whole, parts = AucMeter(CPU), AucMeter(CPU)
    whole.update(answer, truth)
    for start, stop in ((0, 1), (1, 4), (4, 6)):
        parts.update(answer[start:stop], truth[start:stop])
    assert torch.equal(whole.errors, parts.errors)
    ab = torch.nn.functional.interpolate(110 * answer, size=(16, 16), mode="bilinear")
    rebalanced, plain = by_definition(ab, truth[:, 1:])
    # A pixel that lies on a threshold falls to either side by rounding: it moves the area by 100 / (1,536 x 151).
    assert whole.metrics() == pytest.approx({"auc_rebalanced": rebalanced, "auc": plain}, abs=0.002)


def test_the_truth_has_all_of_the_area_and_what_is_far_off_none() -> None:
    truth = lab.rgb_to_lab(pictures())
    right, wrong = ColourMeter(CPU), ColourMeter(CPU)
    right.add_colours(truth[:, 1:], truth)
    wrong.add_colours(truth[:, 1:] + 1000, truth)
    right.n = wrong.n = len(truth)
    found = right.metrics()
    assert found["auc"] == found["auc_rebalanced"] == 100 and found["psnr"] == 100
    assert found["colourfulness"] == pytest.approx(right.true_colour.item() / 6)
    assert wrong.metrics()["auc"] == 0 and int(wrong.errors[:, THRESHOLDS].sum()) == 6 * 16 * 16


def test_psnr_is_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is in the dev extra")
    one, other = pictures(), pictures().flip(0)
    theirs = [metrics.peak_signal_noise_ratio(a.numpy(), b.numpy()) for a, b in zip(one, other, strict=True)]
    assert psnr(other, one).tolist() == pytest.approx(theirs)


def test_colourfulness_is_hasler_and_suesstrunks() -> None:
    gray = torch.full((1, 3, 4, 4), 90, dtype=torch.uint8)
    half = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    half[0, 0, 0] = 200  # red above, black below: rg 200 and 0, yb 100 and 0
    expected = math.hypot(100, 50) + 0.3 * math.hypot(100, 50)
    assert colourfulness(gray).item() == 0 and colourfulness(half).item() == pytest.approx(expected)


@pytest.mark.slow
def test_gray_has_the_areas_that_a_plain_script_found() -> None:
    """On the first 500 test images of CIFAR-10: AuC 90.03 %, rebalanced 64.00 %; colourfulness of the truth 33.5."""
    packed = SHARED / "data/cifar-10-batches-py.tar.xz"
    if not packed.is_file():
        pytest.skip("CIFAR-10 is not there")
    with tarfile.open(packed) as archive:
        name = next(one for one in archive.getnames() if one.endswith("test_batch"))
        batch = pickle.load(archive.extractfile(name), encoding="latin1")
    truth = lab.rgb_to_lab(torch.from_numpy(batch["data"][:500].reshape(-1, 3, 32, 32)))
    meter = ColourMeter(CPU)
    meter.add_colours(torch.zeros_like(truth[:, 1:]), truth)
    meter.n = 500
    found = meter.metrics()
    assert (round(found["auc"], 2), round(found["auc_rebalanced"], 2)) == (90.03, 64.00)
    assert meter.true_colour.item() / 500 == pytest.approx(33.5, abs=0.05)
