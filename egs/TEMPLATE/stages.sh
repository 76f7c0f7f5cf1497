# shellcheck shell=bash
# shellcheck disable=SC2154  # they are variables of the script that sources this
# Numbered stages, for scripts that run in a recipe's directory; to be sourced after options.sh. Such a script has
#
#     stage, stop_stage, nj, resources   options, see distilmos.sh
#     titles                             an array: what each stage does
#     asks_of STAGE                      a function that sets `asks` to what the jobs of STAGE ask a scheduler for by
#                                        default, in the terms of cmd.sh
#     skips STAGE                        a function: whether STAGE has nothing to do; it says why
#
# and each stage as `if begin STAGE; then ...; end; fi`.

running=
trap report_failure EXIT

# take_stage_options ARGUMENT...: sets the script's options. Those that local/data.sh declares, and what follows `--`,
# are left in `data_opts`.
take_stage_options() {
    local declared name
    take_options "$0" "$@"
    case ${rest[0]-} in
        --help)
            usage
            exit 0
            ;;
    esac
    data_opts=()
    declared=" $(declared_options local/data.sh | cut -f 1 | tr '\n' ' ')"
    while [[ ${#rest[@]} -gt 0 && ${rest[0]} != -- ]]; do
        name=${rest[0]#--}
        [[ ${declared} == *" ${name//-/_} "* ]] || usage_error "$0" "unknown option ${rest[0]}"
        data_opts+=("${rest[@]:0:2}")
        rest=("${rest[@]:2}")
    done
    data_opts+=("${rest[@]:1}")
    whole_numbers 0 stage stop_stage
    whole_numbers 1 nj
    ((stage <= stop_stage && stop_stage < ${#titles[@]})) || usage_error "$0" "no stages from ${stage} to ${stop_stage}"
}

usage() {
    local number
    if [ -n "$(declared_options local/data.sh)" ]; then
        echo
        print_options local/data.sh
    fi
    echo
    echo "Stages:"
    for number in "${!titles[@]}"; do
        echo "  ${number}  ${titles[number]}"
    done
}

# whole_numbers LEAST NAME...: ends unless the options NAME are whole numbers of at least LEAST.
whole_numbers() {
    local name
    for name in "${@:2}"; do
        [[ ${!name} =~ ^(0|[1-9][0-9]*)$ ]] || usage_error "$0" "--${name} must be a whole number, not '${!name}'"
        ((${!name} >= $1)) || usage_error "$0" "--${name} must be at least $1"
    done
}

# ask_for STAGE [LIKE]: sets `asks` to what the jobs of STAGE ask a scheduler for; by default what those of stage LIKE do.
ask_for() {
    local given words
    asks_of "${2-$1}"
    for given in "${resources[@]}"; do
        case ${given} in
            "$1":*) given=${given#*:} ;;
            [0-9]:*) continue ;;
        esac
        read -ra words <<<"${given}"
        asks+=("${words[@]}") # the last one counts
    done
}

# begin STAGE: whether STAGE is asked for and has work to do; announces it, and sets `asks`.
begin() {
    ((stage <= $1 && $1 <= stop_stage)) || return 1
    ! skips "$1" || return 1
    running=$1
    began=${SECONDS}
    ask_for "$1"
    echo "$(date '+%F %T') stage $1: ${titles[$1]}"
}

# end [FILE...]: announces that the stage is over, and what it made.
end() {
    echo "$(date '+%F %T') stage ${running}: done in $((SECONDS - began)) s${1:+: $*}"
    running=
}

report_failure() {
    local status=$?
    [ -z "${running}" ] || echo "${0##*/}: stage ${running} failed" >&2
    return "${status}"
}

refuse() {
    running=
    echo "${0##*/}: $1" >&2
    exit 2
}

# need FILE STAGE: ends unless FILE exists, which STAGE makes. Shards beside it mean that STAGE did not get to its end.
need() {
    if [ ! -e "$1" ] || [ -e "${1%/*}/shards" ]; then
        refuse "stage ${running} needs $1: run stage $2 first"
    fi
}

# validate DIR: ends unless DIR is a valid data directory; a set may be without ratings.
validate() {
    local rated=()
    [ -e "$1/utt2mos" ] || rated=(--unrated)
    distilmos validate-data "${rated[@]}" "$1"
}

# renew DIR PATH... -- WORD...: empties DIR, the directory of a stage, unless the stage has stopped half-way there and what
# it depends on is still the same: the files that it reads, and options.
renew() {
    local dir=$1 inputs=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        [ ! -e "$1" ] || inputs+=(--input "$1")
        shift
    done
    distilmos renew "${inputs[@]}" -- "${dir}" "${@:2}"
}

# share DIR NAME COMMAND...: runs COMMAND as an array of nj jobs that write shards in DIR, each with a log NAME, and joins
# the shards. What is joined cannot be gone on with, so that the array has got to its end before.
share() {
    local dir=$1 name=$2
    shift 2
    "${cmd[@]}" "${asks[@]}" --max-jobs-run "${nj}" "JOB=1:${nj}" "${dir}/log/${name}.JOB.log" "$@" --job JOB --jobs "${nj}"
    distilmos renew --finish "${dir}"
    "${cmd[@]}" "${asks[@]}" --gpu 0 "${dir}/log/merge_archives.log" distilmos merge-archives "${dir}" --jobs "${nj}"
}

# pack_audio SOURCE RAW: makes RAW of the data directory SOURCE, with its audio checked, 16 kHz, in one archive.
pack_audio() {
    local source=$1 raw=$2
    renew "${raw}" "${source}" -- "${nj}"
    share "${raw}" dump_audio distilmos dump-audio "${source}" "${raw}"
    validate "${raw}"
    grep -h '^warning: ' "${raw}"/log/dump_audio.*.log || true
}

# learn_kmeans FEATS KMEANS CLUSTERS SEED: k-means of every layer in FEATS, and their table.
learn_kmeans() {
    local layers=("$1"/layer*.scp)
    renew "$2" "$1" -- "$3" "$4"
    "${cmd[@]}" "${asks[@]}" --max-jobs-run "${nj}" "JOB=1:${#layers[@]}" "$2/log/learn_kmeans.JOB.log" \
        distilmos learn-kmeans --feats "$1" --layer JOB --clusters "$3" --seed "$4" --out "$2"
    distilmos renew --finish "$2"
    "${cmd[@]}" "${asks[@]}" "$2/log/kmeans_table.log" distilmos kmeans-table "$2"
    cat "$2/quality.md"
}
