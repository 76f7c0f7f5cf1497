"""One module for each subcommand: argument parsing and nothing else."""
