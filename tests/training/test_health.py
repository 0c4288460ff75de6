"""Numbers that go wrong: skipped, counted, warned of or refused by name."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cnnbench import data, models
from cnnbench.config.sections import OptimConfig, Optimizer
from cnnbench.data.model_spec import InputSpec, ModelSpec
from cnnbench.models.layers import Net
from cnnbench.tasks.classification.metrics import ClassificationMeter
from cnnbench.training import health, loop, optim
from cnnbench.training.state import TrainState
from cnnbench.utils.files import read_json
from tests.helpers.data import class_tree
from tests.helpers.runs import SMALL, Ran
from tests.helpers.tiny import CPU, Tiny, batches, train_state


class Spoiled(Tiny):
    """Tiny with BatchNorm, whose features are made infinite in the chosen calls."""

    def __init__(self, calls: set[int], where: str = "forward") -> None:
        super().__init__(norm=True)
        self.calls, self.where, self.called = calls, where, 0

    def forward(self, images: Tensor) -> Tensor:
        spoil, self.called = self.called in self.calls, self.called + 1
        if spoil and self.where == "forward":
            images = images * math.inf
        logits = super().forward(images)
        if spoil and self.where == "backward":  # a finite loss whose gradient is not
            logits.register_hook(lambda gradient: gradient * math.nan)
        return logits


def values(target: TrainState) -> dict[str, Tensor]:
    """All that a step changes: weights, running statistics, momentum."""
    memory = target.optimizer.state_dict()["state"]
    moments = {f"{i}.{key}": value for i, values in memory.items() for key, value in values.items()}
    everything = {**target.model.state_dict(), **{k: v for k, v in moments.items() if isinstance(v, Tensor)}}
    return {name: value.clone() for name, value in everything.items() if value.is_floating_point()}


def optimizer_for(model: nn.Module, kind: str, fused: bool) -> torch.optim.Optimizer:
    cfg = OptimConfig(name=Optimizer(kind), lr=0.1 if kind == "sgd" else 1e-3, lr_batch=None, momentum=0.9,
                      lr_decay=1.0, nesterov=False, weight_decay=1e-4, decay_all=False, clip=None,
                      head_lr=1.0)  # fmt: skip
    return optim.build_optimizer(model, cfg, 12, fused=fused)


@pytest.mark.parametrize("fused", [False, True], ids=["host", "device"])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_step_that_is_not_finite_changes_nothing(kind: str, fused: bool, where: str) -> None:
    """Also the very first one. `fused` is how a GPU skips it, without waiting; a CPU can do the same."""
    torch.manual_seed(0)
    model = Spoiled({0, 2}, where)
    target = train_state(model, optimizer=optimizer_for(model, kind, fused), clip=5.0)
    before = values(target)
    for number, batch in enumerate(batches(4)):
        loop.train_epoch(target, [batch], lambda: True)
        after = values(target)
        unchanged = [name for name, value in before.items() if torch.equal(value, after[name])]
        if number in (0, 2):
            assert unchanged == list(before)
        else:
            assert "fc.weight" not in unchanged and "norm.running_mean" not in unchanged
        assert all(value.isfinite().all() for value in after.values())
        before = after
    assert target.guard.look()[:2] == (2, 0)
    assert target.meter.n == 48
    assert math.isfinite(target.meter.compute()["loss"])


def test_a_scaler_skips_and_is_counted_in_the_same_way() -> None:
    """As fp16 on a GPU needs it; here in float32."""
    scaled = replace(CPU, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=True))
    target = train_state(Spoiled({1}), runtime=scaled, clip=5.0)
    before: dict[str, Tensor] = {}
    for number, batch in enumerate(batches(3)):
        loop.train_epoch(target, [batch], lambda: True)
        after = values(target)
        assert (number == 1) == all(torch.equal(value, after[name]) for name, value in before.items()) or number == 0
        before = after
    assert target.guard.look()[:2] == (1, 0)
    assert scaled.scaler.get_scale() == 2.0**9


@pytest.mark.parametrize("fused", [False, True], ids=["host", "device"])
def test_skipping_is_as_if_the_step_had_not_been(fused: bool) -> None:
    """Bit for bit, but for the batches seen: the same training without the spoiled batch."""
    torch.manual_seed(0)
    spoiled = Spoiled({1})
    twin = Spoiled(set())
    twin.load_state_dict(spoiled.state_dict())
    first, second, third = batches(3)
    targets = [train_state(model, optimizer=optimizer_for(model, "sgd", fused)) for model in (spoiled, twin)]
    loop.train_epoch(targets[0], [first, second, third], lambda: True)
    loop.train_epoch(targets[1], [first, third], lambda: True)
    ours, theirs = values(targets[0]), values(targets[1])
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_guard_knows_where_a_row_began_and_starts_anew_after_a_good_step() -> None:
    model = Spoiled({2, 3, 5, 6, 7})
    target = train_state(model)
    seen = []
    for batch in batches(8):
        loop.train_epoch(target, [batch], lambda: True)
        seen.append(target.guard.look())
    assert [counts.in_a_row for counts in seen] == [0, 0, 1, 2, 0, 1, 2, 3]
    assert (seen[3].first, seen[7].first, seen[7].skipped) == (2, 5, 5)
    fresh = train_state(Spoiled(set()))
    fresh.load_state_dict(target.state_dict())
    assert fresh.guard.look() == (5, 0, 8, 0)  # of no row, the first step is the next


def test_a_measurement_shows_a_loss_that_is_not_finite() -> None:
    for finite_only, shown in ((True, 2.0), (False, math.inf)):
        meter = ClassificationMeter(CPU)
        for loss in (2.0, math.inf):
            meter.add(torch.tensor(loss), torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64), finite_only=finite_only)
        assert meter.compute()["loss"] == shown
        again = ClassificationMeter(CPU)
        again.load_state_dict(meter.state_dict())
        assert again.compute() == meter.compute()


def spoil(monkeypatch: pytest.MonkeyPatch, first: int, stop: int = 10**6) -> None:
    """resnet8, whose logits are not numbers in the given steps of its training, counted from 1."""
    build = models.MODELS["resnet8"]

    def build_spoiled(
        num_classes: int, in_channels: int, shortcut: str, shortcut_pad: str, zero_init_residual: bool
    ) -> Net:
        net = build(num_classes=num_classes, in_channels=in_channels)
        steps = iter(range(1, 10**6))

        def hook(module: nn.Module, args: Any, logits: Tensor) -> Tensor:
            return logits * math.nan if module.training and first <= next(steps) < stop else logits

        net.register_forward_hook(hook)
        return net

    monkeypatch.setitem(models.MODELS, "resnet8", build_spoiled)


@pytest.mark.usefixtures("no_pictures")
def test_skipped_steps_are_said_and_in_the_result(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 3, 6)
    ran = cnnbench("train", "epochs=2", "run.dir=r", *SMALL)
    assert ran.code == 0, ran.err
    assert "warning: epoch 1: 3 steps skipped: the loss or the gradient was not finite" in ran.err
    result = read_json(tmp_path / "r/result.json")
    assert result["skipped_steps"] == 3 and any("3 steps skipped" in text for text in result["warnings"])


@pytest.mark.usefixtures("no_pictures")
def test_many_in_a_row_stop_the_run_and_name_step_lr_and_files(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split, seed in (("train", 0), ("val", 1)):
        class_tree(tmp_path / "d" / split, {"a": 6, "b": 6}, seed)
    spoil(monkeypatch, 5)
    command = ("train", "data=folder", "data.root=d", "data.image_size=8", "augment=none", "epochs=20", "batch_size=4",
               "device=cpu", "precision=fp32", "optim.lr_batch=null", "optim.lr=0.05", "data.workers=0")  # fmt: skip
    ran = cnnbench(*command, "run.dir=r")
    assert ran.code == 1
    assert "5 steps in a row, from step 5 on (epoch 2, batch 2), at lr 0.05" in ran.err  # to the end of an epoch
    named = (tmp_path / "r/bad_batch.txt").read_text().splitlines()
    assert len(named) == 4 and all(Path(name).is_file() for name in named)
    assert f"that batch: {named[0]}, {named[1]}, {named[2]} …" in ran.err
    order = data.order.Order(12, 4, seed=0).batches(1)[1]
    every = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "d/train").rglob("*.jpg"))
    assert named == [every[index] for index in order.tolist()]
    assert read_json(tmp_path / "r/status.json")["status"] == "failed"


@pytest.mark.usefixtures("no_pictures")
def test_the_row_ends_at_twenty(cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 5)
    longer = cnnbench("train", "epochs=2", "run.dir=s", *SMALL[:-1], "batch_size=10")
    assert longer.code == 1 and "20 steps in a row, from step 5 on (epoch 1, batch 5)" in longer.err
    assert not (tmp_path / "s/checkpoints/last.pt").exists()


@pytest.mark.usefixtures("no_pictures")
def test_a_dead_net_is_named(cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ReLU that only ever gives 0 before the logits: no gradient comes through it."""
    build = models.MODELS["resnet8"]

    def build_dead(
        num_classes: int, in_channels: int, shortcut: str, shortcut_pad: str, zero_init_residual: bool
    ) -> Net:
        net = build(num_classes=num_classes, in_channels=in_channels)
        net.register_forward_hook(lambda module, args, logits: (logits - 1000).relu())
        return net

    monkeypatch.setitem(models.MODELS, "resnet8", build_dead)
    ran = cnnbench("train", "epochs=4", "run.dir=r", *SMALL)
    assert "warning: every output is the same for every image: dead" in ran.err
    assert "the gradient has been exactly zero for 20 steps: the net is dead" in ran.err
    assert ran.err.count("the net is dead") == 1
    assert len(read_json(tmp_path / "r/result.json")["warnings"]) == 3  # these, and that 24 steps are few


