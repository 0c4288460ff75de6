"""Checks that `cnnbench doctor` runs in a separate process, which an incompatible torch and torchvision may crash.

`python -m cnnbench.doctor.machine_check` prints one line of JSON after each stage.
"""

import json
import time
from collections.abc import Callable
from typing import Any


def main() -> None:
    for name, stage in STAGES.items():
        try:
            result = stage()
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({"stage": name, **result}), flush=True)


def check_torch() -> dict[str, Any]:
    import torch

    return {"version": torch.__version__}


def check_torchvision() -> dict[str, Any]:
    import torchvision

    return {"version": torchvision.__version__}


def check_tensorboard() -> dict[str, Any]:
    import tensorboard.main  # the `tensorboard` command starts this module
    from torch.utils.tensorboard import SummaryWriter

    return {"version": tensorboard.__version__, "writer": SummaryWriter.__name__}


def check_device() -> dict[str, Any]:
    """Run a small net on the device of `device=auto`: its error against the CPU, its speed in two precisions."""
    from cnnbench.runtime.device import create_runtime

    runtime = create_runtime("auto", "auto", seed=0)
    other = "fp32" if runtime.precision != "fp32" else "bf16"
    truth, _ = time_small_net("cpu", "fp32")
    result, seconds = time_small_net("auto", runtime.precision)
    error = float((result - truth).norm() / truth.norm())
    ratio = time_small_net("auto", other)[1] / seconds
    return {"device": runtime.device.type, "name": runtime.name, "precision": runtime.precision, "other": other,
            "ratio": ratio, "relative_error": error}  # fmt: skip


def time_small_net(device: str, precision: str) -> tuple[Any, float]:
    """Output of a small seeded net, moved to the CPU, and its time in seconds."""
    import torch
    from torch import nn

    from cnnbench.runtime.device import create_runtime

    runtime = create_runtime(device, precision, seed=0)
    net = nn.Sequential(nn.Conv2d(64, 128, 3), nn.ReLU(), nn.Conv2d(128, 64, 3), nn.Flatten(), nn.Linear(64 * 576, 256))
    images = torch.rand(8, 64, 28, 28)
    model, images = runtime.place(net), runtime.to_device(images)
    seconds = []
    with torch.inference_mode(), runtime.autocast():
        for _ in range(20):  # the first ones choose and compile kernels
            start = time.perf_counter()
            output = model(images).float().cpu()  # waits for the device
            seconds.append(time.perf_counter() - start)
    return output, min(seconds)


STAGES: dict[str, Callable[[], dict[str, Any]]] = {
    "torch": check_torch,
    "torchvision": check_torchvision,
    "tensorboard": check_tensorboard,
    "device": check_device,
}

if __name__ == "__main__":
    main()
