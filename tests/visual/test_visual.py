"""Looking into nets: receptive fields, patches, maximisation, evidence, and how pictures are laid out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cnnbench import models
from cnnbench.models.layers import Net
from cnnbench.output import image_grid, rgb
from cnnbench.runtime.device import Normalize, create_runtime
from cnnbench.utils.errors import UserError
from cnnbench.visual import attribution, filters, layer_view, maps, maximize, patches
from cnnbench.visual.layer_view import LayerView, layer_maps, layer_views
from cnnbench.visual.signal_flow import SignalStatistics

CPU = create_runtime("cpu", "fp32", 0)
RAW = Normalize(CPU, [0.0], [1.0])  # a gray image's bytes as 0..1


class Template(Net):
    """Unit 0 of `stem` answers a dark cross in a bright square, unit 1 a flat bright area; two classes of them."""

    image_size = 24

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 5, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(2, 2)
        with torch.no_grad():
            self.conv.weight[0, 0] = cross() - cross().mean()
            self.conv.weight[1, 0] = 1 / 25
            self.fc.weight.copy_(torch.eye(2))
            self.fc.bias.zero_()

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {"stem": [self.conv, self.relu], "head": [self.fc]}

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.relu(self.conv(x)).amax((2, 3)))
        return logits


def cross() -> Tensor:
    pattern = torch.ones(5, 5)
    pattern[2], pattern[:, 2] = 0, 0
    return pattern


def planted(row: int, column: int, seed: int = 0) -> Tensor:
    """uint8 (1, 24, 24): faint noise with the cross at that corner."""
    image = torch.randint(90, 110, (1, 24, 24), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    image[0, row : row + 5, column : column + 5] = (255 * cross()).to(torch.uint8)
    return image


@pytest.fixture
def template() -> Net:
    return layer_view.prepare_model(Template())


@pytest.mark.parametrize(("name", "layer", "size"), [
    ("resnet8", "layer2", 32), ("alexnet", "conv3", 227), ("vgg11", "features.8", 64), ("googlenet", "inception3a", 96),
])  # fmt: skip
def test_a_unit_sees_what_its_gradient_reaches(name: str, layer: str, size: int) -> None:
    torch.manual_seed(0)
    net = layer_view.prepare_model(models.build(name, num_classes=3))
    for parameter in net.parameters():
        parameter.copy_(parameter.abs() + 1e-3) if parameter.ndim > 1 else None  # so that nothing on the way is zero
    (view,) = layer_views(net, [layer], size, 3)
    image = torch.rand(1, 3, size, size, requires_grad=True)
    maps = layer_maps(net, image, [view])[layer]
    assert maps.shape[1:] == view.shape
    row, column = view.shape[1] // 2, view.shape[2] // 3
    (gradient,) = torch.autograd.grad(maps[0, :, row, column].sum(), image)
    touched = gradient[0].abs().amax(0).nonzero()
    top, left, bottom, right = view.window(row, column)
    # Where a border lies within the image it is met exactly; beyond the edge there is only padding.
    assert touched.amin(0).tolist() == [max(top, 0), max(left, 0)]
    assert (touched.amax(0) + 1).tolist() == [min(bottom, size), min(right, size)]


def test_the_planted_pattern_is_found_and_cut_out_exactly(template: Net) -> None:
    images = torch.stack([planted(2, 3, 0), torch.full((1, 24, 24), 100, dtype=torch.uint8), planted(14, 9, 1)])
    (view,) = layer_views(template, ["stem"], 24, 1)
    batches = [{"image": images[:2]}, {"image": images[2:]}]
    (best,) = patches.find_top_images(template, batches, [view], 2, CPU, RAW, lambda count: None)
    assert set(best.index[0].tolist()) == {0, 2}
    assert best.seen == 3
    for index, position in zip(best.index[0], best.position[0], strict=True):
        crop = patches.crop_patch(images[index], view.window(*divmod(int(position), view.shape[2])))
        assert np.array_equal(crop[..., 0], (255 * cross()).numpy().astype(np.uint8))


def test_a_patch_at_the_edge_shows_the_padding_in_gray_and_is_never_larger_than_the_image() -> None:
    image = torch.full((3, 8, 8), 7, dtype=torch.uint8)
    corner = patches.crop_patch(image, (-2, -2, 3, 3))
    assert corner.shape == (5, 5, 3)
    assert (corner[:2] == patches.OUTSIDE).all() and (corner[2:, 2:] == 7).all()
    assert patches.crop_patch(image, (-40, -40, 60, 60)).shape == (8, 8, 3)


def test_memory_is_bounded_by_the_largest_layer() -> None:
    with torch.device("meta"):
        net = models.build("vgg11", num_classes=2)
    assert layer_view.bounded_batch(net, 224, 3, 512) * 4 * 64 * 224 * 224 <= 2**28
    assert layer_view.bounded_batch(models.build("resnet8", num_classes=2), 32, 3, 128) == 128


def test_what_is_behind_the_last_layer_does_not_run(template: Net) -> None:
    ran: list[int] = []
    (view,) = layer_views(template, ["stem"], 24, 1)
    template.fc.register_forward_hook(lambda *args: ran.append(1))
    layer_maps(template, torch.zeros(1, 1, 24, 24), [view])
    assert not ran


def test_a_layer_that_overwrites_its_input_is_seen_before_and_after(template: Net) -> None:
    found = layer_views(template, ["conv", "stem"], 24, 1)
    maps = layer_maps(template, torch.randn(1, 1, 24, 24), found)
    assert maps["conv"].min() < 0
    assert torch.equal(maps["stem"], maps["conv"].clamp_min(0))


def test_unknown_layers_and_units_are_named_with_the_nearest() -> None:
    net = models.build("resnet8", num_classes=2)
    with pytest.raises(UserError, match=r"has no layer 'layr1'. Did you mean 'layer1'"):
        layer_views(net, ["layr1"], 32, 3)
    with pytest.raises(UserError, match="units=16: the units of layer1 are numbered 0 to 15"):
        layer_view.choose_units(16, 16, "layer1")
    with pytest.raises(UserError, match="Did you mean 'cat'"):
        layer_view.choose_units(["cta"], 2, "head", ["cat", "dog"])
    assert layer_view.choose_units(["dog", 0], 2, "head", ["cat", "dog"]) == [1, 0]
    assert layer_view.choose_units(None, 2, "head") is None


def test_auxiliary_heads_cannot_be_viewed() -> None:
    net = models.build("googlenet", num_classes=2)
    assert not [name for name in layer_view.viewable_modules(net) if name.startswith("aux")]


# Evidence: all three point at the planted cross


def inside(heat: Tensor) -> float:
    """Part of the evidence that lies where the cross is, in planted(14, 9), give or take the square that hides it."""
    heat = heat.clamp_min(0)
    return float(heat[0, 12:21, 7:16].sum() / heat.sum())


def test_grad_cam_lights_up_the_planted_object(template: Net) -> None:
    (view,) = layer_views(template, ["stem"], 24, 1)
    heat = attribution.gradcam_heat(template, planted(14, 9)[None], torch.tensor([0]), RAW, view)
    assert heat.shape == (1, 24, 24)
    row, column = divmod(int(heat[0].argmax()), 24)
    assert 13 <= row <= 20 and 8 <= column <= 15


def test_occlusion_and_saliency_point_at_the_planted_object(template: Net) -> None:
    image, target = planted(14, 9)[None], torch.tensor([0])
    drop = attribution.occlusion_heat(template, image, target, RAW, batch=7)
    assert inside(drop) > 0.9
    assert 0 < float(drop.max()) <= 1
    saliency = attribution.saliency_heat(template, image, target, RAW, seed=0)
    assert inside(saliency) > 0.9
    assert torch.equal(saliency, attribution.saliency_heat(template, image, target, RAW, seed=0))


def test_squares_hide_every_pixel() -> None:
    for height, width in ((24, 24), (7, 30), (224, 224)):
        hidden = np.zeros((height, width), bool)
        for top, left, bottom, right in attribution.occlusion_squares(height, width):
            assert 0 <= top < bottom <= height and 0 <= left < right <= width
            hidden[top:bottom, left:right] = True
        assert hidden.all()


# Maximisation


def test_maximisation_raises_its_unit_many_times_over_and_repeats_exactly() -> None:
    torch.manual_seed(0)
    net = layer_view.prepare_model(models.build("resnet8", num_classes=10))
    norm = Normalize(CPU, [0.5] * 3, [0.25] * 3)
    for layer in ("stem", "layer3"):
        (view,) = layer_views(net, [layer], 32, 3)

        def run(units: list[int], view: LayerView = view) -> list[maximize.MaximizedImage]:
            return maximize.maximize_units(net, view, units, CPU, norm, channels=3, size=32, steps=40, seed=3, batch=2)

        found = run([1, 4, 7])
        for one in found:
            assert one.after > 20 * one.before and one.after > 0.5
            assert one.image.shape == (3, 32, 32) and one.image.min() >= 0 and one.image.max() <= 1
        assert run([4])[0].before == pytest.approx(found[1].before, rel=1e-4)  # the noise is its own
        assert all(torch.equal(a.image, b.image) for a, b in zip(found, run([1, 4, 7]), strict=True))


def test_images_begin_as_smooth_as_photographs_and_in_their_colours() -> None:
    spectrum = torch.stack([maximize._noise(torch.Generator().manual_seed(seed), 3, 64) * 30 for seed in range(8)])
    images = maximize._images(spectrum, 64)
    power = torch.fft.rfft2(images - images.mean((2, 3), keepdim=True)).abs().pow(2).mean((0, 1))
    assert power[1:4, 1:4].mean() > 30 * power[20:24, 20:24].mean()
    light, colour = images.mean(1), images - images.mean(1, keepdim=True)
    assert light.std() > colour.std()


# Filters and grids


def test_filters_are_ordered_gray_first_and_coarse_to_fine() -> None:
    step = torch.ones(3, 8, 8) * torch.cat([torch.ones(4), -torch.ones(4)])
    stripes = torch.ones(3, 8, 8) * torch.tensor([1.0, -1.0]).repeat(4)
    red, blue = torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)
    red[0], blue[2] = 1, 1
    weight = torch.stack([blue, stripes, red, step])
    assert filters.sort_filters(weight, "colour") == [3, 1, 2, 0]
    assert filters.sort_filters(weight, "none") == [0, 1, 2, 3]
    assert filters.sort_filters(weight[[1, 3]], "frequency") == [1, 0]


def test_filters_are_scaled_each_or_together_around_middle_gray() -> None:
    weight = torch.stack([torch.full((1, 2, 2), 0.5), torch.full((1, 2, 2), -2.0)])
    weight[0, 0, 0, 0] = 0
    each, together = filters.filter_images(weight, False), filters.filter_images(weight, True)
    assert each[0][0, 0, 0] == together[0][0, 0, 0] == 128
    assert each[0][1, 1, 0] == 255 and each[1][1, 1, 0] == 0
    assert together[0][1, 1, 0] == round(255 * 0.625)


def test_the_filters_of_a_stage_are_those_of_its_first_convolution() -> None:
    net = models.build("resnet8", num_classes=2)
    assert filters.find_convolution(net, "")[0] == "conv1"
    assert filters.find_convolution(net, "layer2")[0] == "layer2.0.conv1"
    with pytest.raises(UserError, match=r"Did you mean 'layer2.0.conv1'"):
        filters.find_convolution(net, "layer2.0.con1")


def test_maps_that_only_see_the_edge_are_not_the_strongest() -> None:
    values = torch.zeros(3, 8, 8)
    values[0, 0] = 100
    values[2, 3:5, 3:5] = 1
    assert maps.most_varied_units(values, 1) == [2]


def test_grids_are_tidy_and_wide() -> None:
    assert [image_grid.best_columns(count) for count in (1, 10, 96)] == [1, 5, 12]
    for count in range(1, 150):
        columns = image_grid.best_columns(count)
        assert 1 <= columns <= count
    rows = image_grid.in_rows([image_grid.Tile(np.zeros((4, 4, 3), np.uint8))] * 7, 3)
    assert [len(row.tiles) for row in rows] == [3, 3, 1]


def test_a_mosaic_holds_every_picture_with_lines_between() -> None:
    pictures = [np.full((2, 3, 3), value, np.uint8) for value in (10, 20, 30)]
    whole = rgb.mosaic(pictures, columns=2)
    assert whole.shape == (5, 7, 3)
    assert whole[0, 0, 0] == 10 and whole[0, 4, 0] == 20 and whole[4, 0, 0] == 30
    assert (whole[2] == 255).all() and (whole[3:, 4:] == 255).all()


def test_a_grid_shows_small_pictures_pixel_by_pixel(tmp_path: Path) -> None:
    from PIL import Image

    checks = np.zeros((8, 8, 3), np.uint8)
    checks[::2, ::2] = checks[1::2, 1::2] = (200, 30, 30)
    title = "A title so long that it would not fit on one line of such a narrow page and is broken"
    image_grid.draw_grid(
        [image_grid.Row([image_grid.Tile(checks, "a $5 title", "note")], "name\n3 × 4")],
        tmp_path / "a.png",
        title,
        side=2,
    )
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    red = (pixels == (200, 30, 30)).all(2).sum()
    assert 0.45 < red / (2 * image_grid.DPI) ** 2 < 0.55


def test_the_gradient_of_a_deep_plain_net_changes_from_stage_to_stage_and_hardly_with_shortcuts() -> None:
    def spread(name: str) -> float:
        torch.manual_seed(0)
        net = models.build(name, num_classes=10).train()
        statistics = SignalStatistics(net, lambda: True)
        statistics.attach()
        net(torch.randn(8, 3, 16, 16)).logsumexp(1).sum().backward()
        values = statistics.collect(1.0)
        statistics.detach()
        assert all(0 < values[f"activation/zeros/{stage}"] < 0.7 for stage in ("stem", "layer1", "layer2"))
        sizes = [values[f"gradient/rms/{stage}"] for stage in ("layer1", "layer2", "layer3")]
        return max(sizes) / min(sizes)

    assert spread("plain56") > 10 * spread("resnet56")


def test_statistics_are_taken_only_when_wanted_and_only_in_training() -> None:
    net = models.build("resnet8", num_classes=2)
    statistics = SignalStatistics(net, lambda: False)
    statistics.attach()
    net.train()(torch.randn(4, 3, 16, 16)).sum().backward()
    statistics.wanted = lambda: True
    net.eval()(torch.randn(4, 3, 16, 16)).sum().backward()
    assert statistics.collect(1.0) == {} and statistics.history == []
