"""`python -m cnnbench` is the same as `cnnbench`."""

import sys

from cnnbench.cli import main

sys.exit(main())
