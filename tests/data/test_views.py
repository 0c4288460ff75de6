"""Images as torchvision prepares them, pixel for pixel; the views of the papers; nets run over whole images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import models as tv
from torchvision.transforms import InterpolationMode, functional, v2
from torchvision.transforms._presets import ImageClassification

from cnnbench import data, models
from cnnbench.config.sections import CropConfig, Interpolation, Resize
from cnnbench.data import Arrays, EvalTransform, Files, Shifts, Views, view_batches
from cnnbench.data.geometry import as_tensor, mirrored, shifted
from cnnbench.data.views import DIRECTIONS
from cnnbench.models.layers import Dense
from cnnbench.runtime import device
from cnnbench.runtime.device import create_runtime
from cnnbench.utils.errors import UserError
from tests.helpers.data import picture

SIZES = [(640, 480), (333, 500), (224, 224), (257, 256), (1000, 301)]


def views(name: str, size: int, ratio: float = 0.875, resize: Resize = Resize.shorter, **keys: Any) -> Views:
    scales = keys.get("scales")
    return data.build_views(CropConfig(name=name, resize=resize, scales=scales), size, ratio, "bilinear")


# As torchvision


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("crop", "side"), [(224, 256), (224, 232), (299, 342)])
def test_images_are_prepared_as_torchvisions_weights_want_them(tmp_path: Path, mode: str, crop: int, side: int) -> None:
    """The same bytes before normalisation, the same numbers to a rounding after it; JPEG and PNG, any aspect."""
    preset = ImageClassification(crop_size=crop, resize_size=side, interpolation=InterpolationMode(mode))
    same = v2.Compose([v2.Resize(side, InterpolationMode(mode)), v2.CenterCrop(crop), v2.PILToTensor()])
    ours = EvalTransform(crop, crop / side, mode)
    normalize = device.Normalize(create_runtime("cpu", "fp32", None), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for number, (width, height) in enumerate(SIZES):
        file = tmp_path / f"{number}.{'jpg' if number % 2 else 'png'}"
        picture(number, width, height).save(file)
        image = data.read_image(file)
        assert torch.equal(ours(image), same(image)), (width, height)
        torch.testing.assert_close(normalize(ours(image)[None])[0], preset(image), atol=1e-6, rtol=1e-6)


def test_every_published_transform_is_one_that_we_reproduce() -> None:
    """Size, resize and interpolation of all of torchvision's classifiers survive the way through our keys."""
    for name in tv.list_models(module=tv):
        for weights in tv.get_model_weights(name):
            transform = weights.transforms()
            crop, side = transform.crop_size[0], transform.resize_size[0]
            assert round(crop / (crop / side)) == side
            assert Interpolation(transform.interpolation.value)


