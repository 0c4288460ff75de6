"""torchvision without torch's compiler, which makes up nine tenths of the time that it takes to import."""

import importlib
import sys
from types import ModuleType
from typing import Any

NEEDED_LATER = "torch._dynamo.utils"


class _Later(ModuleType):
    """Stands in for a module until something of it is used; dunder names are asked for by who only looks around."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(NEEDED_LATER) is self:
            del sys.modules[NEEDED_LATER]
        return getattr(importlib.import_module(NEEDED_LATER), name)


def import_torchvision() -> None:
    """To be called before anything of torchvision is imported, which then takes a tenth of a second.

    Its roi_align asks the compiler, as it runs, whether it can compile; for that alone torchvision imports it. Here it
    gets a function that imports the compiler when it is called.
    """
    if "torchvision" in sys.modules or NEEDED_LATER in sys.modules:
        return
    later = _Later(NEEDED_LATER)

    def is_compile_supported(device: Any) -> Any:
        return later.__getattr__("is_compile_supported")(device)

    is_compile_supported._dynamo_marked_constant = True  # type: ignore[attr-defined]  # as that of torch is
    later.is_compile_supported = is_compile_supported  # type: ignore[attr-defined]
    sys.modules[NEEDED_LATER] = later
    try:
        importlib.import_module("torchvision")
    finally:
        if sys.modules.get(NEEDED_LATER) is later:
            del sys.modules[NEEDED_LATER]
