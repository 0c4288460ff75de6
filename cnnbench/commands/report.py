"""`cnnbench report`: how far a sweep is, what came of its jobs; and the end of those that still run."""

import sys
from pathlib import Path

from cnnbench import sweeps
from cnnbench.config import ReportConfig
from cnnbench.errors import UserError
from cnnbench.tables import plural


def run(cfg: ReportConfig) -> int:
    """Print the state of a sweep, after ending it where that is asked for. Returns 1 where a job failed."""
    given = cfg.input if isinstance(cfg.input, list) else [cfg.input]
    if len(given) != 1 or not isinstance(given[0], str):
        raise UserError("report takes the directory of one sweep, as in cnnbench report outputs/train/sweep-seed_0+1")
    jobs = sweeps.state(Path(given[0]).expanduser())
    if cfg.cancel:
        ended = sweeps.cancel(jobs)
        print(f"{plural(len(ended), 'job')} asked to end; the same command goes on with them", file=sys.stderr)
    for job in jobs:
        job.skipped = False  # whichever command did it
    print(sweeps.table(jobs, cfg.format.value))
    print(sweeps.line(jobs), file=sys.stderr)
    return 1 if any(job.status == sweeps.FAILED for job in jobs) else 0
