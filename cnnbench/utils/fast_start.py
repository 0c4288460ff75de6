"""Every trick on private parts of torch and Python that makes a command begin, run and end faster.

CNNBENCH_FAST_START=0 in the environment switches all of them off. Results are the same; a command takes some seconds
longer. It is the first thing to try when cnnbench does not start with a new version of torch or Python. The tricks:

- `import_torchvision()`: torchvision without torch's compiler, nine tenths of the time that its import takes.
- `import_transforms()`: torchvision's transforms without it too, a second of a training on image files.
- `spare_compiler()`: DistributedDataParallel without it, three seconds of each process.
- `compute_alone()`: a thread of a pool does not share each small operation with threads of its own.
- `exempt_from_gc()`: torch's 200,000 objects are kept out of garbage collection, half a second of a short command.
- `keep_freed_memory()`: glibc keeps freed memory for the next training step, thousands of page faults in each.
- `end_process()`: the process ends without destroying torch's objects one by one, a second of work.
- `models/meta_kernels.py`: operations on the meta device answered without torch's compiler, seconds for a net.
"""

import atexit
import ctypes
import gc
import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

from cnnbench.utils.exit_codes import FAILED

SWITCH = "CNNBENCH_FAST_START"
COMPILER, COMPILER_UTILS, TENSORS = "torch._dynamo", "torch._dynamo.utils", "torchvision.tv_tensors"
COMPILER_NAME, DISABLED = "_dynamo", "__dynamo_disable"  # torch's own names for them
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def enabled() -> bool:
    """Whether the tricks are used: they are, unless the environment says CNNBENCH_FAST_START=0."""
    return os.environ.get(SWITCH) != "0"


class _LazyModule(ModuleType):
    """Stand-in for a module, which it imports when something of it is used. Dunder names do not count as use: import
    machinery and `inspect` ask every module for them."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(COMPILER_UTILS) is self:
            del sys.modules[COMPILER_UTILS]
        return getattr(importlib.import_module(COMPILER_UTILS), name)


def import_torchvision() -> None:
    """Import torchvision without torch's compiler. To be called before any other import of torchvision.

    torchvision imports the compiler for one function alone: roi_align asks, when it runs, whether the device can
    compile. Here that function imports the compiler when it is called.
    """
    if not enabled() or "torchvision" in sys.modules or COMPILER_UTILS in sys.modules:
        return
    lazy = _LazyModule(COMPILER_UTILS)

    def is_compile_supported(device: Any) -> Any:
        return lazy.__getattr__("is_compile_supported")(device)

    is_compile_supported._dynamo_marked_constant = True  # type: ignore[attr-defined]  # torch marks its own so
    lazy.is_compile_supported = is_compile_supported  # type: ignore[attr-defined]
    sys.modules[COMPILER_UTILS] = lazy
    try:
        importlib.import_module("torchvision")
    finally:
        if sys.modules.get(COMPILER_UTILS) is lazy:
            del sys.modules[COMPILER_UTILS]


def import_transforms() -> None:
    """Import torchvision's transforms without torch's compiler. To be called before any other import of them.

    They import it for a decorator alone, which has compiled code leave out a function; nothing here compiles them.
    """
    import_torchvision()
    if not enabled() or TENSORS in sys.modules or COMPILER in sys.modules:
        return
    compiler = importlib.import_module("torch.compiler")
    disable = compiler.disable
    compiler.disable = lambda function: function  # type: ignore[attr-defined]
    try:
        importlib.import_module(TENSORS)
    finally:
        compiler.disable = disable  # type: ignore[attr-defined]


@contextmanager
def spare_compiler(parallel: type) -> Iterator[None]:
    """DistributedDataParallel is made inside, and later called, without torch's compiler.

    It asks the compiler for the mode of its own optimizer, which counts in compiled nets alone, and has it leave out a
    function. Once the compiler is there, both are as torch has them.
    """
    torch = importlib.import_module("torch")
    if not enabled() or COMPILER in sys.modules or COMPILER_NAME in vars(torch):
        yield
        return
    with suppress(AttributeError):  # another version of torch marks it in another way
        _mark_without_compiler(parallel._inside_ddp_forward.__wrapped__.__wrapped__)  # type: ignore[attr-defined]
    stub = SimpleNamespace(utils=SimpleNamespace(get_optimize_ddp_mode=lambda: "ddp_optimizer"))
    setattr(torch, COMPILER_NAME, stub)
    try:
        yield
    finally:
        if vars(torch).get(COMPILER_NAME) is stub:
            delattr(torch, COMPILER_NAME)


def _mark_without_compiler(function: Callable[..., Any]) -> None:
    """Give a function that the compiler is to leave out what torch calls in its place: itself, until there is a
    compiler."""

    def called(*args: Any) -> Any:
        if COMPILER not in sys.modules:
            return function(*args)
        disabled = importlib.import_module(COMPILER).disable(function, False, wrapping=False)
        setattr(function, DISABLED, disabled)
        return disabled(*args)

    if not hasattr(function, DISABLED):
        setattr(function, DISABLED, called)


def compute_alone() -> None:
    """Have torch compute with this thread alone, where OpenMP can be told so. Other threads go on as they are.

    `torch.set_num_threads` would change a setting of MKL for the whole process, and so may change bits elsewhere.
    """
    if enabled():
        importlib.import_module("torch").get_num_threads()  # torch sets the number at a thread's first question
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).omp_set_num_threads(1)


@contextmanager
def exempt_from_gc() -> Iterator[None]:
    """Objects made inside this block are never searched for garbage: for the import of torch, whose objects all stay
    to the end."""
    if not enabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # some libraries warn, at the very end, of objects that were never freed


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for the next step to use.

    glibc gives large blocks back to the system, which clears each page before it hands it out again: thousands of page
    faults in every training step on a CPU. The process then holds its peak memory to its end.
    """
    if not enabled():
        return
    import ctypes

    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)  # the maximum of older versions
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def end_process(code: int) -> NoReturn:
    """End the process with this exit code, or with FAILED where its last output cannot be written.

    Threads and exit functions end as in Python's own finalization; then `os._exit` skips the rest of it, which destroys
    the million objects that torch has made.
    """
    if not enabled():
        sys.exit(_flush(code))
    threading._shutdown()  # type: ignore[attr-defined]  # Python's first step too: it waits for all threads
    atexit._run_exitfuncs()
    os._exit(_flush(code))


def _flush(code: int) -> int:
    """Flush stdout and stderr. Returns the exit code, with FAILED in place of 0 where they cannot be written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            from cnnbench.utils.console import redirect_to_devnull  # only here: it imports tqdm

            redirect_to_devnull(stream)  # else Python itself would try again, and complain
            if not isinstance(error, BrokenPipeError):  # `| head` is not a failure, a full disk is one
                code = code or FAILED
    return code
