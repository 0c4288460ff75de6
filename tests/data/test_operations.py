"""Operations on whole batches, and the policies that draw them: side by side with torchvision's."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from cnnbench.config.sections import LearntOn, Policy
from cnnbench.data import operations, policies
from cnnbench.data.policies import NAMES, RandomOperations
from tests.helpers.data import picture

AUTO = v2.AutoAugment()
CHANNELS = [3, 1]


def photographs(count: int, channels: int = 3, size: int = 24) -> Tensor:
    images = torch.stack([functional.pil_to_tensor(picture(seed, size, size)) for seed in range(count)])
    return images if channels == 3 else images[:, :channels]


def torchvisions(images: Tensor, which: Tensor, values: Tensor) -> Tensor:
    nearest: Any = v2.InterpolationMode.NEAREST
    done = [
        AUTO._apply_image_or_video_transform(image, NAMES[number], value, nearest, {type(image): 0})
        for image, number, value in zip(images, which.tolist(), values.tolist(), strict=True)
    ]
    return torch.stack(done)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("policy", [Policy.trivial, Policy.auto])
def test_every_operation_of_every_strength_is_torchvisions(policy: Policy, channels: int) -> None:
    table = policies.magnitudes(policy, 24, 24, torch.device("cpu"))
    which = torch.arange(len(NAMES)).repeat_interleave(table.shape[1])
    values = table.flatten() * torch.where(torch.arange(len(which)) % 2 == 0, 1, -1)
    values = torch.where((which >= policies.SIGNED.start) & (which < policies.SIGNED.stop), values, values.abs())
    images = photographs(len(which), channels)
    ours, theirs = policies.applied(images, which, values), torchvisions(images, which, values)
    difference = (ours.int() - theirs.int()).abs().flatten(1)
    still = which < policies.SHEAR_X
    assert torch.equal(ours[still], images[still])
    moves = (which <= policies.ROTATE) & ~still
    assert difference[~moves].max() <= 1 and (difference[~moves] > 0).float().mean() < 0.005
    assert (difference[moves] > 0).float().mean() < 0.001  # pixels halfway between two


@pytest.mark.parametrize("policy", [Policy.trivial, Policy.rand, Policy.auto])
def test_images_on_a_device_get_the_same_operations_without_waiting(policy: Policy) -> None:
    random, images = RandomOperations(policy=policy), photographs(64)
    real = torch.rand(64, random.numbers, generator=torch.Generator().manual_seed(1))
    once = random.of_batch(images, real)
    assert not torch.equal(once, images) and once.dtype == torch.uint8
    alone = [random.transform(image, {"real": row[None]}) for image, row in zip(images, real, strict=True)]
    assert torch.equal(once, torch.stack(alone))
    dense = images
    for which, value in random.chosen(real, 24, 24):
        every = [group(dense, value, which) for _, _, group in policies.GROUPS]
        for (first, last, _), changed in zip(policies.GROUPS, every, strict=True):
            chosen = (which >= first) & (which <= last)
            dense = torch.where(chosen[:, None, None, None], changed, dense)
    assert torch.equal(once, dense)
    assert random.of_batch(images.to("meta"), real.to("meta")).is_meta


def test_the_learnt_policies_are_torchvisions() -> None:
    for on in LearntOn:
        theirs = AUTO._get_policies(v2.AutoAugmentPolicy(on.value))
        ours = policies.learnt(on, torch.device("cpu"))
        wanted = [[[NAMES.index(name), p, m or 0] for name, p, m in row] for row in theirs]
        assert torch.equal(ours, torch.tensor(wanted))


def test_the_magnitudes_are_torchvisions() -> None:
    for policy, kind, bins in (
        (Policy.trivial, v2.TrivialAugmentWide, 31),
        (Policy.rand, v2.RandAugment, 31),
        (Policy.auto, v2.AutoAugment, 10),
    ):
        table = policies.magnitudes(policy, 20, 40, torch.device("cpu"))
        for name, (values, signed) in kind._AUGMENTATION_SPACE.items():
            found = values(bins, 20, 40)
            wanted = torch.zeros(bins) if found is None else found.float()
            wanted = wanted.trunc() if name.startswith("Translate") else wanted
            assert torch.allclose(table[NAMES.index(name)], wanted), name
            assert signed == (NAMES.index(name) in policies.SIGNED)


def test_operations_are_drawn_as_they_should_be() -> None:
    count = 30_000
    real = torch.rand(count, 7, generator=torch.Generator().manual_seed(0))
    for policy, rounds in ((Policy.trivial, 1), (Policy.rand, 2)):
        found = RandomOperations(policy=policy).chosen(real[:, : 1 + 3 * rounds], 32, 32)
        assert len(found) == rounds
        for which, values in found:
            shares = torch.bincount(which, minlength=15) / count
            assert shares[14] == 0 and (shares[:14] - 1 / 14).abs().max() < 0.007
            turned = values[which == policies.ROTATE]
            assert abs((turned < 0).float().mean() - 0.5) < 0.05
    learnt = RandomOperations(policy=Policy.auto, learnt_on=LearntOn.cifar10).chosen(real, 32, 32)
    shares = torch.stack([torch.bincount(which, minlength=15) for which, _ in learnt]).double().sum(0) / count
    wanted = torch.zeros(15, dtype=torch.float64)
    for row in policies.learnt(LearntOn.cifar10, torch.device("cpu")).tolist():
        for which, likely, _ in row:
            wanted[int(which)] += likely / 25
    assert (shares - wanted)[1:].abs().max() < 0.012


def test_rotation_and_blur_are_torchvisions() -> None:
    images, degrees = photographs(6), torch.tensor([0.0, 7.0, -30.0, 45.0, 90.0, 170.0])
    rotate = partial(functional.rotate, interpolation=v2.InterpolationMode.BILINEAR)
    turned = torch.stack([rotate(image, angle) for image, angle in zip(images, degrees.tolist(), strict=True)])
    assert (operations.rotated(images, degrees).int() - turned.int()).abs().max() <= 1
    assert torch.equal(operations.rotated(images, 0 * degrees), images)
    sigma = torch.tensor([0.1, 0.3, 0.8, 1.2, 1.7, 2.0])
    reach = operations.reach_of(2.0)
    smooth = [
        functional.gaussian_blur(image, [2 * reach + 1] * 2, [s])
        for image, s in zip(images, sigma.tolist(), strict=True)
    ]
    ours = operations.blurred(images, sigma, reach)
    assert (ours.int() - torch.stack(smooth).int()).abs().max() <= 1
    assert ours[5].float().std() < ours[0].float().std()
