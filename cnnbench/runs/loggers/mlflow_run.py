"""`tracking=mlflow`: a run of MLflow, where its own variables say (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, …)."""

import logging
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from cnnbench.config.parsing import as_typed, flatten
from cnnbench.runs.loggers.base import About, Logger, Row, metrics, numbers
from cnnbench.utils.console import warn

USUAL = {  # unless the user says otherwise: no usage reports, and a server that is gone does not hold up a training
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
MOST = 100  # parameters in a message
STATUS = {"done": "FINISHED", "failed": "FAILED", "pruned": "KILLED", "stopped": "KILLED"}


class MlflowRun(Logger):
    """A run of MLflow. Parameters are logged where it begins, and stay as they were then."""

    name = "mlflow"

    def __init__(self, client: Any, about: About, known: dict[str, Any]) -> None:
        self.client = client
        if known and self._goes_on(known["id"]):
            self.id, self.step = known["id"], known["step"]
            return
        self.id = client.create_run(experiment(client), run_name=about.name).info.run_id
        settings = {allowed(key): as_typed(value) for key, value in flatten(about.config).items()}
        for begin in range(0, len(settings), MOST):
            self._log(params=dict([*settings.items()][begin : begin + MOST]))
        self._log(tags={"run_dir": str(about.path.absolute())})

    def row(self, row: Row) -> None:
        self._log(metrics(row), step=int(row["step"]))

    def result(self, result: dict[str, Any]) -> None:
        texts = {f"result/{key}": value for key, value in result.items() if isinstance(value, str)}
        self._log(numbers(result), tags=texts, step=max(self.step, 0))

    def end(self, status: str) -> None:
        self.client.set_terminated(self.id, STATUS[status])

    def _goes_on(self, run: str) -> bool:
        """Whether MLflow still has the run, which then is running again."""
        from mlflow.exceptions import MlflowException

        try:
            if self.client.get_run(run).info.lifecycle_stage == "active":
                self.client.update_run(run, status="RUNNING")
                return True
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        warn(f"MLflow does not have the run {run} any more: a new one begins")
        return False

    def _log(self, values: Mapping[str, float] | None = None, params: Mapping[str, str] | None = None,
             tags: Mapping[str, str] | None = None, step: int = 0) -> None:  # fmt: skip
        from mlflow.entities import Metric, Param, RunTag

        now = int(1000 * time.time())
        self.client.log_batch(
            self.id,
            [Metric(allowed(key), float(value), now, step) for key, value in (values or {}).items()],
            [Param(key, value) for key, value in (params or {}).items()],
            [RunTag(allowed(key), value) for key, value in (tags or {}).items()],
        )


def allowed(name: str) -> str:
    """The name with the characters that MLflow takes."""
    return re.sub(r"[^\w./ :-]", "_", name)


def experiment(client: Any) -> str:
    """Id of the experiment that the user names, else of `cnnbench`, which is made if there is none."""
    from mlflow.exceptions import MlflowException

    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "cnnbench"
    if there := client.get_experiment_by_name(name):
        return str(there.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:  # another job of a sweep may have made it
        if there := client.get_experiment_by_name(name):
            return str(there.experiment_id)
        raise


def create(about: About, known: dict[str, Any]) -> MlflowRun:
    for key, value in USUAL.items():
        os.environ.setdefault(key, value)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    return MlflowRun(MlflowClient(), about, known)
