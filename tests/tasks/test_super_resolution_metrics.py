"""PSNR and SSIM against scikit-image, luma against MATLAB, bicubic interpolation against the published rows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cnnbench.data.luma import luma, rgb, ycbcr
from cnnbench.data.photographs import Photo
from cnnbench.models.enlarging import enlarged, reduced, whole_blocks
from cnnbench.runtime.device import create_runtime
from cnnbench.tasks.psnr import psnr
from cnnbench.tasks.super_resolution import metrics
from cnnbench.tasks.super_resolution.metrics import QualityMeter, compared, quality, ssim
from tests.helpers.paths import SHARED
from tests.helpers.scenes import scene

# Set5: PSNR and SSIM of bicubic interpolation as the papers print them (Dong et al. 2015, table 2).
SET5 = {2: (33.66, 0.9299), 3: (30.39, 0.8682), 4: (28.42, 0.8104)}
SET14 = {2: 30.23, 3: 27.54, 4: 26.00}


def images(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of gray images in 0..255 that are alike."""
    truth = torch.stack([torch.from_numpy(scene(number)).float().mean(2)[None] for number in range(count)]).round()
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 9, truth.shape)).float()
    return (truth + noise).round().clamp(0, 255), truth


def test_psnr_and_ssim_are_scikit_images() -> None:
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is in the dev extra")
    ours, truth = images()
    for index in range(len(ours)):
        a, b = (one[index, 0].numpy().astype(np.float64) for one in (ours, truth))
        assert psnr(ours, truth)[index].item() == pytest.approx(skimage.peak_signal_noise_ratio(b, a, data_range=255))
        expected = skimage.structural_similarity(b, a, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                                                 data_range=255)  # fmt: skip
        assert ssim(ours, truth)[index].item() == pytest.approx(expected, abs=1e-6)


def test_luma_is_matlabs() -> None:
    """rgb2ycbcr of the corners of the cube, as its documentation and BT.601 have them."""
    colours = [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]
    pixels = torch.tensor(colours, dtype=torch.uint8).T.view(3, 1, 5)
    assert luma(pixels).flatten().tolist() == [16, 235, 81, 145, 41]
    assert ycbcr(pixels)[1:, 0].round().T.tolist() == [[128, 128], [128, 128], [90, 240], [54, 34], [240, 110]]
    torch.testing.assert_close(rgb(ycbcr(pixels)), pixels.float(), atol=1e-3, rtol=0)


def test_perfect_images_have_a_finite_psnr_and_the_border_does_not_count() -> None:
    _, truth = images(1)
    spoiled = truth.clone()
    spoiled[..., :3, :] = 0
    assert psnr(truth, truth).item() == pytest.approx(100) and ssim(truth, truth).item() == pytest.approx(1)
    assert quality(spoiled, truth, reduced(truth, 3), 3)["psnr_y"].item() == pytest.approx(100)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_meter_gives_the_mean_over_the_images_for_any_batches(channels: int) -> None:
    _, truth = images()
    truth = truth.expand(-1, channels, -1, -1).to(torch.uint8)
    outputs = enlarged(reduced(truth.float(), 2), 2) / 255 + 0.01
    runtime = create_runtime("cpu", "fp32", seed=None)
    meters = [QualityMeter(runtime, 2, channels) for _ in range(2)]
    meters[0].add(torch.zeros(()), outputs, truth)
    for index in range(3):
        meters[1].add(torch.zeros(()), outputs[index : index + 1], truth[index : index + 1])
    assert meters[0].compute() == pytest.approx(meters[1].compute(), rel=1e-12)
    assert torch.allclose(meters[0].answers(), meters[1].answers()) and meters[0].answers().shape[0] == 3
    assert ("psnr_rgb" in meters[0].compute()) == (channels == 3)
    first = compared(metrics.levels(outputs[:1]), truth[:1].float(), reduced(truth[:1].float(), 2), 2)
    assert meters[0].answers()[0].tolist() == pytest.approx([one.item() for one in first.values()])


@pytest.mark.parametrize("scale", SET5)
def test_bicubic_interpolation_is_the_published_one(scale: int, tmp_path: Path) -> None:
    archive = SHARED / "data/sr.tar.xz"
    if not archive.is_file():
        pytest.skip("Set5 and Set14 are not here")
    import tarfile

    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, [one for one in tar.getmembers() if "/set" in one.name], filter="data")
    found = {}
    for name in ("set5", "set14"):
        files = sorted((tmp_path / "sr" / name).glob("*.png"))
        truths = [whole_blocks(Photo(str(file), 1).as_pixels()[None].float(), scale) for file in files]
        rows = [compared(one, one, reduced(one, scale), scale) for one in truths]
        found[name] = {key: np.mean([row[key].item() for row in rows]) for key in ("bicubic_psnr_y", "bicubic_ssim_y")}
    assert found["set5"]["bicubic_psnr_y"] == pytest.approx(SET5[scale][0], abs=0.006)
    assert found["set5"]["bicubic_ssim_y"] == pytest.approx(SET5[scale][1], abs=0.0005)
    assert found["set14"]["bicubic_psnr_y"] == pytest.approx(SET14[scale], abs=0.006)
