"""The step: accumulation, precision, clipping, EMA, frozen parts; and what evaluation covers."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.data.model_spec import InputSpec, ModelSpec
from cnnbench.models.layers import Net
from cnnbench.runtime import batch_size, device
from cnnbench.runtime.device import create_runtime
from cnnbench.runtime.seeds import step_seed
from cnnbench.tasks.classification.metrics import ConfusionMeter
from cnnbench.tasks.classification.task import Classification
from cnnbench.tasks.meter import Meter
from cnnbench.tasks.passes import evaluate
from cnnbench.training import compile_cost, freezing, loop
from cnnbench.training.ema import MovingAverage
from cnnbench.training.state import TrainState
from tests.helpers.tiny import CPU, Tiny, batches, train_state


def train(state: TrainState, count: int = 3, size: int = 12) -> Meter:
    loop.train_epoch(state, batches(count, size), lambda: True)
    return state.meter


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_step_is_the_plain_pytorch_step() -> None:
    """The same arithmetic written by hand gives the same bits."""
    torch.manual_seed(0)
    model = Tiny()
    twin = copy.deepcopy(model)
    train(train_state(model))
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    for batch in batches(3):
        loss = F.cross_entropy(twin((batch["image"].float() / 255 - 0.5) / 0.25), batch["target"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, twin.state_dict()[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("accumulate", "size"), [(2, 12), (3, 12), (5, 12), (20, 12)])
def test_accumulation_equals_the_large_batch(accumulate: int, size: int) -> None:
    """Also where the parts are ragged, and where there are more parts than images."""
    torch.manual_seed(0)
    whole = Tiny()
    parts = copy.deepcopy(whole)
    meter = train(train_state(whole), size=size)
    part_meter = train(train_state(parts, accumulate=accumulate), size=size)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    assert part_meter.n == meter.n == 36
    assert part_meter.compute()["loss"] == pytest.approx(meter.compute()["loss"], rel=1e-5)


def test_clipping_bounds_the_norm_of_the_gradient() -> None:
    model = Tiny()
    before = weights(model)
    clipped = train_state(model, clip=1e-3, optimizer=torch.optim.SGD(model.parameters(), lr=1.0))
    train(clipped, count=1)
    moved = torch.cat([(before[name] - value).flatten() for name, value in model.state_dict().items()])
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_bf16_autocast_keeps_float32_weights_and_learns() -> None:
    bf16 = create_runtime("cpu", "bf16", seed=0)
    model = Tiny()
    target = train_state(model, runtime=bf16, normalize=device.Normalize(bf16, [0.5] * 3, [0.25] * 3))
    fixed, losses = batches(1)[0], []
    for _ in range(60):
        target.restart_meter()
        loop.train_epoch(target, [fixed], lambda: True)
        losses.append(target.meter.compute()["loss"])
    assert losses[-1] < 0.6 * losses[0]
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_ema_is_the_average_it_says() -> None:
    model = Tiny()
    average = MovingAverage(model, 0.5)
    target = train_state(model, ema=average)
    seen = []
    for batch in batches(3):
        loop.train_epoch(target, [batch], lambda: True)
        seen.append(model.fc.weight.detach().clone())
    expected = 0.5 * (0.5 * seen[0] + 0.5 * seen[1]) + 0.5 * seen[2]  # the first update copies
    torch.testing.assert_close(average.module.fc.weight, expected)


def test_dropout_follows_from_seed_and_step_alone() -> None:
    """Whatever random numbers were drawn between two steps: what makes a resumed run the uninterrupted one."""
    torch.manual_seed(0)
    model = Tiny(drop=0.5)
    twin = copy.deepcopy(model)
    first, second = train_state(model, seed=3), train_state(twin, seed=3)
    train(first)
    for batch in batches(3):
        torch.randn(17)
        loop.train_epoch(second, [batch], lambda: True)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in twin.state_dict().items())


def test_seeds_are_numpys_hash_of_seed_step_and_rank() -> None:
    for seed, step, rank in ((0, 0, 0), (3, 63, 0), (3, 64, 0), (3, 64, 1), (0, 100_000, 2)):
        entropy = (seed, step, rank)[: 3 if rank else 2]
        assert step_seed(seed, step, rank) == np.random.SeedSequence(entropy).generate_state(1)[0]


def test_every_seed_and_step_has_random_numbers_of_its_own() -> None:
    drawn = set()
    for seed, step in ((0, 0), (1, 0), (0, 1), (7, 0), (2**32 - 1, 0)):
        CPU.seed_step(seed, step)
        drawn.add(torch.rand(1).item())
    assert len(drawn) == 5


def test_frozen_stages_do_not_move_a_bit() -> None:
    """Parameters and running statistics, after steps and after every return to training mode."""
    model = Tiny(norm=True)
    assert freezing.freeze(model, "until:layer1") == ["stem"]
    before = weights(model)
    target = train_state(model)
    train(target)
    model.eval()
    train(target)
    moved = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {"middle", "fc"}
    assert model.conv.weight.grad is None


def test_evaluate_counts_every_image_once_whatever_the_batches() -> None:
    model = Tiny(norm=True).eval()
    batch = batches(1, size=37)[0]
    normalize = device.Normalize(CPU, [0.5] * 3, [0.25] * 3)
    given = InputSpec(image_size=8, in_channels=3, mean=[0.5] * 3, std=[0.25] * 3)
    spec = ModelSpec(model={"name": "tiny"}, labels=list("abcd"), input=given)
    meters = []
    for size in (1, 10, 37):
        columns = [value.split(size) for value in batch.values()]
        parts = [dict(zip(batch, row, strict=True)) for row in zip(*columns, strict=True)]
        meter = evaluate(Classification(), model, parts, CPU, normalize, spec)
        assert isinstance(meter, ConfusionMeter)
        meters.append(meter)
    assert [meter.n for meter in meters] == [37] * 3
    assert len({meter.compute()["top1_error"] for meter in meters}) == 1
    assert all(torch.equal(meter.confusion, meters[0].confusion) for meter in meters)
    assert meters[0].confusion.sum() == 37


def test_auxiliary_losses_are_weighted_by_the_task() -> None:
    task, targets = Classification(aux_weight=0.3), torch.tensor([0, 1])
    logits, aux = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    expected = F.cross_entropy(logits, targets) + 0.3 * F.cross_entropy(aux, targets)
    assert task.training_loss((logits, aux), targets).item() == pytest.approx(expected.item())
    assert task.loss((logits, aux), targets).item() == pytest.approx(F.cross_entropy(logits, targets).item())


def test_label_smoothing_is_pytorchs_and_only_for_training() -> None:
    task, targets, logits = Classification(label_smoothing=0.1), torch.tensor([1]), torch.tensor([[0.0, 3.0]])
    assert task.training_loss(logits, targets).item() == pytest.approx(
        F.cross_entropy(logits, targets, label_smoothing=0.1).item()
    )
    assert task.loss(logits, targets).item() == pytest.approx(F.cross_entropy(logits, targets).item())


def test_largest_batch_leaves_the_net_as_it_was_and_fits_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Tiny(norm=True).train()
    before = weights(model)
    images = torch.zeros(2, 3, 8, 8)
    monkeypatch.setattr(device.Runtime, "free_memory", lambda self: 10**12)
    assert batch_size.estimate_largest_batch(model, images, CPU, limit=300) == 256
    monkeypatch.setattr(device.Runtime, "free_memory", lambda self: 10**6)
    small = batch_size.estimate_largest_batch(model, images, CPU, limit=10**6)
    assert 1 <= small < 256
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Cramped:
    """A net as it is called on a device that has room for so many images."""

    def __init__(self, net: Net, room: int, kind: type[Exception] = torch.OutOfMemoryError) -> None:
        self.net, self.room, self.kind, self.calls = net, room, kind, 0

    def __call__(self, images: Tensor) -> Tensor:
        self.calls += 1
        outputs = self.net(images)
        if len(images) > self.room or self.calls == 4:  # a second part too, once the first one has its gradient
            raise self.kind("DefaultCPUAllocator: can't allocate memory")
        return outputs


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])
def test_a_batch_that_does_not_fit_is_taken_in_parts(kind: type[Exception]) -> None:
    """Halved until it fits, with the same dropout and the same result as if it had been asked for."""
    torch.manual_seed(0)
    model = Tiny(norm=True, drop=0.5)
    twin = copy.deepcopy(model)
    cramped = train_state(model, net=Cramped(model, room=3, kind=kind))
    meter = train(cramped)
    expected = train(train_state(twin, accumulate=8))
    assert cramped.accumulate == 8 and cramped.state_dict()["accumulate"] == 8
    for (name, value), other in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        assert name.endswith("num_batches_tracked") or torch.equal(value, other)
    assert meter.compute() == expected.compute()
    again = train_state(Tiny(norm=True, drop=0.5))
    again.load_state_dict(cramped.state_dict())
    assert again.accumulate == 8


def test_no_room_for_a_single_image_is_an_error() -> None:
    model = Tiny()
    with pytest.raises(torch.OutOfMemoryError):
        train(train_state(model, net=Cramped(model, room=0)))
    with pytest.raises(RuntimeError, match="channels"):  # what is no want of memory is not tried again
        loop.train_step(train_state(model), torch.zeros(2, 5, 8, 8), torch.zeros(2).long())


def test_comparing_compiled_passes_leaves_the_training_alone() -> None:
    torch.manual_seed(0)
    model = Tiny(norm=True)
    twin = copy.deepcopy(model)
    told: list[compile_cost.Cost] = []
    watched = train_state(model)
    loop.train_epoch(watched, compile_cost.watched(batches(4), watched, told.append), lambda: True)
    alone = train_state(twin)
    assert train(alone, count=4).compute() == watched.meter.compute()
    for value, other in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(value, other)
    (cost,) = told
    assert cost.plain > 0 and cost.compiled > 0 and cost.compiling >= 0
    assert compile_cost.Cost(40.0, 0.08, 0.03).break_even == 800
    assert "won back after 800 steps" in compile_cost.Cost(40.0, 0.08, 0.03).text()
    assert (
        compile_cost.Cost(40.0, 0.08, 0.079).break_even is None
        and "no gain" in compile_cost.Cost(40, 0.08, 0.079).text()
    )


def test_nothing_in_a_step_waits_for_the_device() -> None:
    """On the meta device there is no number to wait for. (How the optimizer steps without asking is up to its kind.)"""

    class Blind(device.Runtime):
        def step(self, optimizer: Any, parameters: Any, clip: Any, loss: Tensor) -> Tensor:
            return nn.utils.get_total_norm(p.grad for p in parameters) + 0 * loss

    there = Blind(torch.device("meta"), torch.float32, CPU.scaler)
    model = Tiny(norm=True).to("meta")
    blind = train_state(model, runtime=there, normalize=device.Normalize(there, [0.5] * 3, [0.25] * 3), accumulate=2)
    loop.train_epoch(blind, batches(3), lambda: True)
    assert blind.step == 3 and blind.meter.n == 36
    with pytest.raises(RuntimeError):
        blind.meter.compute()


def test_weights_at_rest_are_cast_once_and_never_after_they_changed() -> None:
    bf16 = create_runtime("cpu", "bf16", seed=0)
    model, images = Tiny(), torch.randn(4, 3, 8, 8)

    def answer() -> Tensor:
        with torch.no_grad(), bf16.autocast():
            return model(images)

    with bf16.cached_weight_casts():
        first = answer()
        with torch.no_grad():
            model.fc.weight.zero_()
        assert torch.equal(answer(), first)  # the one that was cast before
    assert not torch.equal(answer(), first)
    with pytest.raises(ValueError, match="stop"), bf16.cached_weight_casts():
        raise ValueError("stop")
    assert torch.autocast_increment_nesting() == 1 and torch.autocast_decrement_nesting() == 0
