"""Learning-rate curves."""

import pytest

from cnnbench.config.sections import Schedule, ScheduleConfig
from cnnbench.training.schedules import build_schedule


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
