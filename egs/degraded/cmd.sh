# shellcheck shell=bash
# How a recipe runs its jobs: the environment variable cmd_backend, or else what stands here, is local, slurm, sge or pbs.
# What the site's scheduler wants to be told is in conf/${cmd_backend}.conf of the recipe, or else of the repository.
#
# Sets `cmd`, a command with the interface of Kaldi's run.pl, queue.pl and slurm.pl:
#   [--mem 4G] [--time H:MM:SS] [--num-threads N] [--gpu N] [--max-jobs-run N] [JOB=1:NJ] LOG COMMAND...
# A site's own script fits in its place, as cmd=(slurm.pl --config conf/slurm.conf); only --num_nodes above 1 needs ours.

cmd_backend=${cmd_backend:-local}

# Options for all jobs may be added here, such as --retry 1, which runs failed jobs once more.
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
