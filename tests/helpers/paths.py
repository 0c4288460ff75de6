"""Folders of the repository, and the one beside it with data that some tests need."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
SHARED = ROOT.parent / "shared"
UNDRAWN = Path(__file__).parent / "children"  # first in PYTHONPATH: processes whose trainings draw nothing
