# shellcheck shell=bash
# For scripts that keep what their pages are made of, so that they go on where they were interrupted, on any machine.

failed=0 # status of the last array in which a training has failed

# sweep OPTION...: trains an array with ../TEMPLATE/sweep.sh; returns where some have failed, so that the others are kept.
sweep() {
    ../TEMPLATE/sweep.sh "$@" || failed=$?
    ((failed < 128)) || exit "${failed}" # by a signal
}

# keep FROM TO FILE...: copies the FILEs below FROM to TO, as a whole or not at all; nothing of a training that its sweep has
# not ended.
keep() {
    local new file
    [ -e "$1/.ended" ] || return 0
    new=$(dirname "$2")/.$(basename "$2").tmp
    rm -rf "${new}"
    for file in "${@:3}"; do
        mkdir -p "$(dirname "${new}/${file}")"
        cp "$1/${file}" "${new}/${file}"
    done
    mv "${new}" "$2"
}

# lacking_models KEPT MODELS SEEDS: sets `lacking` to the trainings MODEL_seedN that are not in KEPT, and `left` to their models.
lacking_models() {
    local model seed before
    left=() lacking=()
    for model in $2; do
        before=${#lacking[@]}
        for seed in $3; do
            [ -e "$1/${model}_seed${seed}" ] || lacking+=("${model}_seed${seed}")
        done
        ((${#lacking[@]} == before)) || left+=("${model}")
    done
}

# prepare DUMP OPTION...: runs stages 0 to 4 with the OPTIONs of run.sh, unless DUMP has what they make already.
prepare() {
    if [ ! -e "$1/.prepared" ]; then
        ./run.sh "${@:2}" --stage 0 --stop_stage 4
        touch "$1/.prepared"
    fi
}
