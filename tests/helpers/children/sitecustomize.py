"""No pictures in the processes that a test without pictures starts: Python loads this file first in each of them."""

import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


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

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, WithoutPictures)
