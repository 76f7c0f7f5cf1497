"""Running commands and arrays of commands with a log each, behind the interface of Kaldi's run.pl.

`jobs` is what every backend shares: the elements of an array, and the report of those that failed; `log` is what a log
begins and ends with. `local` runs jobs on this machine. `queue` hands them to a scheduler and waits for them, in terms
of what `slurm`, `sge` and `pbs` know about theirs; on a compute node, `element` runs one job. `state` is the directory
through which these two, and a later run of the same array, know of each other; `resume` says what such a run keeps.
"""
