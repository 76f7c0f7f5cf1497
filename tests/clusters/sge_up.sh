#!/usr/bin/env bash
# sge_up.sh DIR: start a throw-away Grid Engine for tests; then: . DIR/env.sh
#
# Debian's Grid Engine (8.1.9) with one host of 4 slots and 2 counted GPUs, the queue all.q, the parallel environment smp
# and the resources ram_free and gpu, which Kaldi's queue.pl asks for. All files are in DIR. A running one is left alone.
#
# Both daemons listen on all addresses, which no option changes. Run this script, the tests and sge_down.sh in a network
# namespace of their own: unshare --net bash -c 'ip link set lo up; ...'
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

SLOTS=4 GPUS=2 MEMORY=8G LIB=/usr/lib/gridengine

DIR=$(realpath -m "${1:?DIR is missing}")
need sge_qmaster qsub
open_directory
trap 'tail -n 5 "${DIR}"/log/*.out "${DIR}"/spool/qmaster/messages >&2' EXIT # shows why it fails

# Write the files that the qmaster reads at its start.
configure() {
    local common=${DIR}/root/default/common port link
    rm -rf "${DIR:?}"/{root,spool,conf}
    mkdir -p "${DIR}"/conf "${common}" "${DIR}"/spool/{qmaster/job_scripts,spooldb,execd}
    port=$(first_free 26444 2)
    for link in bin lib utilbin util; do
        ln -s "$(readlink -f "/var/lib/gridengine/${link}")" "${DIR}/root/${link}"
    done
    echo "export SGE_ROOT=${DIR}/root SGE_CELL=default SGE_ARCH=$(/usr/share/gridengine/util/arch)" \
        "SGE_QMASTER_PORT=${port} SGE_EXECD_PORT=$((port + 1))" >"${DIR}/env.sh"
    # shellcheck source=/dev/null
    . "${DIR}/env.sh"
    echo localhost >"${common}/act_qmaster"
    # 127.0.0.1 resolves to localhost, but clients use the hostname: make both the same host.
    [ "$(hostname)" = localhost ] || echo "localhost $(hostname)" >"${common}/host_aliases"
    cat >"${common}/bootstrap" <<END
admin_user              none
default_domain          none
ignore_fqdn             false
spooling_method         berkeleydb
spooling_lib            libspoolb
spooling_params         ${DIR}/spool/spooldb
binary_path             /usr/sbin
qmaster_spool_dir       ${DIR}/spool/qmaster
security_mode           none
listener_threads        2
worker_threads          2
scheduler_threads       1
END
    # min_uid 0 and min_gid 0 allow jobs of root.
    sed -e "s#^execd_spool_dir .*#execd_spool_dir ${DIR}/spool/execd#; s#^mailer .*#mailer /bin/true#" \
        -e 's#^min_\([ug]\)id .*#min_\1id 0#; s#flush_time=[0-9:]*#flush_time=00:00:01#' \
        -e 's#^load_report_time .*#load_report_time 00:00:02#; s#^shell_start_mode .*#shell_start_mode unix_behavior#' \
        /usr/share/gridengine/default-configuration >"${DIR}/conf/global"
    {
        "${LIB}/spoolinit" berkeleydb libspoolb "${DIR}/spool/spooldb" init
        "${LIB}/spooldefaults" configuration "${DIR}/conf/global"
        "${LIB}/spooldefaults" complexes "${SGE_ROOT}/util/resources/centry"
        "${LIB}/spooldefaults" usersets "${SGE_ROOT}/util/resources/usersets"
        "${LIB}/spooldefaults" managers "$(id -un)"
    } >"${DIR}/log/init.out" 2>&1
}

# settings NAME VALUE...: print lines of a qconf file.
settings() { printf '%s %s\n' "$@"; }

# Tell the running qmaster about hosts, resources, the queue and the scheduler.
define() {
    local limit
    cd "${DIR}/conf"
    qconf -sh | grep -qx localhost || qconf -ah localhost
    qconf -as localhost
    {
        qconf -sc | grep -v '^#'
        echo "gpu gpu INT <= YES YES 0 10000"
        echo "ram_free ram_free MEMORY <= YES YES 0 0"
    } >complexes
    qconf -Mc complexes
    settings hostname localhost load_scaling NONE complex_values "slots=${SLOTS},ram_free=${MEMORY},gpu=${GPUS}" \
        user_lists NONE xuser_lists NONE projects NONE xprojects NONE usage_scaling NONE report_variables NONE >host
    qconf -Ae host
    settings group_name @allhosts hostlist localhost >hosts
    qconf -Ahgrp hosts
    # shellcheck disable=SC2016 # a word of Grid Engine
    settings pe_name smp slots 999 user_lists NONE xuser_lists NONE start_proc_args NONE stop_proc_args NONE \
        allocation_rule '$pe_slots' control_slaves TRUE job_is_first_task TRUE urgency_slots min \
        accounting_summary TRUE qsort_args NONE >environment
    qconf -Ap environment
    {
        settings qname all.q hostlist @allhosts seq_no 0 load_thresholds NONE suspend_thresholds NONE nsuspend 1 \
            suspend_interval 00:05:00 priority 0 min_cpu_interval 00:05:00 processors UNDEFINED \
            qtype "BATCH INTERACTIVE" ckpt_list NONE pe_list smp rerun FALSE slots "${SLOTS}" tmpdir /tmp \
            shell /bin/bash prolog NONE epilog NONE shell_start_mode unix_behavior starter_method NONE \
            suspend_method NONE resume_method NONE terminate_method NONE notify 00:00:05 owner_list NONE \
            user_lists NONE xuser_lists NONE subordinate_list NONE complex_values NONE projects NONE xprojects NONE \
            calendar NONE initial_state default
        for limit in rt cpu fsize data stack core rss vmem; do
            settings "s_${limit}" INFINITY "h_${limit}" INFINITY
        done
    } >queue
    qconf -Aq queue
    # Schedule at once instead of every 15 s.
    qconf -ssconf | sed -e 's/^schedule_interval .*/schedule_interval 0:0:1/' \
        -e 's/^flush_submit_sec .*/flush_submit_sec 1/; s/^flush_finish_sec .*/flush_finish_sec 1/' >scheduler
    qconf -Msconf scheduler
}

# Whether the host has reported its load: it has an architecture then, and no 'u' among its states.
is_ready() {
    timeout 5 qstat -f 2>/dev/null | awk '$1 ~ /^all.q@/ && $5 ~ /^lx/ && $6 !~ /u/ {found = 1} END {exit !found}'
}

fresh=false
if ! is_alive qmaster && ! is_alive execd; then
    fresh=true
    configure
fi
# shellcheck source=/dev/null
. "${DIR}/env.sh"
export SGE_ND=1 # the daemons stay in the foreground
launch qmaster "${LIB}/sge_qmaster"
for _ in $(seq 60); do
    ! timeout 5 qconf -sm >/dev/null 2>&1 || break
    sleep 0.2
done
if [ "${fresh}" = true ]; then
    (define) >"${DIR}/log/qconf.out" 2>&1
fi
launch execd "${LIB}/sge_execd"
for _ in $(seq 100); do
    if is_ready; then
        trap - EXIT
        exit 0
    fi
    sleep 0.2
done
timeout 5 qstat -f >&2 || true
die "the queue did not come up"
