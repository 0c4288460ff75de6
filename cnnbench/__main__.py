"""`python -m cnnbench` is the same as `cnnbench`."""

from cnnbench.cli import console

console()