def test_some_dead_outputs_are_named_by_their_classes() -> None:
    watched = health.OutputRange(lambda images: images, 3)
    for rows in ([[1.0, 0.0, 3.0], [2.0, 0.0, 3.0]], [[1.0, 0.0, 4.0]]):
        watched(torch.tensor(rows))
    assert watched.dead() == [1]
    given = InputSpec(image_size=8, in_channels=3, mean=[0.5] * 3, std=[0.25] * 3)
    spec = ModelSpec(model={"name": "tiny"}, labels=["ant", "bee", "cat"], input=given)
    assert "1 of 3 outputs (bee) is the same for every image" in health.dead_outputs([1], spec)
    assert "every output is the same" in health.dead_outputs([0, 1, 2], spec)
    assert health.dead_outputs([], spec) == ""
    nameless = replace(spec, labels=[], extra={"outputs": 2})
    assert "1 of 2 outputs (channel 1) is the same" in health.dead_outputs([1], nameless)
    one_image = health.OutputRange(lambda images: images, 3)
    one_image(torch.ones(1, 3))
    assert one_image.dead() == []


@pytest.mark.parametrize(
    ("losses", "found"),
    [([2.3], False), ([2.3, 1.0, 0.5], False), ([0.1, 0.5], False), ([2.3, 1.0, 9.0], True), ([2.3, 2.4], False)],
)
def test_a_loss_that_grows_beyond_guessing_is_divergence(losses: list[float], found: bool) -> None:
    assert bool(health.divergence(rows(losses), math.log(10))) is found


