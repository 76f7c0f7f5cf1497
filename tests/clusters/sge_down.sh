#!/usr/bin/env bash
# sge_down.sh DIR: delete the jobs of the Grid Engine that sge_up.sh started in DIR, stop its daemons by pid and remove DIR.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
DIR=$(realpath -m "${1:?DIR is missing}")
[ -e "${DIR}/.throw-away" ] || die "${DIR} has no scheduler of these scripts"
exec 9>"${DIR}/.lock"
flock 9
# shellcheck source=/dev/null
. "${DIR}/env.sh"

timeout 10 qdel -f -u '*' >/dev/null 2>&1
for _ in $(seq 30); do
    [ -n "$(timeout 5 qstat -u '*' 2>/dev/null)" ] || break
    sleep 0.2
done
failed=false
stop_daemon execd || failed=true
stop_daemon qmaster || failed=true
[ "${failed}" = false ] && rm -rf "${DIR:?}"
