#!/usr/bin/env bash
# slurm_down.sh DIR: cancel the jobs of the Slurm that slurm_up.sh started in DIR, stop its processes by pid and remove DIR.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
DIR=$(realpath -m "${1:?DIR is missing}")
[ -e "${DIR}/.throw-away" ] || die "${DIR} has no scheduler of these scripts"
exec 9>"${DIR}/.lock"
flock 9
export SLURM_CONF=${DIR}/slurm.conf

# Print the pids of this cluster's job steps: the slurmstepd processes that have a log of DIR open.
steps() {
    local process file
    for process in /proc/[0-9]*; do
        [ "$(cat "${process}/comm" 2>/dev/null)" = slurmstepd ] || continue
        for file in "${process}"/fd/*; do
            if [[ $(readlink "${file}" 2>/dev/null) == "${DIR}"/log/slurmd.* ]]; then
                echo "${process#/proc/}"
                break
            fi
        done
    done
}

# Print the pids of all descendants of a process.
descendants() {
    local child
    for child in $(ps -o pid= --ppid "$1"); do
        echo "${child}"
        descendants "${child}"
    done
}

if is_alive slurmctld; then
    timeout 5 squeue -h -o %A 2>/dev/null | sort -u | timeout 10 xargs -r scancel 2>/dev/null
    for _ in $(seq 50); do # KillWait is 5 s
        [ -n "$(timeout 5 squeue -h -t running,completing,suspended -o %A 2>/dev/null)" ] || break
        sleep 0.2
    done
fi
failed=false
for file in "${DIR}"/pids/slurmd.*; do
    [ ! -e "${file}" ] || stop_daemon "${file##*/}" || failed=true
done
for step in $(steps); do # left only if the controller is dead or a job does not end
    for pid in $(descendants "${step}") "${step}"; do
        ! info=$(process_info "${pid}") || stop "${pid}" "${info#* }" || failed=true
    done
done
stop_daemon slurmctld || failed=true
stop_daemon munged || failed=true
[ "${failed}" = false ] && rm -rf "${DIR:?}"
