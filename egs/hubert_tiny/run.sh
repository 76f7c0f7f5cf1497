#!/usr/bin/env bash
# The embedded encoder: pretrains a small HuBERT on plain speech with fairseq, in two iterations.
set -euo pipefail
cd "$(dirname "$0")"
. ../TEMPLATE/options.sh
. ../TEMPLATE/stages.sh

# Options
stage=0              # first stage
stop_stage=6         # last stage
nj=2                 # parallel jobs of stages 1, 2 and 4, each with one CPU thread
num_threads=2        # CPU threads of pretraining
ngpu=0               # GPUs of pretraining; 0 is the CPU
resources=()         # [STAGE:]OPTIONS, what jobs ask a scheduler for, as "3:--mem 32G --time 48:00:00"; several times
dumpdir=dump         # where audio, features and labels go
expdir=exp           # where models go
conf=pretrain        # configuration of fairseq, conf/<this>.yaml
first_clusters=100   # labels of the first iteration: k-means clusters, as HuBERT had
second_clusters=200  # those of the second
max_frames=100000    # frames sampled for k-means
layer=4              # of the first iteration, which gives the labels of the second
first_updates=8000   # updates of the first iteration
second_updates=16000 # updates of the second one, which goes on from the weights of the first
fairseq_opts=()      # key=value in place of what the configuration says, as "optimization.lr=[0.001]"; several times
seed=1               # of the frames sampled, of k-means and of pretraining
# End of options

titles=(
    "recordings to data directories"
    "audio, checked and packed"
    "labels: k-means of MFCC"
    "pretraining, first iteration"
    "labels: k-means of a middle layer"
    "pretraining, second iteration"
    "the encoder in the package's form, and RESULTS.md"
)

skips() { return 1; }

asks_of() {
    case $1 in
        3 | 5) asks=(--mem 16G --time 48:00:00 --gpu "${ngpu}" --num-threads "${num_threads}") ;;
        *) asks=(--mem 4G --time 8:00:00) ;;
    esac
}

# make_labels NAME SSL LAYER CLUSTERS: writes dump/labels_NAME, fairseq's lists of recordings with the cluster of every frame.
make_labels() {
    local name=$1 ssl=$2 set
    local feats=${dumpdir}/feats_${name} kmeans=${expdir}/kmeans_${name} tokens=${dumpdir}/tokens_${name}
    need "${dumpdir}/raw/valid/wav.scp" 1
    renew "${feats}" "${dumpdir}/raw/train" "${ssl}" -- "${nj}" "${max_frames}" "${seed}"
    share "${feats}" dump_feats distilmos dump-feats --ssl "${ssl}" --data "${dumpdir}/raw/train" --out "${feats}" \
        --max-frames "${max_frames}" --seed "${seed}"
    learn_kmeans "${feats}" "${kmeans}" "$4" "${seed}"
    for set in train valid; do
        renew "${tokens}/${set}" "${kmeans}" "${dumpdir}/raw/${set}" "${ssl}" -- "${nj}"
        share "${tokens}/${set}" dump_tokens distilmos dump-tokens --ssl "${ssl}" --kmeans "${kmeans}" \
            --data "${dumpdir}/raw/${set}" --out "${tokens}/${set}"
        python3 local/write_lists.py --raw "${dumpdir}/raw/${set}" --tokens "${tokens}/${set}" --layer "$3" \
            --out "${dumpdir}/labels_${name}"
    done
}

# pretrain NAME UPDATES OPTION...: pretrains exp/NAME on dump/labels_NAME; goes on from its last checkpoint.
pretrain() {
    local labels exp cpu=true
    # fairseq changes its directory.
    labels=$(realpath -m "${dumpdir}/labels_$1") exp=$(realpath -m "${expdir}/$1")
    [ "${ngpu}" = 0 ] || cpu=false
    need "${labels}/valid.km" $((running - 1))
    # fairseq's checkpoints are pickles, which torch reads only when told to; these are its own. Memory that training
    # frees is kept (glibc), for asking the system for it again and again takes a third of the time.
    "${cmd[@]}" "${asks[@]}" "${exp}/log/pretrain.log" \
        env TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1000000000000 \
        fairseq-hydra-train --config-dir "${PWD}/conf" --config-name "${conf}" "hydra.run.dir=${exp}/log" \
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
    local/data.sh "${data_opts[@]}"
    for set in train valid; do
        validate "data/${set}"
    done
    end
fi

if begin 1; then
    for set in train valid; do
        need "data/${set}/wav.scp" 0
        pack_audio "data/${set}" "${dumpdir}/raw/${set}"
    done
    end
fi

if begin 2; then
    make_labels first mfcc 1 "${first_clusters}"
    end
fi

if begin 3; then
    pretrain first "${first_updates}"
    end "${expdir}/first"
fi

if begin 4; then
    need "${expdir}/first/checkpoint_last.pt" 3
    make_labels second "${expdir}/first/checkpoint_last.pt" "${layer}" "${second_clusters}"
    end
fi

if begin 5; then
    pretrain second "${second_updates}" "checkpoint.finetune_from_model=$(realpath "${expdir}/first/checkpoint_last.pt")"
    end "${expdir}/second"
fi

if begin 6; then
    need "${expdir}/second/checkpoint_last.pt" 5
    python3 local/finish.py --expdir "${expdir}" --dumpdir "${dumpdir}" --out "${expdir}/hubert_tiny.safetensors"
    end "${expdir}/hubert_tiny.safetensors" RESULTS.md
fi
