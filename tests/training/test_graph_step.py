"""Steps over tensors that never move, as a CUDA graph replays them: here each replay calls the function again."""

import copy
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cnnbench.config.sections import OptimConfig, Optimizer, RestConfig
from cnnbench.models import build
from cnnbench.runtime import graphs
from cnnbench.runtime.device import create_runtime
from cnnbench.runtime.distributed import ProcessGroup
from cnnbench.runtime.processes import ProcessInfo
from cnnbench.tasks.classification.task import Classification
from cnnbench.tasks.detection.task import Detection
from cnnbench.training import loop, optim
from cnnbench.training.ema import MovingAverage
from cnnbench.training.graph_step import obstacle, recorded_step, uses_graphs
from cnnbench.training.state import TrainState
from cnnbench.utils.errors import UserError
from tests.helpers.tiny import CPU, Tiny, batches, train_state

SIZE = 12
TASK = Classification()


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Any]]:
    """Functions that were recorded. To record runs nothing, and each replay runs the function."""
    seen: list[Callable[[], Any]] = []

    def capture(function: Callable[[], Any]) -> Callable[[], Any]:
        seen.append(function)
        return function

    monkeypatch.setattr(graphs, "capture", capture)
    return seen


def twins(kind: str, **changes: Any) -> list[TrainState]:
    """The same training twice: as it is, and with its step recorded."""
    torch.manual_seed(0)
    model = build("airbench", num_classes=4) if kind == "muon" else Tiny(norm=True, drop=0.5)
    cfg = OptimConfig(name=Optimizer(kind), lr=0.01, lr_batch=None, momentum=0.9, nesterov=True, weight_decay=1e-3,
                      decay_all=False, clip=1.0, lr_decay=1.0, head_lr=1.0,
                      rest=RestConfig(lr=0.02, momentum=0.8, weight_decay=0.01))  # fmt: skip
    found = []
    for one in (model, copy.deepcopy(model)):
        target = train_state(one, optimizer=optim.build_optimizer(one, cfg, SIZE), clip=1.0, seed=3,
                             schedule=lambda step: 1 / (1 + step), ema=MovingAverage(one, 0.9), **changes)  # fmt: skip
        found.append(target)
    found[1].recorded = recorded_step(found[1], SIZE)
    return found


def everything(target: TrainState) -> dict[str, Tensor]:
    state = target.state_dict()
    moments = {f"{i}.{key}": value for i, one in state["optimizer"]["state"].items() for key, value in one.items()}
    meter = {f"meter.{name}": value for name, value in state["meter"].items()}
    found = {**state["model"], **state["ema"], **moments, **meter, "guard": target.guard.counts}
    return {name: torch.as_tensor(value).clone() for name, value in found.items()}


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon"])
def test_replayed_steps_are_the_steps(kind: str, accumulate: int, recordings: list[Any]) -> None:
    """Weights, running statistics, momentum, average, metrics and counts; over two epochs with a short last batch."""
    size = 32 if kind == "muon" else 8
    whole = [*batches(5), *batches(1, size=7)]
    given = [{**one, "image": nn.functional.interpolate(one["image"], size)} for one in whole]
    eager, replayed = twins(kind, accumulate=accumulate)
    for _ in range(2):
        for target in (eager, replayed):
            target.restart_meter()
            loop.train_epoch(target, given, lambda: True)
    assert len(recordings) == 1
    ours, theirs = everything(replayed), everything(eager)
    assert ours.keys() == theirs.keys() and replayed.step == eager.step == 12
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_a_step_that_is_not_finite_is_skipped_in_a_replay_too(recordings: list[Any]) -> None:
    eager, replayed = twins("sgd")
    given = [{**one, "image": one["image"].float()} for one in batches(8)]
    given[5]["image"].fill_(float("nan"))
    for target in (eager, replayed):
        loop.train_epoch(target, given, lambda: True)
    assert len(recordings) == 1 and replayed.guard.look().skipped == 1
    ours, theirs = everything(replayed), everything(eager)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_what_begins_to_train_is_recorded_anew(recordings: list[Any]) -> None:
    _, replayed = twins("sgd")
    loop.train_epoch(replayed, batches(5), lambda: True)
    assert replayed.recorded is not None
    replayed.set_accumulate(2)
    loop.train_epoch(replayed, batches(5), lambda: True)
    assert len(recordings) == 2


