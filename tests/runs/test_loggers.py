"""Loggers: the rows of a run where `tracking=` says, once each; none of them may cost the run."""

import csv
import importlib.util
import json
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cnnbench.output.tensorboard import event_files
from cnnbench.runs import loggers
from cnnbench.runs.loggers.base import About, Logger, Row
from cnnbench.training.logging import create_logging
from cnnbench.utils.files import read_json
from tests.helpers.processes import until
from tests.helpers.runs import SMALL, Ran, assert_same_run, interrupt_after, rows

pytestmark = pytest.mark.usefixtures("no_pictures")
RUN = ("train", "epochs=3", *SMALL)  # of six steps each


class Kept(Logger):
    """Keeps what it is given; `broken_from` is the first epoch that it raises at."""

    name, broken_from = "mlflow", 9

    def __init__(self, about: About, known: dict[str, Any]) -> None:
        self.about, self.id, self.step = about, known.get("id", "a"), known.get("step", -1)
        self.epochs: list[int] = []
        self.results: list[dict[str, Any]] = []
        self.ends: list[str] = []

    def row(self, row: Row) -> None:
        if row["epoch"] >= self.broken_from:
            raise ConnectionError("the server is gone")
        self.epochs.append(row["epoch"])

    def result(self, result: dict[str, Any]) -> None:
        self.results.append(result)

    def end(self, status: str) -> None:
        self.ends.append(status)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Kept]:
    """The loggers that `tracking=mlflow` makes in this test."""
    made: list[Kept] = []

    def create(about: About, known: dict[str, Any]) -> Kept:
        made.append(Kept(about, known))
        return made[-1]

    monkeypatch.setattr(loggers, "PACKAGES", ())
    monkeypatch.setitem(sys.modules, "cnnbench.runs.loggers.kept", SimpleNamespace(create=create))
    monkeypatch.setitem(loggers.LOGGERS, "mlflow", "kept")
    return made


@pytest.fixture
def whole(cnnbench: Callable[..., Ran], tmp_path: Path) -> Path:
    """An uninterrupted run with TensorBoard alone."""
    assert cnnbench(*RUN, "run.dir=whole").code == 0
    assert len(event_files(tmp_path / "whole")) == 1 and not (tmp_path / "whole/metrics.csv").exists()
    return tmp_path / "whole"


