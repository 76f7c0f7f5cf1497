# shellcheck shell=bash
# shellcheck disable=SC2154  # variables of the script that sources this
# Numbered stages, for scripts that run in a recipe's directory; source this after options.sh. Such a script has
#
#     stage, stop_stage, nj, resources   options, see distilmos.sh
#     titles                             an array: the title of each stage
#     asks_of STAGE                      a function that sets `asks` to the default resources of the jobs of STAGE, as
#                                        options of `cmd` (cmd.sh)
#     skips STAGE                        a function that succeeds if STAGE has nothing to do, and prints the reason
#
# and each stage as `if begin STAGE; then ...; end; fi`.

running=
trap report_failure EXIT

# take_stage_options ARGUMENT...: sets the script's options. `data_opts` gets the options that local/data.sh declares,
# and the words after `--`.
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
    for name in "${rest[@]}"; do
        [ "${name}" = -- ] || data_opts+=("${name}") # a recipe's own run.sh may add words after those of the user
    done
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

# whole_numbers LEAST NAME...: exits with status 2 unless each option NAME is a whole number of at least LEAST.
whole_numbers() {
    local name
    for name in "${@:2}"; do
        [[ ${!name} =~ ^(0|[1-9][0-9]*)$ ]] || usage_error "$0" "--${name} must be a whole number, not '${!name}'"
        ((${!name} >= $1)) || usage_error "$0" "--${name} must be at least $1"
    done
}

# ask_for STAGE [LIKE]: sets `asks` to the resources of the jobs of STAGE: the defaults of stage LIKE (default: STAGE),
# then --resources.
ask_for() {
    asks_of "${2-$1}"
    ask_also "$1"
}

# ask_also [STAGE]: adds --resources of all stages, and of STAGE, to `asks`.
ask_also() {
    local given words
    for given in "${resources[@]}"; do
        case ${given} in
            "${1-none}":*) given=${given#*:} ;;
            [0-9]:*) continue ;;
        esac
        read -ra words <<<"${given}"
        asks+=("${words[@]}") # for an option given twice, `cmd` uses the last value
    done
}

# begin STAGE: succeeds if STAGE is to run and has work to do; announces it, and sets `asks`.
begin() {
    ((stage <= $1 && $1 <= stop_stage)) || return 1
    ! skips "$1" || return 1
    running=$1
    began=${SECONDS}
    ask_for "$1"
    echo "$(date '+%F %T') stage $1: ${titles[$1]}"
}

# end [FILE...]: announces the end of the stage, and the files that it made.
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

# need FILE STAGE: exits with status 2 unless STAGE has made FILE. Shards next to it mean that STAGE is not complete.
need() {
    if [ ! -e "$1" ] || [ -e "${1%/*}/shards" ]; then
        refuse "stage ${running} needs $1: run stage $2 first"
    fi
}

# validate DIR [OPTION...]: fails unless DIR is a valid data directory, with or without ratings. OPTIONs are those of
# validate-data.
validate() {
    local rated=()
    [ -e "$1/utt2mos" ] || rated=(--unrated)
    distilmos validate-data "${rated[@]}" "${@:2}" "$1"
}

# renew DIR PATH... -- WORD...: empties DIR, the output of a stage, unless an interrupted run with the same inputs PATH
# and the same options WORD left it.
renew() {
    local dir=$1 inputs=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        [ ! -e "$1" ] || inputs+=(--input "$1")
        shift
    done
    distilmos renew "${inputs[@]}" -- "${dir}" "${@:2}"
}

# share DIR NAME COMMAND...: runs COMMAND as an array of nj jobs that write shards to DIR, each with a log NAME, and
# joins the shards. The array is recorded as complete before the join: a rerun cannot continue from joined shards.
share() {
    local dir=$1 name=$2 array
    shift 2
    array_name "${dir}" "$@"
    "${cmd[@]}" "${asks[@]}" --max-jobs-run "${nj}" "${array}=1:${nj}" "${dir}/log/${name}.${array}.log" \
        "$@" --job "${array}" --jobs "${nj}"
    distilmos renew --finish "${dir}"
    "${cmd[@]}" "${asks[@]}" --gpu 0 "${dir}/log/merge_archives.log" distilmos merge-archives "${dir}" --jobs "${nj}"
}

# pack_audio SOURCE RAW [OPTION...]: copies the data directory SOURCE to RAW, with the audio checked, at 16 kHz, in one
# archive. OPTIONs are those of dump-audio.
pack_audio() {
    local source=$1 raw=$2
    renew "${raw}" "${source}" -- "${nj}"
    share "${raw}" dump_audio distilmos dump-audio "${source}" "${raw}" "${@:3}"
    validate "${raw}"
    grep -h '^warning: ' "${raw}"/log/dump_audio.*.log || true
}

# learn_kmeans FEATS KMEANS CLUSTERS SEED: learns k-means for every layer in FEATS, and prints their quality.
learn_kmeans() {
    local layers=("$1"/layer*.scp) array
    renew "$2" "$1" -- "$3" "$4"
    array_name "$@"
    "${cmd[@]}" "${asks[@]}" --max-jobs-run "${nj}" "${array}=1:${#layers[@]}" "$2/log/learn_kmeans.${array}.log" \
        distilmos learn-kmeans --feats "$1" --layer "${array}" --clusters "$3" --seed "$4" --out "$2"
    distilmos renew --finish "$2"
    "${cmd[@]}" "${asks[@]}" "$2/log/kmeans_table.log" distilmos kmeans-table "$2"
    cat "$2/quality.md"
}
