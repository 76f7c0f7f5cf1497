#!/usr/bin/env bash
# The embedded encoder: a small HuBERT, pretrained with fairseq on plain speech, in two iterations.
set -euo pipefail
cd "$(dirname "$0")"
. ../TEMPLATE/options.sh
. ../TEMPLATE/stages.sh

# Options
stage=0              # first stage
stop_stage=6         # last stage
nj=2                 # parallel jobs of stages 1, 2 and 4, each with one CPU thread
num_threads=2        # CPU threads of pretraining
ngpu=0               # GPUs of pretraining; 0 uses the CPU
resources=()         # [STAGE:]OPTIONS, resources of jobs, as "3:--mem 32G --time 48:00:00"; several times
datadir=data         # data directories
dumpdir=dump         # audio, features and labels
expdir=exp           # models
conf=pretrain        # configuration of fairseq, conf/<this>.yaml
first_clusters=100   # k-means clusters, the labels of the first iteration; 100 as in HuBERT
second_clusters=100  # k-means clusters of the second iteration
max_frames=100000    # frames sampled for k-means
layer=4              # layer of the first iteration whose clusters are labels of the second
first_updates=6500   # updates of the first iteration
second_updates=9000  # updates of the second iteration, which starts from the weights of the first
fairseq_opts=()      # key=value, replaces a setting of the configuration, as "optimization.lr=[0.001]"; several times
seed=1               # seed of the sampled frames, of k-means, of degraded copies and of pretraining
# End of options

titles=(
    "recordings to data directories"
    "audio, checked and packed"
    "labels: k-means of MFCC"
    "pretraining, first iteration"
    "degraded copies, and labels: k-means of a middle layer"
    "pretraining, second iteration"
    "the encoder in the package's format, and RESULTS.md"
)

skips() { return 1; }

asks_of() {
    case $1 in
        3 | 5) asks=(--mem 16G --time 48:00:00 --gpu "${ngpu}" --num-threads "${num_threads}") ;;
        *) asks=(--mem 4G --time 8:00:00) ;;
    esac
}

# cluster NAME SSL CLUSTERS: learns k-means of every layer of SSL on the training set, exp/kmeans_NAME, and writes the
# cluster of every frame of both sets to dump/tokens_NAME.
cluster() {
    local name=$1 ssl=$2 set feats=${dumpdir}/feats_$1
    need "${dumpdir}/raw/valid/wav.scp" 1
    renew "${feats}" "${dumpdir}/raw/train" "${ssl}" -- "${nj}" "${max_frames}" "${seed}"
    share "${feats}" dump_feats distilmos dump-feats --ssl "${ssl}" --data "${dumpdir}/raw/train" --out "${feats}" \
        --max-frames "${max_frames}" --seed "${seed}"
    learn_kmeans "${feats}" "${expdir}/kmeans_${name}" "$3" "${seed}"
    for set in train valid; do
        find_tokens "${name}" "${ssl}" "${dumpdir}/raw/${set}" "${set}"
    done
}

# find_tokens NAME SSL DATA SET: writes the cluster (exp/kmeans_NAME) of every frame of DATA to dump/tokens_NAME/SET.
find_tokens() {
    local tokens=${dumpdir}/tokens_$1/$4
    renew "${tokens}" "${expdir}/kmeans_$1" "$3" "$2" -- "${nj}"
    share "${tokens}" dump_tokens distilmos dump-tokens --ssl "$2" --kmeans "${expdir}/kmeans_$1" --data "$3" --out "${tokens}"
}

# pretrain NAME UPDATES OPTION...: pretrains exp/NAME on dump/labels_NAME; continues from its last checkpoint.
pretrain() {
    local labels exp cpu=true
    # Absolute paths, because fairseq changes its working directory.
    labels=$(realpath -m "${dumpdir}/labels_$1") exp=$(realpath -m "${expdir}/$1")
    [ "${ngpu}" = 0 ] || cpu=false
    need "${labels}/valid.tsv" $((running - 1))
    if [ "${labels}/valid.tsv" -nt "${exp}/checkpoint_last.pt" ] && [ -e "${exp}/checkpoint_last.pt" ]; then
        refuse "${exp} was trained on older labels than ${labels}: remove it, or give another --expdir"
    fi
    # fairseq's checkpoints are pickles, which torch refuses by default; these are our own. The MALLOC variables make
    # glibc keep freed memory: returning it to the system each time costs a third of the training time.
    "${cmd[@]}" "${asks[@]}" "${exp}/log/pretrain.log" \
        env TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1000000000000 \
        distilmos python local/pretrain.py --config-dir "${PWD}/conf" --config-name "${conf}" "hydra.run.dir=${exp}/log" \
        "task.data=${labels}" "task.label_dir=${labels}" "checkpoint.save_dir=${exp}" "common.cpu=${cpu}" \
        "common.seed=${seed}" "optimization.max_update=$2" "distributed_training.distributed_world_size=$((ngpu > 1 ? ngpu : 1))" \
        "${@:3}" "${fairseq_opts[@]}"
}

