"""Exit codes of every command."""

DONE = 0
FAILED = 1
MISTAKE = 2  # in the command line or the configuration
PREEMPTED = 75  # EX_TEMPFAIL: the scheduler asked for the machine, a checkpoint is saved, the same command continues
INTERRUPTED = 130  # by Ctrl-C; a training has saved a checkpoint
