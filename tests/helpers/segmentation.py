"""Files of runs of a made-up task whose primary metric is in percent, the higher the better."""

import json
from pathlib import Path
from typing import Any

from cnnbench.tasks.metric import Metric, as_data

MIOU = Metric("miou", "mean IoU", "%", lower_is_better=False, decimals=1)
PIXELS = Metric("pixel_error", "pixel error", "%")
METRICS = (MIOU, PIXELS)


def write_result(path: Path, miou: float, **more: Any) -> None:
    result = {"task": "segmentation", "primary": "miou", "metrics": as_data(METRICS), "miou": miou,
              "pixel_error": (100 - miou) / 2, "train_miou": miou + 5, "loss": 0.5, "n": 100, "split": "test",
              "crop": "center 32", "epochs": 2, "params": 1000, "macs": 100_000, "wall_seconds": 60.0,
              "train_n": 400, "device": "a CPU", **more}  # fmt: skip
    path.mkdir(parents=True, exist_ok=True)
    (path / "result.json").write_text(json.dumps(result))


def write_run(path: Path, miou: float | None, seed: int = 0, model: str = "unet") -> None:
    """A training; miou: None where it is not done, but at 40 % after its second epoch."""
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(f"model:\n  name: {model}\ndata:\n  name: shapes\nseed: {seed}\nepochs: 9\n")
    (path / "overrides").write_text(f"model={model}\ndata=shapes\nseed={seed}\n")
    status = {"status": "failed" if miou is None else "done", "reason": "out of memory", "task": "segmentation",
              "metrics": as_data(METRICS)}  # fmt: skip
    (path / "status.json").write_text(json.dumps(status))
    last = 40.0 if miou is None else miou
    rows = [{"epoch": epoch, "miou/train": last + 5, "miou/val": last - 10 * (2 - epoch), "pixel_error/val": 20.0}
            for epoch in (1, 2)]  # fmt: skip
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if miou is not None:
        write_result(path, miou, seed=seed, model=model, data="shapes")
