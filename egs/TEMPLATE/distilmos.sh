#!/usr/bin/env bash
# shellcheck disable=SC2154  # show_sets sets names and paths
# All stages, from a corpus to a scored model. The run.sh of a recipe calls this in the recipe's directory, with the
# recipe's settings. Options that local/data.sh declares, and words after `--`, are passed on to it.
set -euo pipefail

. "$(dirname "$0")/options.sh"
. "$(dirname "$0")/stages.sh"

# Options
stage=0                   # first stage
stop_stage=8              # last stage
nj=2                      # parallel jobs of stages 1 to 4, each with one CPU thread
num_threads=2             # CPU threads of stages 5 and 6
ngpu=0                    # GPUs to request for stage 5, and one for each job of stages 2, 4 and 6; 0 requests none
num_nodes=1               # machines of stage 5, each with ngpu GPUs; more than one needs a scheduler
resources=()              # [STAGE:]OPTIONS, resources of jobs, as "5:--mem 32G --time 24:00:00"; several times
datadir=data              # data directories
dumpdir=dump              # audio, features and tokens
dumpdir_of=()             # CORPUS=DIR, dumpdir of another recipe if not ../CORPUS/dump; several times
expdir=exp                # models and results
train_sets="train"        # sets to train on, separated by spaces: SET of this recipe, CORPUS/SET of another one
dev_sets="dev"            # sets to choose the model with
test_sets="test"          # sets to test on; those of other recipes are scored if they are prepared
execute_pipes=false       # true runs the commands in wav.scp of the data directories (stage 1), as "sph2pipe x.sph |"
published=                # table of published figures for the report
references=false          # true compares the scores with those of published models (Distill-MOS, DNSMOS), too
analyze=false             # true adds to the report what each layer of the encoder knows, before and after stage 5
ssl_model=                # SSL encoder, a name or the path of a checkpoint; if empty, that of the configuration
ssl_url=                  # where to download it from; if empty, where its authors published it
teacher=                  # SSL model whose layers make the tokens, mfcc or best_rq; if empty, ssl_model, as in the paper
backend=distilmos         # of stages 2 and 4; fairseq for a teacher that only fairseq's own module knows
user_dir=                 # with backend fairseq: code of a model that is not part of fairseq
forward_opts=()           # options of dump-feats and dump-tokens (stages 2, 4), as "--precision bfloat16"; several times
clusters=200              # k-means clusters of each layer
max_frames=40000          # training frames sampled for k-means
conf=conf/distilmos.yaml  # training configuration
train_opts=()             # key=value, replaces a setting of the configuration; several times
stage_to_tmpdir=false     # true copies the audio of stage 5 to $TMPDIR of the job, for a slow shared file system
tag=                      # name of the experiment; if empty, from the configuration and the seed
seed=1                    # seed of the sampled frames, of k-means and of training
# End of options

published_models=(distillmos dnsmos) # of --references true, see `distilmos predict-published`
titles=(
    "corpus to data directories"
    "audio, checked and packed"
    "hidden states of all layers, sampled frames of the training set"
    "k-means of every layer"
    "token ids of all layers, and layers pooled over time"
    "multi-task fine-tuning"
    "prediction of every test set"
    "scores and report"
    "portable model"
)

# show_sets OPTION...: prints the names and paths of the sets and of everything made from them; see `distilmos sets`.
show_sets() {
    distilmos sets --corpus "${PWD##*/}" --train "${train_words[@]}" --dev "${dev_words[@]}" --test "${test_words[@]}" \
        --dumpdir "${dumpdir}" --expdir "${expdir}" "${dumpdir_of[@]/#/--dumpdir-of=}" "${config_args[@]}" \
        --teacher "${teacher}" --clusters "${clusters}" --seed "${seed}" --tag "${tag}" "$@"
}

# is_own CORPUS=RAW: succeeds if this recipe prepares the set.
is_own() {
    [[ $1 == "${PWD##*/}="* ]]
}

