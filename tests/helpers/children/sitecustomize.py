"""No pictures in the processes that a test without pictures starts: Python loads this file first in each of them.

Their trainings wait in mid-epoch, from the eleventh step on, while the file named by HOLD exists and nobody asks them
to stop: whoever wants to meet one on its way needs no long training.
"""

import os
import sys
import time
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

HOLD = os.environ.get("HOLD", "")
HELD_FROM = 11


def hold(self: Any, view: Any) -> None:
    while view.state.step >= HELD_FROM and view.stop.code is None and os.path.exists(HOLD):  # noqa: PTH110
        time.sleep(0.01)


class WithoutPictures(PathFinder):
    """Finder of the one module that draws during a training, which leaves it without its drawing functions."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "cnnbench.training.callbacks":
            return None
        sys.meta_path.remove(cls)
        spec = super().find_spec(name, path)  # type: ignore[arg-type]
        assert spec is not None and spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            for owner, drawing in (
                (module.result, "draw_curves"),
                (module.result, "draw_validation"),
                (module.Pictures, "on_epoch"),
            ):
                setattr(owner, drawing, lambda *args: None)
            module.Pictures.on_step = hold

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, WithoutPictures)
