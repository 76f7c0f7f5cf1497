# shellcheck shell=bash
# How a recipe runs its jobs: cmd_backend (environment variable, or the default below) is local, slurm, sge or pbs.
# The settings of the site's scheduler are in conf/${cmd_backend}.conf of the recipe, or else of the repository.
#
# This sets `cmd`, a command with the interface of Kaldi's run.pl, queue.pl and slurm.pl:
#   [--mem 4G] [--time H:MM:SS] [--num-threads N] [--gpu N] [--max-jobs-run N] [JOB=1:NJ] LOG COMMAND...
# A script of the site can replace it, see egs/README.md. --num_nodes above 1 needs `distilmos run`.

cmd_backend=${cmd_backend:-local}

# array_name WORD...: sets `array` to a name for the numbers of an array, in place of JOB in JOB=1:NJ, that no WORD contains.
# `cmd` replaces the name wherever it stands, also in a path of the user.
array_name() {
    array=JOB
    while [[ "$*" == *"${array}"* ]]; do
        array+=_
    done
}

# Add options for all jobs here, such as --retry 1, which runs failed jobs once more.
cmd=(distilmos run --backend "${cmd_backend}")

case ${cmd_backend} in
    local) ;;
    slurm | sge | pbs)
        cmd_config=conf/${cmd_backend}.conf
        [ -e "${cmd_config}" ] || cmd_config=../../${cmd_config}
        cmd+=(--config "${cmd_config}")
        ;;
    *)
        echo "cmd.sh: unknown cmd_backend '${cmd_backend}' (known: local, slurm, sge, pbs)" >&2
        exit 2
        ;;
esac
