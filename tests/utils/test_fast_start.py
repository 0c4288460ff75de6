"""The start-up tricks on private parts of torch and Python, and the switch that turns all of them off."""

import os
import subprocess
import sys
from pathlib import Path

# Runs a command line to its end; stderr names each trick that it used.
PROGRAM = """
import atexit, ctypes, gc, os, sys, threading

def watch(trick, owner, name, applies=lambda *args: True):
    original = getattr(owner, name)
    def watched(*args, **options):
        if applies(*args):
            print(trick, file=sys.stderr, flush=True)
        return original(*args, **options)
    setattr(owner, name, watched)

watch("mallopt", ctypes.CDLL, "__init__", lambda library, name, *rest: name == "libc.so.6")
watch("freeze", gc, "freeze")
watch("_exit", os, "_exit")
atexit.register(lambda: "torch._dynamo" in sys.modules or print("no compiler", file=sys.stderr, flush=True))
from cnnbench.cli import main
sys.argv = ["cnnbench", "summary", "model=torchvision", "model.name=squeezenet1_0", "format=json"]
main.console()
"""


def run(tmp_path: Path, switch: str) -> tuple[str, list[str]]:
    env = {**os.environ, "CNNBENCH_FAST_START": switch}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=tmp_path, env=env, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr.split("\n")[:-1]


def test_one_switch_turns_all_tricks_off_and_the_output_stays(tmp_path: Path) -> None:
    fast, used = run(tmp_path, "1")
    assert used == ["mallopt", "freeze", "no compiler", "_exit"]
    slow, used = run(tmp_path, "0")
    assert used == []
    assert fast == slow and '"squeezenet1_0"' in fast


TRANSFORMS = """
import sys, torch
from concurrent.futures import ThreadPoolExecutor
from cnnbench.utils.fast_start import compute_alone, import_transforms
disable = torch.compiler.disable
import_transforms()
from torchvision.transforms import v2
image = v2.RandomResizedCrop(8)(torch.zeros(3, 20, 20, dtype=torch.uint8))
assert image.shape == (3, 8, 8) and torch.compiler.disable is disable
with ThreadPoolExecutor(1, initializer=compute_alone) as pool, ThreadPoolExecutor(1) as others:
    alone = pool.submit(torch.get_num_threads).result()
    print(alone, others.submit(torch.get_num_threads).result(), torch.get_num_threads(), "torch._dynamo" in sys.modules)
"""


def test_transforms_without_the_compiler_and_threads_that_compute_alone() -> None:
    for switch, expected in (("1", "1 2 2 False\n"), ("0", "2 2 2 True\n")):
        env = {**os.environ, "CNNBENCH_FAST_START": switch, "OMP_NUM_THREADS": "2"}
        done = subprocess.run(
            [sys.executable, "-c", TRANSFORMS], capture_output=True, text=True, env=env, check=True, timeout=120
        )
        assert done.stdout == expected


PARALLEL = """
import sys, torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from cnnbench.utils.fast_start import spare_compiler
distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
torch.manual_seed(0)
with spare_compiler(DistributedDataParallel):
    net = DistributedDataParallel(nn.Linear(4, 2))
images = torch.rand(3, 4)
net(images).sum().backward()
first = net.module.weight.grad.clone()
print("torch._dynamo" in sys.modules, end=" ")
import torch._dynamo
assert torch._dynamo.utils.get_optimize_ddp_mode(), "torch's own again"
net.zero_grad()
net(images).sum().backward()
assert torch.equal(net.module.weight.grad, first)
function = DistributedDataParallel._inside_ddp_forward.__wrapped__.__wrapped__
print(function.__dynamo_disable is not function and "_dynamo" in function.__dynamo_disable.__code__.co_filename)
distributed.destroy_process_group()
"""


def test_parallel_nets_do_without_the_compiler_until_it_is_there() -> None:
    for switch, before in (("1", "False"), ("0", "True")):
        env = {**os.environ, "CNNBENCH_FAST_START": switch}
        done = subprocess.run([sys.executable, "-c", PARALLEL], capture_output=True, text=True, env=env, timeout=120)
        assert done.stdout == f"{before} True\n", done.stderr