# need_audio CORPUS=RAW...: exits with status 2 unless stage 1 is complete for every set.
need_audio() {
    local set raw name
    for set; do
        raw=${set#*=} name=${set##*/}
        # Of a set that this recipe has not, and whose name starts with that of another recipe:
        if is_own "${set}" && [[ ${name%%_*} != "${PWD##*/}" && -e ../${name%%_*}/run.sh && ! -e ${raw} ]]; then
            refuse "stage ${running} needs ${raw}: a set of egs/${name%%_*} is written ${name%%_*}/${name}"
        fi
        is_own "${set}" || [ -e "${raw}/wav.scp" ] ||
            refuse "stage ${running} needs ${raw}/wav.scp: run stages 0 and 1 of egs/${set%%=*} first"
        need "${raw}/wav.scp" 1
    done
}

# need_training_audio: need_audio for the sets of training and dev.
need_training_audio() {
    need_audio "${train}" "${dev}"
    is_current "${train}" "${train_sources[@]}"
    is_current "${dev}" "${dev_sources[@]}"
}

# is_current CORPUS=RAW SOURCE...: exits with status 2 if a SOURCE, of which RAW was joined, has changed since.
is_current() {
    local source
    for source in "${@:2}"; do
        [ ! "${source#*=}/wav.scp" -nt "${1#*=}/wav.scp" ] ||
            refuse "stage ${running}: ${source#*=} has changed since ${1#*=} was made of it: run stage 1 again"
    done
}

# join_sets CORPUS=RAW SOURCE...: writes the set RAW from several SOURCEs, without copying audio.
join_sets() {
    need_audio "${@:2}"
    distilmos combine-data --overwrite "${1#*=}" "${@:2}"
}

# find_prepared_tests: sets `prepared` to the indices of the test sets to score: this recipe's, and others that exist.
find_prepared_tests() {
    local index
    prepared=()
    for index in "${!tests[@]}"; do
        if is_own "${tests[index]}" || [ -e "${tests[index]#*=}/wav.scp" ]; then
            prepared+=("${index}")
        else
            echo "not prepared, so not scored: ${test_words[index]}"
        fi
    done
    [ ${#prepared[@]} -gt 0 ] || refuse "stage ${running}: no set of '${test_sets}' is prepared: run its stages 0 and 1 first"
}

# find_train_pooled: sets `train_pooled` to the directory of the pooled layers of the training set. Those that were made
# with the tokens are of the teacher.
find_train_pooled() {
    train_pooled=${tokens}/${train_name}
    [[ ${teacher} == "${ssl_model}" && -e ${train_pooled}/pooled.scp ]] || train_pooled=${pooled}/${train_name}
}

skips() {
    if [[ ${needs_tokens} == false && $1 == [23] ]]; then
        echo "stage $1 is skipped: this ${model} network needs no tokens (${conf})"
    elif [[ ${model} == spectral && $1 == 4 ]]; then
        echo "stage $1 is skipped: this ${model} network has no encoder (${conf})"
    else
        return 1
    fi
}

asks_of() {
    local gpu=$((ngpu > 0 ? 1 : 0))
    case $1 in
        1) asks=(--mem 2G --time 4:00:00) ;;
        2 | 4 | 6) asks=(--mem 8G --time 8:00:00 --gpu "${gpu}") ;;
        3) asks=(--mem 8G --time 4:00:00) ;;
        5) asks=(--mem 16G --time 48:00:00 --gpu "${ngpu}") ;;
        7) asks=(--mem 8G --time 2:00:00) ;;
        8) asks=(--mem 8G --time 1:00:00) ;; # the network in both runtimes
        *) asks=(--mem 4G --time 1:00:00) ;;
    esac
}

take_stage_options "$@"
whole_numbers 0 ngpu seed
whole_numbers 1 num_threads num_nodes clusters max_frames
true_or_false analyze execute_pipes references stage_to_tmpdir
case ${execute_pipes} in
    true) pipes=(--pipes) execute=(--execute-pipes) ;;
    false) pipes=() execute=() ;;
esac
read -ra train_words <<<"${train_sets}"
read -ra dev_words <<<"${dev_sets}"
read -ra test_words <<<"${test_sets}"

. ./path.sh
. ./cmd.sh

