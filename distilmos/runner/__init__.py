"""Running commands and arrays of commands with a log each, behind the interface of Kaldi's run.pl.

`jobs` is what every backend shares: the elements of an array, and the report of those that failed; `log` is what a log
begins and ends with. `local` runs jobs on this machine. `queue` hands them to a scheduler and waits for them, in terms
of what `slurm`, `sge` and `pbs` know about theirs; on a compute node, `element` runs one job. `state` is the directory
through which these two, and a later run of the same array, know of each other; `resume` says what such a run keeps.
"""

# What a command exits with (EX_TEMPFAIL of sysexits.h) that has saved its work after SIGTERM or SIGUSR1, to say: run me
# again, I go on from there. A scheduler's job is queued again then instead of having failed.
PREEMPTED = 75
