"""Exit codes of every command."""

DONE = 0
FAILED = 1
MISTAKE = 2  # UserError: in the command line, the configuration or the data
PREEMPTED = 75  # EX_TEMPFAIL: a signal of the scheduler; a checkpoint is saved, and the same command resumes it
INTERRUPTED = 130  # by Ctrl-C; a training has saved a checkpoint
