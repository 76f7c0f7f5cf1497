#!/usr/bin/env bash
# speechocean762: non-native English, read by adults and children; fluency, prosody or accuracy, rated by five experts.
set -euo pipefail
cd "$(dirname "$0")"
. ../TEMPLATE/options.sh

# Options
aspect=fluency      # what to predict: fluency, prosodic or accuracy
train_group=all     # speakers to train on: all, adult or child
train_utterances=0  # how many utterances to train on, drawn at random; 0: all
# End of options
take_options run.sh "$@"

case ${aspect} in
    fluency) own= ;;
    prosodic | accuracy) own=/${aspect} ;; # directories of its own
    *) usage_error run.sh "--aspect must be fluency, prosodic or accuracy, not '${aspect}'" ;;
esac
case ${train_group} in
    all | adult | child) ;;
    *) usage_error run.sh "--train_group must be all, adult or child, not '${train_group}'" ;;
esac
[[ ${train_utterances} =~ ^[0-9]+$ ]] || usage_error run.sh "--train_utterances must be a number, not '${train_utterances}'"
[ "${train_group}" = all ] || own+=/${train_group}
[ "${train_utterances}" = 0 ] || own+=/${train_utterances}

../TEMPLATE/distilmos.sh \
    --datadir "data${own}" --dumpdir "dump${own}" --expdir "exp${own}" \
    "${rest[@]}" -- --aspect "${aspect}" --train_group "${train_group}" --train_utterances "${train_utterances}"
