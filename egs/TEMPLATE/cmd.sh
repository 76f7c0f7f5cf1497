# shellcheck shell=bash
# How a recipe runs its jobs. Sets `cmd`, a command with the interface of Kaldi's run.pl:
#   [--num-threads N] [--max-jobs-run N] [JOB=1:NJ] LOG COMMAND...

cmd_backend=${cmd_backend:-local}

# shellcheck disable=SC2034 # used by the script that sources this one
case ${cmd_backend} in
    local) cmd=(distilmos run) ;;
    *)
        echo "cmd.sh: unknown cmd_backend '${cmd_backend}' (known: local)" >&2
        exit 2
        ;;
esac
