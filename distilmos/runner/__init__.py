"""Running commands and arrays of commands with a log each, behind the interface of Kaldi's run.pl.

`jobs` is what every backend shares: the elements of an array, and the report of those that failed. A backend is a
module with a function `run_jobs` that takes such jobs: `local` runs them on this machine.
"""