take_stage_options "$@"
whole_numbers 0 ngpu seed
whole_numbers 1 num_threads first_clusters second_clusters max_frames layer first_updates second_updates
. ./path.sh
. ./cmd.sh

if begin 0; then
    local/data.sh --datadir "${datadir}" "${data_opts[@]}"
    for set in train valid; do
        validate "${datadir}/${set}"
    done
    end
fi

if begin 1; then
    for set in train valid; do
        need "${datadir}/${set}/wav.scp" 0
        pack_audio "${datadir}/${set}" "${dumpdir}/raw/${set}"
    done
    end
fi

# The labels are `sound`, clusters of MFCC, and in the second iteration also `content`, clusters of a layer.
if begin 2; then
    rm -rf "${dumpdir}/labels_first"
    cluster first mfcc "${first_clusters}"
    for set in train valid; do
        distilmos python local/write_lists.py --set "${set}" --data "${dumpdir}/raw/${set}" \
            --labels sound 1 "${dumpdir}/tokens_first/${set}" --out "${dumpdir}/labels_first"
    done
    end
fi

if begin 3; then
    # A new first iteration makes the labels of the second obsolete.
    [ -e "${expdir}/first/checkpoint_last.pt" ] || rm -rf "${dumpdir}/labels_second"
    pretrain first "${first_updates}" "task.labels=[sound]"
    end "${expdir}/first"
fi

if begin 4; then
    need "${expdir}/first/checkpoint_last.pt" 3
    need "${expdir}/kmeans_first/quality.json" 2
    rm -rf "${dumpdir}/labels_second"
    cluster second "${expdir}/first/checkpoint_last.pt" "${second_clusters}"
    # A degraded copy has its own `sound`, and the `content` of the recording.
    for set in train valid; do
        renew "${dumpdir}/raw/${set}_degraded" "${dumpdir}/raw/${set}" local/degrade.py -- "${nj}" "${seed}"
        share "${dumpdir}/raw/${set}_degraded" degrade distilmos python local/degrade.py --data "${dumpdir}/raw/${set}" \
            --out "${dumpdir}/raw/${set}_degraded" --seed "${seed}"
        find_tokens first mfcc "${dumpdir}/raw/${set}_degraded" "${set}_degraded"
        distilmos python local/write_lists.py --set "${set}" --data "${dumpdir}/raw/${set}" "${dumpdir}/raw/${set}_degraded" \
            --labels sound 1 "${dumpdir}/tokens_first/${set}" "${dumpdir}/tokens_first/${set}_degraded" \
            --labels content "${layer}" "${dumpdir}/tokens_second/${set}" "${dumpdir}/tokens_second/${set}" \
            --out "${dumpdir}/labels_second"
    done
    end
fi

if begin 5; then
    need "${expdir}/first/checkpoint_last.pt" 3
    need "${dumpdir}/labels_second/valid.tsv" 4
    start=$(realpath -m "${expdir}/second/start.pt")
    if [ ! -e "${expdir}/second/checkpoint_last.pt" ]; then
        distilmos python local/start.py --checkpoint "${expdir}/first/checkpoint_last.pt" --seed "${seed}" --out "${start}" \
            --dictionaries "${dumpdir}"/labels_second/dict.{sound,content}.txt
    fi
    pretrain second "${second_updates}" "task.labels=[sound,content]" "checkpoint.finetune_from_model=${start}"
    end "${expdir}/second"
fi

if begin 6; then
    need "${expdir}/second/checkpoint_last.pt" 5
    need "${dumpdir}/labels_first/valid.tsv" 2
    distilmos python local/finish.py --expdir "${expdir}" --dumpdir "${dumpdir}" --out "${expdir}/hubert_tiny.safetensors" \
        --page "${expdir}/RESULTS.md"
    end "${expdir}/hubert_tiny.safetensors" "${expdir}/RESULTS.md"
fi
