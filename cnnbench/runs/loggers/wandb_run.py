"""`tracking=wandb`: a run of Weights & Biases, written offline unless WANDB_MODE=online says that it is to be sent."""

import os
from typing import Any

from cnnbench.runs.loggers.base import About, Logger, Row, metrics, numbers

USUAL = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}  # unless the user says otherwise


class WandbRun(Logger):
    """A run of W&B, by the optimizer's steps. One that goes on writes a further part under the same id."""

    name = "wandb"

    def __init__(self, run: Any, known: dict[str, Any]) -> None:
        self.run, self.id, self.step = run, run.id, known.get("step", -1)

    def row(self, row: Row) -> None:
        self.run.log({**metrics(row), "epoch": row["epoch"]}, step=row["step"])

    def result(self, result: dict[str, Any]) -> None:
        self.run.summary.update(numbers(result))

    def end(self, status: str) -> None:
        self.run.finish(exit_code=int(status in ("failed", "stopped")))


def create(about: About, known: dict[str, Any]) -> WandbRun:
    for key, value in USUAL.items():
        os.environ.setdefault(key, value)
    import wandb

    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or "cnnbench",
        name=os.environ.get("WANDB_NAME") or about.name,
        dir=os.environ.get("WANDB_DIR") or about.path.absolute(),
        config={**about.config, "run_dir": str(about.path.absolute())},
        id=known.get("id"),
        resume="allow",
        reinit="create_new",  # beside one that the user may have in this process
        settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
    )
    return WandbRun(run, known)
