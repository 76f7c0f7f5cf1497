# shellcheck shell=bash
# Options in Kaldi's style (`--name value`), to be sourced. A script declares its options as lines
#
#     name=default  # what it means          an option; `--name value` replaces the default
#     name=()       # what it means          a list; every `--name value` adds one value
#
# between the lines `# Options` and `# End of options`, and then calls take_options. Only these names are options, so that
# no other variable can be set from the command line.

# declared_options SCRIPT: prints `name<TAB>default<TAB>meaning` for every option that SCRIPT declares.
declared_options() {
    sed -n '/^# Options$/,/^# End of options$/s/^\([a-z][a-z0-9_]*\)=\(.*[^ ]\|\)  *# \(.*\)$/\1\t\2\t\3/p' "$1"
}

# print_options SCRIPT: its options, and their values as they are now, or their defaults if SCRIPT is another script.
print_options() {
    local name default meaning
    echo "Options of ${1##*/}:"
    while IFS=$'\x1f' read -r name default meaning; do
        if declare -p "${name}" >/dev/null 2>&1; then
            local -n present="${name}"
            default=${present[*]-}
            unset -n present
        fi
        default=${default#\"} default=${default%\"}
        printf '  --%-14s %s [%s]\n' "${name}" "${meaning}" "${default}"
    done < <(declared_options "$1" | tr '\t' '\037')
}

# take_options SCRIPT ARGUMENT...: sets the options that SCRIPT declares. Options that it does not declare stay, with
# their values, in the array `rest`; so does everything from `--` on. `--help` prints the options, and stays too.
take_options() {
    local script=$1 declared name
    shift
    declared=" $(declared_options "${script}" | cut -f 1 | tr '\n' ' ')"
    rest=()
    while [ $# -gt 0 ]; do
        case $1 in
            --help)
                print_options "${script}"
                break
                ;;
            --) break ;;
            --*) name=${1#--} name=${name//-/_} ;;
            *) usage_error "${script}" "unexpected argument '$1'" ;;
        esac
        [ $# -ge 2 ] || usage_error "${script}" "option $1 needs a value"
        if [[ ${declared} != *" ${name} "* ]]; then
            rest+=("$1" "$2")
        elif [[ $(declare -p "${name}") == "declare -a"* ]]; then
            local -n list="${name}"
            list+=("$2")
            unset -n list
        else
            printf -v "${name}" '%s' "$2"
        fi
        shift 2
    done
    rest+=("$@")
}

# usage_error SCRIPT MESSAGE: ends with exit status 2.
usage_error() {
    echo "${1##*/}: error: $2 (--help lists the options)" >&2
    exit 2
}

# take_all_options SCRIPT ARGUMENT...: take_options for a script that passes nothing on; after --help it ends.
take_all_options() {
    take_options "$@"
    case ${rest[0]-} in
        "") ;;
        --help) exit 0 ;;
        *) usage_error "$1" "unknown option ${rest[0]}" ;;
    esac
}

# true_or_false NAME...: ends unless the options NAME are "true" or "false".
true_or_false() {
    local name
    for name in "$@"; do
        [[ ${!name} == true || ${!name} == false ]] || usage_error "$0" "--${name} must be true or false, not '${!name}'"
    done
}
