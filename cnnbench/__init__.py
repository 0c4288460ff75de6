"""Train, transfer, measure and explain the classical CNN architectures."""

__version__ = "0.1.0"
