#!/usr/bin/env bash
# slurm_up.sh DIR: start a throw-away Slurm for tests; then: . DIR/env.sh
#
# Debian's Slurm (22.05) and munge, two nodes named 127.0.0.2 and 127.0.0.3 with 4 CPUs and 2 fake GPUs each, without
# systemd and cgroups. Configuration, key, state, logs and pids are in DIR; every socket is on 127.0.0.1. A running
# cluster is left alone; dead daemons are started again.
#
# Jobs of the partition `high` preempt those of `main`. Without slurmdbd `sacct` fails; `scontrol show job` and `squeue`
# know an ended job for 300 s. A requeued job waits for about 8 s.
set -euo pipefail
unset "${!SLURM_CONF@}" "${!SBATCH_@}"
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "${HERE}/lib.sh"

CPUS=4 MEMORY_MB=8000 GPUS=2 NODES=(127.0.0.2 127.0.0.3) NODE_LIST='127.0.0.[2-3]'

DIR=$(realpath -m "${1:?DIR is missing}")
[ ${#DIR} -le 80 ] || die "${DIR} is too long for Unix sockets"
need munged slurmctld slurmd sbatch
open_directory
SOCKET=${DIR}/run/munge.socket
export SLURM_CONF=${DIR}/slurm.conf

# Write the configuration of a new cluster. PORT is that of slurmctld; the next ones are those of the nodes.
configure() {
    local port gpus='' gpu_nodes='' number
    rm -rf "${DIR:?}"/{state,run,spool.*,dev,slurm.conf,gres.conf}
    mkdir -p "${DIR}"/{state,run,dev}
    port=$(first_free 26817 $((1 + ${#NODES[@]})))
    # Slurm sets CUDA_VISIBLE_DEVICES only for GPUs that are character devices: each is a copy of /dev/null.
    for ((number = 0; number < GPUS; number++)); do
        mknod -m 666 "${DIR}/dev/gpu${number}" c 1 3 2>/dev/null || say "cannot create devices: no fake GPUs"
    done
    if [ -c "${DIR}/dev/gpu$((GPUS - 1))" ]; then
        gpus="GresTypes=gpu" gpu_nodes="Gres=gpu:${GPUS}"
        echo "NodeName=${NODE_LIST} Name=gpu File=${DIR}/dev/gpu[0-$((GPUS - 1))]" >"${DIR}/gres.conf"
    fi
    cat >"${SLURM_CONF}" <<END
ClusterName=local
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=${port}
# Listen on 127.0.0.1 only.
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a requeued job waits: 120 s by default, at least 5 s.
AuthInfo=socket=${SOCKET},cred_expire=5
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
StateSaveLocation=${DIR}/state
SlurmdSpoolDir=${DIR}/spool.%n
SlurmctldPidFile=${DIR}/run/slurmctld.pid
SlurmdPidFile=${DIR}/run/slurmd.%n.pid
SlurmctldLogFile=${DIR}/log/slurmctld.log
SlurmdLogFile=${DIR}/log/slurmd.%n.log
SlurmctldParameters=preempt_send_user_signal
# Use the CPUs and the memory given below, not those of the machine.
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MaxArraySize=10001
MaxJobCount=20000
MinJobAge=300
KillWait=5
JobRequeue=1
SlurmctldTimeout=60
SlurmdTimeout=60
MailProg=/bin/true
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=${DIR}/log/jobcomp.txt
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
${gpus}
NodeName=${NODE_LIST} NodeHostname=localhost NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + ${#NODES[@]}))] CPUs=${CPUS} Boards=1 Sockets=1 CoresPerSocket=${CPUS} ThreadsPerCore=1 RealMemory=${MEMORY_MB} ${gpu_nodes} State=UNKNOWN
PartitionName=main Nodes=${NODE_LIST} Default=YES PriorityTier=1 GraceTime=5 DefMemPerCPU=500 MaxTime=INFINITE State=UP
PartitionName=high Nodes=${NODE_LIST} PriorityTier=10 PreemptMode=OFF DefMemPerCPU=500 MaxTime=INFINITE State=UP
END
    [ -s "${DIR}/munge.key" ] || (umask 077 && head -c 1024 /dev/urandom >"${DIR}/munge.key")
    echo "export SLURM_CONF=${SLURM_CONF}" >"${DIR}/env.sh"
}

running=false
for daemon in munged slurmctld "${NODES[@]/#/slurmd.}"; do
    ! is_alive "${daemon}" || running=true
done
[ "${running}" = true ] || configure

launch munged munged --foreground --force --origin=127.0.0.1 --num-threads=2 \
    --key-file="${DIR}/munge.key" --socket="${SOCKET}" --pid-file="${DIR}/run/munged.pid" \
    --log-file="${DIR}/log/munged.log" --seed-file="${DIR}/run/munged.seed"
for _ in $(seq 100); do
    ! munge -n -S "${SOCKET}" >/dev/null 2>&1 || break
    sleep 0.1
done
launch slurmctld slurmctld -D -f "${SLURM_CONF}"
for node in "${NODES[@]}"; do
    launch "slurmd.${node}" slurmd -D -f "${SLURM_CONF}" -N "${node}"
done

for _ in $(seq 150); do
    up=$(timeout 5 sinfo -h -N -p main -o %T 2>/dev/null | grep -cE '^(idle|mixed|allocated|completing)$') || true
    [ "${up}" = ${#NODES[@]} ] && exit 0
    sleep 0.2
done
timeout 5 sinfo -N -l >&2 || true
tail -n 5 "${DIR}"/log/*.log "${DIR}"/log/*.out >&2 || true
exec 9>&-
"${HERE}/slurm_down.sh" "${DIR}" || true
die "the nodes did not come up"