def rows(train: list[float], val: list[float] | None = None) -> list[dict[str, float]]:
    pairs = zip(train, val or [1.0] * len(train), strict=True)
    return [{"epoch": number, "loss/train": a, "loss/val": b} for number, (a, b) in enumerate(pairs, start=1)]


def test_where_the_loss_of_guessing_is_not_known_the_first_epoch_stands_for_it() -> None:
    assert health.divergence(rows([2.0, 1.0, 2.9]), None) == ""
    assert "rose from 1 to 3.1: it diverges" in health.divergence(rows([2.0, 1.0, 3.1]), None)


@pytest.mark.parametrize(
    ("val", "guessing", "found"),
    [
        ([5e22], math.log(10), "is 5e+22 after epoch 1, far beyond the 2.3 of guessing: the training diverged"),
        ([2.1, 1261.0], math.log(10), "is 1.26e+03 after epoch 2"),
        ([2.1, 9.0], math.log(10), ""),  # wrong and sure of it
        ([5e22], None, ""),
        ([0.5, 5.1], None, "is 5.1 after epoch 2, far beyond the 0.5 of the best epoch"),
    ],
)
def test_a_validation_loss_beyond_all_bounds_is_divergence(
    val: list[float], guessing: float | None, found: str
) -> None:
    text = health.divergence(rows([2.0] * len(val), val), guessing)
    assert found in text and bool(text) is bool(found)


@pytest.mark.usefixtures("no_pictures")
def test_divergence_is_warned_of_in_a_run(cnnbench: Callable[..., Ran]) -> None:
    ran = cnnbench("train", "epochs=3", "optim.lr=80", "optim.lr_batch=null", "schedule=linear", *SMALL)
    assert "the training diverged; try a lower lr" in ran.err or "the loss is not finite" in ran.err
    calm = cnnbench("train", "epochs=3", *SMALL)
    assert calm.err == ""


def test_gradients_that_bf16_gets_wrong_are_named_before_the_first_step() -> None:
    """Filters of 5x5 over maps of one pixel: GoogLeNet's last modules at 32 pixels, not at 64, nor frozen ones."""
    net = models.build("googlenet", num_classes=10)
    (said,) = health.wrong_gradients(net, 32, 3)
    assert "inception5a" in said and "precision=fp32" in said
    assert health.wrong_gradients(net, 64, 3) == []
    assert health.wrong_gradients(net.requires_grad_(False), 32, 3) == []
    assert health.wrong_gradients(models.build("resnet20", num_classes=10), 32, 3) == []