def test_a_recording_that_fails_is_said_once_and_costs_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def capture(function: Callable[[], Any]) -> Callable[[], Any]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(graphs, "capture", capture)
    eager, replayed = twins("sgd")
    for target in (eager, replayed):
        loop.train_epoch(target, batches(6), lambda: True)
    ours, theirs = everything(replayed), everything(eager)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    said = capsys.readouterr().err
    assert said.count("the step could not be recorded as a CUDA graph, and runs as without: operation not") == 1


def test_a_recordings_memory_is_given_back_before_a_batch_is_split(
    recordings: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    eager, replayed = twins("sgd")
    net, recorded = replayed.net, replayed.recorded
    assert recorded is not None

    def cramped(images: Tensor) -> Any:
        if recorded.is_replayed and len(images) < SIZE:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return net(images)

    replayed.net = cramped
    for target in (eager, replayed):
        loop.train_epoch(target, [*batches(5), *batches(1, size=7), *batches(2)], lambda: True)
    ours, theirs = everything(replayed), everything(eager)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert replayed.accumulate == 1 and not recorded.is_replayed
    assert capsys.readouterr().err.count("its memory is needed for a batch of another size") == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "needs an NVIDIA GPU, and this run is on cpu"),
        ({"device": torch.device("cuda"), "scaler": torch.amp.GradScaler("cpu", enabled=True)}, "fp16"),
        (
            {
                "device": torch.device("cuda"),
                "group": ProcessGroup(ProcessInfo(rank=0, size=2, local_rank=0, local_size=2)),
            },
            "several processes",
        ),
    ],
)
def test_where_steps_cannot_be_replayed_the_reason_is_told(changes: dict[str, Any], why: str) -> None:
    cfg: Any = SimpleNamespace(graphs=True, tracking=SimpleNamespace(images=False))
    runtime = replace(CPU, **changes)
    with pytest.raises(UserError, match=f"graphs=true: .*{why}"):
        uses_graphs(cfg, runtime, TASK)
    cfg.graphs = "auto"
    assert not uses_graphs(cfg, runtime, TASK)
    cfg.graphs = "yes"
    with pytest.raises(UserError, match="graphs=yes: give auto, true or false"):
        uses_graphs(cfg, runtime, TASK)


def test_pictures_of_a_training_keep_its_steps_as_they_are() -> None:
    cfg: Any = SimpleNamespace(graphs="auto", tracking=SimpleNamespace(images=True))
    there = replace(create_runtime("cpu", "fp32", 0), device=torch.device("cuda"))
    assert "tracking.images" in obstacle(cfg, there, TASK)
    cfg.tracking.images = False
    assert obstacle(cfg, there, TASK) == "" and uses_graphs(cfg, there, TASK)


def test_a_detectors_steps_are_replayed_unless_its_net_looks_at_the_boxes(capsys: pytest.CaptureFixture[str]) -> None:
    cfg: Any = SimpleNamespace(graphs="auto", tracking=SimpleNamespace(images=False))
    there = replace(create_runtime("cpu", "fp32", 0), device=torch.device("cuda"))
    assert uses_graphs(cfg, there, Detection(2, 64)) and not capsys.readouterr().err
    assert not uses_graphs(cfg, there, Detection(2, 64, own_loss=True))
    assert capsys.readouterr().err.count("looks at the boxes of each image in its step") == 1
    cfg.graphs = True
    with pytest.raises(UserError, match="graphs=true: this net looks at the boxes"):
        uses_graphs(cfg, there, Detection(2, 64, own_loss=True))