# A recipe of test sets trains nothing, so it has no configuration.
if [ ${#train_words[@]} -eq 0 ]; then
    ((stop_stage <= 1)) || usage_error "$0" "a recipe of test sets ends with stage 1; score them from a recipe that trains"
    conf=/dev/null
fi
[ -z "${ssl_model}" ] || train_opts+=("ssl_model=${ssl_model}")
config_args=(--config "${conf}" "${train_opts[@]/#/--set=}")
names=$(show_sets) || exit # checks the configuration, too
eval "${names}"

[ "${backend}" != fairseq ] || : "${teacher:=${ssl_model}}"
if [ -n "${teacher}" ]; then
    config_args+=(--set foreign_tokens=true)
else
    teacher=${ssl_model}
fi
read -ra more_args <<<"${forward_opts[*]}"
layer_args=(--ssl "${teacher}" --backend "${backend}" ${user_dir:+--user-dir "${user_dir}"} "${more_args[@]}")
made_with=("${teacher}" "${backend}" "${more_args[@]}")
# The same for the encoder of the network, whose layers are pooled.
encoder_args=("${layer_args[@]}")
[ "${teacher}" = "${ssl_model}" ] || encoder_args=(--ssl "${ssl_model}" "${more_args[@]}")

if begin 0; then
    if [ ${#train_words[@]} -gt 0 ]; then
        distilmos fetch-ssl "${ssl_model}" ${ssl_url:+--base-url "${ssl_url}"}
        [ "${teacher}" = "${ssl_model}" ] || distilmos fetch-ssl "${teacher}" ${ssl_url:+--base-url "${ssl_url}"}
    fi
    local/data.sh --datadir "${datadir}" "${data_opts[@]}"
    for set in "${own_sets[@]}"; do
        validate "${datadir}/${set}" "${pipes[@]}"
    done
    distilmos summarize-data "${own_sets[@]/#/${datadir}/}"
    end
fi

if begin 1; then
    for set in "${own_sets[@]}"; do
        need "${datadir}/${set}/wav.scp" 0
    done
    for set in "${own_sets[@]}"; do
        pack_audio "${datadir}/${set}" "${dumpdir}/raw/${set}" "${execute[@]}"
    done
    [ ${#train_sources[@]} -le 1 ] || join_sets "${train}" "${train_sources[@]}"
    [ ${#dev_sources[@]} -le 1 ] || join_sets "${dev}" "${dev_sources[@]}"
    end
fi

if begin 2; then
    need_training_audio
    renew "${feats}" "${train_raw}" "${teacher}" "${user_dir}" -- "${nj}" "${max_frames}" "${seed}" "${made_with[@]}"
    plan_args=(--dev "${dev_raw}")
    for set in "${tests[@]}"; do
        [ ! -e "${set#*=}/wav.scp" ] || plan_args+=(--test "${set#*=}")
    done
    ask_for 5 # the plan measures steps of the training, so it needs its memory
    asks+=(--gpu "$((ngpu > 0 ? 1 : 0))" --time 1:00:00)
    ask_also # a time for all stages
    "${cmd[@]}" "${asks[@]}" --num-threads "${num_threads}" \
        "${feats}/log/plan.log" distilmos plan "${config_args[@]}" --train "${train_raw}" "${plan_args[@]}" \
        --clusters "${clusters}" --max-frames "${max_frames}" --jobs "${nj}" --num-threads "${num_threads}"
    ask_for 2
    grep -v '^#' "${feats}/log/plan.log"
    echo "${teacher}" >"${feats}/ssl_model"
    share "${feats}" dump_feats distilmos dump-feats "${layer_args[@]}" --data "${train_raw}" --out "${feats}" \
        --max-frames "${max_frames}" --seed "${seed}"
    end
fi

if begin 3; then
    need "${feats}/layer1.scp" 2
    [ "$(cat "${feats}/ssl_model")" = "${teacher}" ] || refuse "${feats} is not from ${teacher}: run stage 2 first"
    renew "${tokens}" # the ids of older clusters mean nothing to the new ones
    learn_kmeans "${feats}" "${kmeans}" "${clusters}" "${seed}"
    end
fi

if begin 4; then
    pool=("${train_name}=${train_raw}") # sets whose layers are to be pooled in a pass of their own
    if [ "${needs_tokens}" = true ]; then
        need "${kmeans}/quality.json" 3
        [ "${teacher}" != "${ssl_model}" ] || pool=() # the pass for the tokens pools them, too
    fi
    need_training_audio
    if [ "${needs_tokens}" = true ]; then
        for set in "${train_name}=${train_raw}" "${dev_name}=${dev_raw}"; do
            name=${set%%=*} raw=${set#*=}
            renew "${tokens}/${name}" "${kmeans}" "${raw}" "${teacher}" "${user_dir}" -- "${nj}" "${made_with[@]}"
            share "${tokens}/${name}" dump_tokens distilmos dump-tokens "${layer_args[@]}" --kmeans "${kmeans}" \
                --data "${raw}" --out "${tokens}/${name}"
        done
    fi
    for index in "${!tests[@]}"; do
        [ ! -e "${tests[index]#*=}/wav.scp" ] || pool+=("${test_names[index]}=${tests[index]#*=}")
    done
    for set in "${pool[@]}"; do
        name=${set%%=*} raw=${set#*=}
        renew "${pooled}/${name}" "${raw}" "${ssl_model}" "${user_dir}" -- "${nj}" "${encoder_args[@]}"
        share "${pooled}/${name}" dump_pooled distilmos dump-pooled "${encoder_args[@]}" --data "${raw}" \
            --out "${pooled}/${name}"
    done
    end
fi

if begin 5; then
    need_training_audio
    train_args=(--seed "${seed}" --train "${train_raw}" --dev "${dev_raw}")
    [ "${stage_to_tmpdir}" = false ] || train_args+=(--stage-to-tmpdir)
    if [ "${needs_tokens}" = true ]; then
        need "${tokens}/${train_name}/layer1.scp" 4
        need "${tokens}/${dev_name}/layer1.scp" 4
        train_args+=(--train-tokens "${tokens}/${train_name}" --dev-tokens "${tokens}/${dev_name}")
    fi
    ((ngpu <= 1)) || train_args+=(--nproc "${ngpu}")
    if ((num_nodes > 1)); then
        asks+=(--num-nodes "${num_nodes}")
        train_args+=(--nnodes "${num_nodes}")
    fi
    echo "progress: ${exp}/log/train.log"
    "${cmd[@]}" "${asks[@]}" --num-threads "${num_threads}" "${exp}/log/train.log" \
        distilmos train "${config_args[@]}" --out "${exp}" "${train_args[@]}"
    end "${exp}"
fi

if begin 6; then
    need "${exp}/final/config.yaml" 5
    find_prepared_tests
    for index in "${prepared[@]}"; do
        need_audio "${tests[index]}"
    done
    names=$(show_sets --model "${exp}/final")
    eval "${names}"
    for index in "${prepared[@]}"; do
        results=${exp}/results/${test_names[index]}
        scale=${test_scales[index]}
        renew "${results}" # removes the scores of an older prediction, too
        "${cmd[@]}" "${asks[@]}" --num-threads "${num_threads}" "${results}/log/predict.log" \
            distilmos predict "${tests[index]#*=}" --model "${exp}/final" --out "${results}/utt2mos" \
            ${scale:+--corpus "${scale}"}
        [ "${references}" = true ] || continue
        scores=${dumpdir}/published/${test_names[index]}
        renew "${scores}" "${tests[index]#*=}"
        for name in "${published_models[@]}"; do
            "${cmd[@]}" "${asks[@]}" --gpu 0 --num-threads "${num_threads}" "${scores}/log/${name}.log" \
                distilmos predict-published --model "${name}" --data "${tests[index]#*=}" --out "${scores}/${name}"
        done
    done
    end
fi

if begin 7; then
    find_prepared_tests
    reference_args=()
    [ ! -e "${train_raw}/wav.scp" ] || reference_args+=(--train "${train_raw}")
    for index in "${prepared[@]}"; do
        results=${exp}/results/${test_names[index]}
        need "${results}/utt2mos" 6
        [ "${references}" = false ] || need "${dumpdir}/published/${test_names[index]}/${published_models[-1]}" 6
        "${cmd[@]}" "${asks[@]}" "${results}/log/score.log" \
            distilmos score --data "${tests[index]#*=}" --results "${results}"
        reference_args+=(--test "${tests[index]#*=}" "${results}")
    done
    [ "${references}" = false ] || reference_args+=(--published "${dumpdir}/published")
    if [[ ${model} != spectral && -e ${train_raw}/wav.scp ]]; then
        find_train_pooled
        if [ -e "${train_pooled}/pooled.scp" ]; then
            reference_args+=(--train-pooled "${train_pooled}" --pooled "${pooled}")
        else
            echo "no ridge regression beside the scores: ${train_pooled}/pooled.scp does not exist; stage 4 writes it"
        fi
    fi
    "${cmd[@]}" "${asks[@]}" --num-threads "${num_threads}" "${exp}/log/references.log" \
        distilmos references "${reference_args[@]}"
    if [[ ${analyze} == true && ${model} == spectral ]]; then
        echo "stage 7 analyses no layers: ${conf} has model: spectral, which does not use its encoder"
    elif [ "${analyze}" = true ]; then
        need_audio "${dev}"
        analyze_args=(--data "${dev_raw}")
        for set in "${tests[@]}"; do
            ! is_own "${set}" || analyze_args+=(--data "${set#*=}")
        done
        # The clusters of another teacher do not measure what this encoder has forgotten.
        if [[ ${teacher} == "${ssl_model}" && -e ${kmeans}/quality.json ]]; then
            analyze_args+=(--kmeans "${kmeans}")
        fi
        ask_for 7 6 # the encoder processes recordings, as in stage 6
        "${cmd[@]}" "${asks[@]}" --num-threads "${num_threads}" "${exp}/log/analyze.log" \
            distilmos analyze "${exp}" "${analyze_args[@]}"
        ask_for 7
    fi
    report_args=("${test_names[@]/#/--set=}")
    [ "${needs_tokens}" = false ] || report_args+=(--kmeans "${kmeans}")
    [ -z "${published}" ] || report_args+=(--published "${published}")
    "${cmd[@]}" "${asks[@]}" "${exp}/log/report.log" distilmos report "${exp}" "${report_args[@]}"
    end "${exp}/RESULTS.md" "${exp}/report.html"
fi

if begin 8; then
    need "${exp}/final/config.yaml" 5
    "${cmd[@]}" "${asks[@]}" "${exp}/log/export.log" distilmos export "${exp}" --onnx --out "${exp}/model"
    end "${exp}/model"
fi
