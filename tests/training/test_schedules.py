"""Learning-rate curves."""

from dataclasses import replace

import pytest
import torch

from cnnbench.config.sections import Schedule, ScheduleConfig
from cnnbench.tasks.classification import MACRO_F1, TOP1
from cnnbench.training.schedules import build_schedule, plateau_of


def schedule(name: str, total: int, warmup_epochs: float = 0, steps_per_epoch: int = 10) -> list[float]:
    cfg = ScheduleConfig(name=Schedule[name], warmup_epochs=warmup_epochs, milestones=[0.5, 0.75], gamma=0.1)
    factor = build_schedule(cfg, total, steps_per_epoch)
    return [factor(step) for step in range(total)]


def test_multistep_drops_where_the_paper_says() -> None:
    """He et al.: divide by 10 at 32k and 48k of 64k iterations."""
    curve = schedule("multistep", 64_000)
    assert curve[:32_000] == [1.0] * 32_000
    assert curve[32_000:48_000] == pytest.approx([0.1] * 16_000)
    assert curve[48_000:] == pytest.approx([0.01] * 16_000)


def test_cosine_and_linear_go_from_one_towards_zero() -> None:
    cosine, linear = schedule("cosine", 100), schedule("linear", 100)
    assert cosine[0] == linear[0] == 1
    assert cosine[50] == pytest.approx(0.5)
    assert linear[25] == pytest.approx(0.75)
    assert linear[99] == pytest.approx(0.01)
    assert 0 < cosine[99] < 0.001
    assert cosine == sorted(cosine, reverse=True)


def test_constant_stays() -> None:
    assert set(schedule("constant", 30)) == {1.0}


@pytest.mark.parametrize("name", ["constant", "multistep", "cosine", "linear"])
def test_warmup_rises_linearly_to_the_full_lr_and_leaves_no_trace(name: str) -> None:
    curve = schedule(name, 100, warmup_epochs=2)
    assert curve[:20] == pytest.approx([(step + 1) / 21 for step in range(20)])
    assert curve[20] == 1
    if name == "multistep":  # its milestones count from the first step, warm-up or not
        assert curve[20:] == schedule(name, 100)[20:]


def test_warmup_longer_than_the_training_still_gives_a_curve() -> None:
    assert schedule("cosine", 5, warmup_epochs=3) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert schedule("linear", 1, warmup_epochs=3) == [1.0]


@pytest.mark.parametrize("name", ["multistep", "cosine", "linear"])
def test_past_its_end_a_curve_stays_where_it_was(name: str) -> None:
    cfg = ScheduleConfig(name=Schedule[name], warmup_epochs=0, milestones=[0.5], gamma=0.1)
    factor = build_schedule(cfg, 10, 10)
    assert factor(25) == factor(10) >= 0


def test_exponential_is_inceptions() -> None:
    """Szegedy et al.: decayed every two epochs using an exponential rate of 0.94."""
    cfg = ScheduleConfig(name=Schedule.exponential, warmup_epochs=0, milestones=[0.5], gamma=0.94)
    factor = build_schedule(cfg, 1_000, 10)
    assert [factor(step) for step in range(1_000)] == pytest.approx([0.94 ** (step // 20) for step in range(1_000)])
    warm = build_schedule(replace(cfg, warmup_epochs=3), 1_000, 10)
    assert warm(0) == pytest.approx(1 / 31) and warm(30) == pytest.approx(0.94)
    odd = build_schedule(replace(cfg, every_epochs=0.5), 77, 7)
    assert [odd(step) for step in range(77)] == pytest.approx([0.94 ** (2 * step // 7) for step in range(77)])


@pytest.mark.parametrize("total", [1, 2, 10, 173])
def test_one_cycle_is_torchs(total: int) -> None:
    cfg = ScheduleConfig(name=Schedule.onecycle, warmup_epochs=0, milestones=[0.5], gamma=0.1)
    factor = build_schedule(cfg, total, 10)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = []
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=max(total, 2), cycle_momentum=False)
    for _ in range(total):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        torchs.step() if total > 1 else None
    if total > 2:
        assert [factor(step) for step in range(total)] == pytest.approx(theirs)
        assert max(factor(step) for step in range(total)) == pytest.approx(1, abs=0.1)
    assert factor(total + 5) == factor(total - 1)


def test_the_plateau_is_left_by_what_the_rows_say() -> None:
    plateau = plateau_of(
        ScheduleConfig(name=Schedule.plateau, warmup_epochs=0, milestones=[0.5], gamma=0.1, patience=2), TOP1
    )
    assert plateau is not None
    errors = [50, 40, 41, 40, 39, 45, 44, 43, 42, 30]
    rows = [{"step": 10 * number, "top1_error/val": error} for number, error in enumerate(errors, start=1)]
    factors = [plateau(rows, 10 * number) for number in range(len(errors) + 1)]
    assert factors == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert plateau(rows, 39) == 1 and plateau(rows[:3], 100) == 1
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=1, threshold=0)
    for error, factor in zip(errors, factors[1:], strict=True):
        torchs.step(error)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(factor)
    higher = plateau_of(ScheduleConfig(name=Schedule.plateau, warmup_epochs=0, milestones=[0.5], gamma=0.5, patience=1),
                        MACRO_F1)  # fmt: skip
    assert higher is not None
    assert higher([{"step": n, "macro_f1/val": value} for n, value in enumerate([50, 60, 55])], 9) == 0.5
