# shellcheck shell=bash
# Options in Kaldi's style (`--name value`); source this. A script declares its options as lines
#
#     name=default  # meaning          an option; `--name value` replaces the default
#     name=()       # meaning          a list; every `--name value` adds one value
#
# between the lines `# Options` and `# End of options`, and then calls take_options. The command line can set only these
# names, no other variable.

# declared_options SCRIPT: prints `name<TAB>default<TAB>meaning` for every option that SCRIPT declares.
declared_options() {
    sed -n '/^# Options$/,/^# End of options$/s/^\([a-z][a-z0-9_]*\)=\(.*[^ ]\|\)  *# \(.*\)$/\1\t\2\t\3/p' "$1"
}

# print_options SCRIPT: prints the options of SCRIPT with their current values, or their defaults if SCRIPT is another
# script.
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

# take_options SCRIPT ARGUMENT...: sets the options that SCRIPT declares. The array `rest` gets other options with their
# values, and everything from `--` on. `--help` prints the options, and goes to `rest`, too.
take_options() {
    local script=$1 declared name
    shift
    declared=" $(declared_options "${script}" | cut -f 1 | tr '\n' ' ')"
    rest=()
    while [ $# -gt 0 ]; do
        case $1 in
            --help)
                print_options "${script}"
                rest=(--help)
                return
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

# usage_error SCRIPT MESSAGE: exits with status 2.
usage_error() {
    echo "${1##*/}: error: $2 (--help lists the options)" >&2
    exit 2
}

# take_all_options SCRIPT ARGUMENT...: take_options for a script that accepts no other options; exits after --help.
take_all_options() {
    take_options "$@"
    case ${rest[0]-} in
        "") ;;
        --help) exit 0 ;;
        *) usage_error "$1" "unknown option ${rest[0]}" ;;
    esac
}

# true_or_false NAME...: exits with status 2 unless each option NAME is "true" or "false".
true_or_false() {
    local name
    for name in "$@"; do
        [[ ${!name} == true || ${!name} == false ]] || usage_error "$0" "--${name} must be true or false, not '${!name}'"
    done
}

# checksum WORD...: prints a number that stands for the words, for the name of a file.
checksum() {
    cksum <<<"$*" | cut -d ' ' -f 1
}
