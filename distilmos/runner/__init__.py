"""Run commands and arrays of commands, each with a log; the interface is that of Kaldi's run.pl.

Every backend uses `jobs` (elements of an array, report of the failed ones) and `log` (head and foot of a log). `local`
runs jobs on this machine. `queue` submits them to a scheduler and waits for them; `slurm`, `sge` and `pbs` know their
schedulers. `element` runs one job on a compute node. `state` is the directory that connects the waiting process, its
jobs and a later run of the same array. `resume` decides what a later run keeps.
"""
