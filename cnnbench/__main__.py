"""`python -m cnnbench` is the same as `cnnbench`."""

from cnnbench.cli.main import console

console()