def cut(cnnbench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, *command: str) -> None:
    """Interrupt a run in its second epoch."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, 8)
        assert cnnbench(*command).code == 130


def test_a_run_that_was_cut_is_logged_as_a_whole_one_and_its_bits_are_the_same(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: list[Kept], whole: Path
) -> None:
    command = (*RUN, "run.dir=one", "tracking=[csv,mlflow]")
    cut(cnnbench, monkeypatch, *command)
    (tmp_path / "one/metrics.csv").unlink()
    assert cnnbench(*command).code == 0
    assert_same_run(tmp_path / "one", whole)
    assert not event_files(tmp_path / "one")
    with (tmp_path / "one/metrics.csv").open() as file:
        table = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert table == rows(tmp_path / "one") and len(table) == 3
    first, second = kept
    assert (first.epochs, first.results, first.ends) == ([1], [], ["stopped"])
    assert (second.epochs, second.ends) == ([2, 3], ["done"])
    assert second.results == [read_json(tmp_path / "one/result.json")]
    assert first.about.config["epochs"] == 3 and first.about.path == Path("one")
    assert read_json(tmp_path / "one/loggers.json") == {"mlflow": {"id": "a", "step": 18}}


def test_a_server_that_dies_costs_the_log_and_not_the_run_and_what_it_missed_comes_later(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: list[Kept]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Kept, "broken_from", 2)
        interrupt_after(patch, 14)
        ran = cnnbench(*RUN, "run.dir=one", "tracking=[mlflow,csv]")
    assert ran.code == 130 and ran.err.count("tracking=mlflow: the server is gone; the run goes on without it") == 1
    assert len((tmp_path / "one/metrics.csv").read_text().splitlines()) == 1 + 2
    assert kept[0].epochs == [1] and not kept[0].ends
    assert cnnbench(*RUN, "run.dir=one", "tracking=mlflow").code == 0
    assert kept[1].epochs == [2, 3] and kept[1].id == "a"


def test_a_logger_that_cannot_log_is_found_before_the_first_step(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: list[Kept]
) -> None:
    def fail(*args: Any) -> None:
        raise PermissionError(13, "Permission denied")

    ran = cnnbench(*RUN, "tracking.images=true", "tracking=csv", "run.dir=one")
    assert ran.code == 2 and "tracking.images=true draws for TensorBoard" in ran.err
    ran = cnnbench(*RUN, "tracking=[csv,mlflwo]", "run.dir=one")
    assert ran.code == 2 and "unknown tracking 'mlflwo'. Did you mean 'mlflow'?" in ran.err
    monkeypatch.setattr(Kept, "__init__", fail)
    ran = cnnbench(*RUN, "tracking=mlflow", "run.dir=one")
    assert ran.code == 2 and "tracking=mlflow cannot write: Permission denied" in ran.err
    monkeypatch.setattr(loggers, "PACKAGES", ("mlflow", "wandb"))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "wandb").mkdir()  # a folder of this name is no package
    if not importable("wandb"):
        ran = cnnbench(*RUN, "tracking=wandb", "run.dir=one")
        assert ran.code == 2 and "tracking=wandb needs wandb: pip install 'cnnbench[wandb]'" in ran.err
    assert not (tmp_path / "one").exists()


def test_rank_0_alone_has_loggers() -> None:
    cfg, group = SimpleNamespace(tracking=SimpleNamespace(csv=True)), SimpleNamespace(broadcast=lambda make: None)
    parts: Any = SimpleNamespace(
        cfg=cfg, runtime=SimpleNamespace(group=group), directory=SimpleNamespace(path=Path("one")), plain_config={}
    )
    assert create_logging(parts, SimpleNamespace(rows=[])).loggers == []  # type: ignore[arg-type]


def importable(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


@pytest.mark.skipif(not importable("mlflow"), reason="mlflow is not installed: pip install 'cnnbench[mlflow]'")
@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_one_run_with_parameters_rows_and_result(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/store")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "lecture")
    command = (*RUN, "run.dir=one", "tracking=mlflow")
    cut(cnnbench, monkeypatch, *command)
    from mlflow import MlflowClient

    client, known = MlflowClient(), read_json(tmp_path / "one/loggers.json")["mlflow"]
    assert client.get_run(known["id"]).info.status == "KILLED"
    assert cnnbench(*command).code == 0
    experiment = client.get_experiment_by_name("lecture")
    [run] = client.search_runs([experiment.experiment_id])  # type: ignore[union-attr]
    assert run.info.run_id == known["id"] and run.info.status == "FINISHED" and run.info.run_name == "one"
    assert run.data.tags["run_dir"] == str(tmp_path / "one")
    assert run.data.params["optim.lr"] == "0.1" and run.data.params["model.name"] == "resnet8"
    for tag in ("loss/train", "top1_error/val", "lr"):
        history = {one.step: one.value for one in client.get_metric_history(run.info.run_id, tag)}
        assert history == {row["step"]: pytest.approx(row[tag]) for row in rows(tmp_path / "one")}
    result = read_json(tmp_path / "one/result.json")
    assert run.data.metrics["result/top1_error"] == pytest.approx(result["top1_error"])
    assert run.data.tags["result/split"] == "test"
    client.delete_run(run.info.run_id)
    ran = cnnbench(*command, "epochs=4", "resume=force")
    assert ran.code == 0 and "does not have the run" in ran.err
    [other] = client.search_runs([experiment.experiment_id])  # type: ignore[union-attr]
    assert len(client.get_metric_history(other.info.run_id, "lr")) == 4
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    ran = cnnbench(*RUN, "run.dir=two", "tracking=mlflow")
    assert ran.code == 2 and "tracking=mlflow cannot write: " in ran.err and not (tmp_path / "two").exists()


@pytest.mark.skipif(not importable("wandb"), reason="wandb is not installed: pip install 'cnnbench[wandb]'")
@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_a_run_offline_and_goes_on_under_its_id(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("WANDB_MODE", "WANDB_DIR", "WANDB_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    command = (*RUN, "run.dir=one", "tracking=wandb")
    cut(cnnbench, monkeypatch, *command)
    known = read_json(tmp_path / "one/loggers.json")["wandb"]
    assert cnnbench(*command).code == 0
    parts = sorted((tmp_path / "one/wandb").glob("offline-run-*"))
    assert len(parts) == 2 and all(part.name.endswith(known["id"]) for part in parts)
    assert read_json(tmp_path / "one/loggers.json")["wandb"] == {"id": known["id"], "step": 18}
    until(f"{parts} are whole", lambda: all(is_whole(part) for part in parts))  # W&B writes in a process of its own
    logged = [record for part in parts for record in history(part)]
    assert [(one["epoch"], one["_step"]) for one in logged] == [(1, 6), (2, 12), (3, 18)]
    for one, row in zip(logged, rows(tmp_path / "one"), strict=True):
        assert one["loss/train"] == pytest.approx(row["loss/train"]) and one["lr"] == pytest.approx(row["lr"])


def is_whole(part: Path) -> bool:
    return any(one.WhichOneof("record_type") == "exit" for one in written(part))


def history(part: Path) -> list[dict[str, Any]]:
    """What a part of a run of W&B holds of `log()`."""
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in one.history.item}
        for one in written(part)
        if one.WhichOneof("record_type") == "history"
    ]


def written(part: Path) -> list[Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    return [Record.FromString(data) for file in part.glob("*.wandb") for data in records(file.read_bytes())]


def records(content: bytes, block: int = 32768) -> Iterator[bytes]:
    """Records of a log in LevelDB's format, whose first header W&B writes: each part has a checksum, its length and
    whether it is whole (1), a beginning (2), a middle (3) or an end (4)."""
    at, record = 7, b""
    while at + 7 <= len(content):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield record
            record = b""
