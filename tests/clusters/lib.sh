# shellcheck shell=bash
# Shared by the scripts that start and stop throw-away schedulers. Each script sets DIR, which holds all of a scheduler's
# files. DIR/.throw-away marks a directory of these scripts: they change no other. DIR/pids/NAME holds the pid of a daemon
# and its start time, so that a reused pid is never taken for the daemon.

export PATH=${PATH}:/usr/sbin:/sbin

say() { echo "${0##*/}: $*" >&2; }

die() {
    say "$*"
    exit 1
}

# Create DIR, or accept it as it was left by an earlier call, and lock it until the script ends.
open_directory() {
    if [ -e "${DIR}" ] && [ ! -e "${DIR}/.throw-away" ] && [ -n "$(ls -A "${DIR}")" ]; then
        die "${DIR} exists and has other files; name another directory"
    fi
    mkdir -p "${DIR}"
    chmod 755 "${DIR}"
    : >>"${DIR}/.throw-away"
    exec 9>"${DIR}/.lock"
    flock 9
    mkdir -p "${DIR}"/{pids,log}
}

# need COMMAND...: fail if one of the commands is not installed.
need() {
    local command
    for command; do
        command -v "${command}" >/dev/null || die "${command} is not installed; tests/install.sh installs it"
    done
}

# Print state and start time of a process.
process_info() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    awk '{print $1, $20}' <<<"${stat##*) }"
}

# is_running PID START: whether that process runs and is no zombie.
is_running() {
    local state start
    read -r state start <<<"$(process_info "$1")" || return 1
    [ "${start}" = "$2" ] && [ "${state}" != Z ]
}

# is_alive NAME: whether that daemon runs.
is_alive() {
    local pid start
    read -r pid start 2>/dev/null <"${DIR}/pids/$1" && is_running "${pid}" "${start}"
}

# launch NAME COMMAND...: start a daemon that stays in the foreground, in a session of its own, unless it runs.
launch() {
    local name=$1 info
    shift
    is_alive "${name}" && return 0
    setsid "$@" </dev/null >>"${DIR}/log/${name}.out" 2>&1 9>&- &
    info=$(process_info $!) || die "${name} did not start: $(tail -n 3 "${DIR}/log/${name}.out")"
    echo "$! ${info#* }" >"${DIR}/pids/${name}"
    disown
}

# stop PID START: send SIGTERM and, to a process that runs 15 s later, SIGKILL.
stop() {
    local signal
    for signal in TERM KILL; do
        is_running "$1" "$2" || return 0
        kill "-${signal}" "$1" 2>/dev/null
        for _ in $(seq 150); do
            is_running "$1" "$2" || return 0
            sleep 0.1
        done
    done
    say "process $1 does not end"
    return 1
}

# stop_daemon NAME
stop_daemon() {
    local pid start
    read -r pid start 2>/dev/null <"${DIR}/pids/$1" || return 0
    stop "${pid}" "${start}" && rm -f "${DIR}/pids/$1"
}

# Whether nothing listens on a port of 127.0.0.1.
is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# first_free START COUNT: print the first of COUNT consecutive free ports, searched from START on.
first_free() {
    local port=$1 offset
    while [ "${port}" -lt $(($1 + 200)) ]; do
        for ((offset = 0; offset < $2; offset++)); do
            is_free $((port + offset)) || break
        done
        [ "${offset}" -lt "$2" ] || {
            echo "${port}"
            return 0
        }
        port=$((port + offset + 1))
    done
    die "no free ports from $1 on"
}