def test_tensors_are_resized_and_cropped_as_torchvision_does() -> None:
    images = torch.randint(256, (3, 3, 40, 52), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    theirs = v2.Compose([v2.Resize(36, InterpolationMode.BICUBIC), v2.CenterCrop(32)])(images)
    assert torch.equal(EvalTransform(32, 32 / 36, "bicubic")(images), theirs)


# The views of the papers


def test_ten_crops_are_those_of_2012() -> None:
    """Corners and centre of the central 256 x 256, and their mirror images: torchvision's ten crops of that square."""
    image = picture(1, 400, 300)
    ten = views("ten", 224)
    (found,) = ten(image)
    square = functional.center_crop(functional.resize(image, 256), 256)
    five = functional.five_crop(square, 224)
    theirs = torch.stack([functional.pil_to_tensor(crop) for crop in (*five, *map(functional.hflip, five))])
    assert (ten.count, ten.text) == (10, "ten 224 of 256")
    assert torch.equal(found, theirs)


def test_six_views_are_the_centre_and_two_neighbours_with_their_mirror_images() -> None:
    image = torch.arange(3 * 36 * 36).reshape(3, 36, 36).to(torch.uint8)
    six = views("six", 32, ratio=32 / 36)
    (found,) = six(image)
    windows = [image[:, 2:34, 2:34], image[:, 3:35, 3:35], image[:, 1:33, 1:33]]
    assert torch.equal(found, torch.stack([*windows, *(window.flip(-1) for window in windows)]))
    assert (six.count, six.text) == (6, "six 32 of 36")
    (whole,) = views("six", 32, ratio=1.0)(image[:, :32, :32])  # what moves in from beyond the edge is the edge
    assert torch.equal(whole[1][:, -1], whole[1][:, -2])


@pytest.mark.parametrize(("width", "height"), [(400, 300), (300, 400)])
def test_144_crops_are_those_of_googlenet(width: int, height: int) -> None:
    image = picture(2, width, height)
    protocol = views("144", 224)
    (found,) = protocol(image)
    assert found.shape == (144, 3, 224, 224) and protocol.count == 144
    assert protocol.scales == (256, 288, 320, 352)
    crops = found[:72].unflatten(0, (4, 3, 6))  # scale, square, crop
    assert torch.equal(found[72:], mirrored(found[:72]))
    for number, side in enumerate(protocol.scales):
        scaled = functional.resize(image, side)
        free = max(scaled.size) - side
        for place, start in enumerate((0, round(free / 2), free)):
            corner = (start, 0) if width > height else (0, start)
            square = scaled.crop((*corner, corner[0] + side, corner[1] + side))
            five = torch.stack([functional.pil_to_tensor(crop) for crop in functional.five_crop(square, 224)])
            assert torch.equal(crops[number, place, :5], five)
            assert torch.equal(crops[number, place, 5], functional.pil_to_tensor(square.resize((224, 224), 2)))


def test_dense_views_are_whole_images_and_their_mirror_images() -> None:
    protocol = views("multi_scale_dense", 224)
    groups = protocol(picture(3, 400, 300))
    assert [tuple(group.shape) for group in groups] == [(2, 3, 256, 341), (2, 3, 384, 512), (2, 3, 512, 682)]
    assert all(torch.equal(group[1], mirrored(group[0])) for group in groups)
    assert (protocol.count, protocol.ragged, protocol.dense) == (6, True, True)
    assert views("multi_scale_dense", 32).scales == (37, 55, 73)
    assert views("multi_scale_dense", 224, scales=[224, 256]).scales == (224, 256)


def test_squashing_keeps_all_of_the_image() -> None:
    (found,) = views("center", 256, 1.0, Resize.squash)(picture(4, 400, 300))
    assert torch.equal(found[0], functional.pil_to_tensor(picture(4, 400, 300).resize((256, 256), 2)))


@pytest.mark.parametrize(
    ("name", "keys", "words"),
    [
        ("ten", {"ratio": 1.0}, "crop=ten has no room"),
        ("center", {"scales": [256]}, "which has one scale"),
        ("144", {"scales": [200]}, "less than the 224 pixels"),
        ("twelve", {}, "unknown crop 'twelve'"),
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused(name: str, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        views(name, 224, **keys)


def test_shifts_move_the_image_and_repeat_its_edge() -> None:
    image = torch.arange(25, dtype=torch.uint8).view(1, 5, 5)
    assert torch.equal(shifted(image, 1, 0)[0, 1:], image[0, :-1])
    assert torch.equal(shifted(image, 0, -2)[0, :, :3], image[0, :, 2:])
    assert shifted(image, 0, -2)[0, 0].tolist() == [2, 3, 4, 4, 4]
    shifts = Shifts(size=32, scale=40, interpolation="bilinear", pixels=3)
    (found,) = shifts(picture(5, 60, 50))
    scaled = as_tensor(picture(5, 60, 50).resize((48, 40), 2))
    assert found.shape == (9, 3, 32, 32)
    assert torch.equal(found[0], scaled[:, 4:36, 8:40])
    assert torch.equal(found[1 + list(DIRECTIONS).index("right")], scaled[:, 4:36, 5:37])


# Batches of views


def tree(folder: Path, count: int) -> Files:
    paths = []
    for number in range(count):
        paths.append(str(folder / f"{number}.png"))
        picture(number, 40 + number, 50).save(paths[-1])
    return Files(paths, torch.arange(count))


@pytest.mark.parametrize("name", ["center", "six", "ten", "144", "multi_scale_dense"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_the_same_views_whatever_their_size(tmp_path: Path, name: str, workers: int) -> None:
    if workers and name != "multi_scale_dense":
        pytest.skip("processes are started for one protocol, the hardest: its views differ in shape")
    source, protocol = tree(tmp_path, 5), views(name, 32)
    expected = [protocol(data.read_image(path)) for path in source.paths]
    for batch_size in (1, 16, 400):
        seen = 0
        for groups, targets in view_batches(source, protocol, batch_size=batch_size, workers=workers):
            for row, target in enumerate(targets.tolist()):
                assert target == seen
                assert all(torch.equal(group[row], own) for group, own in zip(groups, expected[seen], strict=True))
                seen += 1
        assert seen == 5


def test_an_image_is_read_once_however_many_views_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    once = Image.open
    monkeypatch.setattr(Image, "open", lambda path, **options: opened.append(path) or once(path, **options))
    source = tree(tmp_path, 3)
    assert len(list(view_batches(source, views("144", 32), batch_size=16, workers=0))) == 3
    assert opened == source.paths


def test_images_in_memory_are_viewed_in_batches_and_shared_among_ranks() -> None:
    images = torch.randint(256, (7, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    source, ten = Arrays(images, torch.arange(7)), views("ten", 32)
    one = [ten(image)[0] for image in images]
    shares = [
        pair
        for rank in range(3)
        for pair in view_batches(source, ten, batch_size=20, workers=0, rank=rank, world_size=3)
    ]
    assert torch.cat([targets for _, targets in shares]).tolist() == list(range(7))
    assert torch.equal(torch.cat([groups[0] for groups, _ in shares]), torch.stack(one))


# Nets over whole images


NETS: dict[str, Callable[[], Any]] = {
    "alexnet": lambda: models.build("alexnet", num_classes=5),
    "alexnet_owt": lambda: models.build("alexnet_owt", num_classes=5),
    "vgg11": lambda: models.build("vgg11", num_classes=5),
    "torchvision's alexnet": lambda: models.build("alexnet", source="torchvision", num_classes=5),
    "resnet8": lambda: models.build("resnet8", num_classes=5),
    "nin_cifar": lambda: models.build("nin_cifar", num_classes=5),
}


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_a_dense_net_on_images_of_its_own_size_gives_its_ordinary_logits(name: str) -> None:
    torch.manual_seed(0)
    net = NETS[name]().eval()
    images = torch.randn(1, 3, net.image_size, net.image_size)
    maps = net.dense(images)
    assert maps.shape == (1, 5, 1, 1)
    torch.testing.assert_close(maps[..., 0, 0], net(images), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(Dense(net)(images), net(images), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_classifier_of_vgg_looks_at_every_place_of_a_larger_image() -> None:
    """On maps of 9 x 8 there are 3 x 2 places; each has the logits of the classifier on its own 7 x 7 window."""
    torch.manual_seed(0)
    net = models.build("vgg11", num_classes=5).eval()
    images = torch.randn(1, 3, 288, 256)
    maps: Tensor = net.dense(images)
    features = net.get_submodule("features")(images)
    assert maps.shape == (1, 5, 3, 2)
    for row in range(3):
        for column in range(2):
            window = features[..., row : row + 7, column : column + 7]
            torch.testing.assert_close(
                maps[..., row, column], net.get_submodule("classifier")(window.flatten(1)), atol=1e-5, rtol=1e-5
            )


def test_a_net_without_a_dense_form_is_refused() -> None:
    with torch.device("meta"):
        deepface = models.build("deepface", num_classes=5)
        alexnet = models.build("alexnet", num_classes=5)
    with pytest.raises(UserError, match="deepface cannot run over whole images of 200 pixels"):
        models.check_dense(deepface, 200)
    with pytest.raises(UserError, match="alexnet cannot run over whole images of 128 pixels"):
        models.check_dense(alexnet, 128)
    models.check_dense(alexnet, 256)
