#!/usr/bin/env bash
# TCD-VoIP (N. Harte, E. Gillen, A. Hines, QoMEX 2015): degradations of Voice over IP, rated by 24 listeners.
set -euo pipefail
cd "$(dirname "$0")"
. ../TEMPLATE/options.sh

# Options
db_root=downloads/tcdvoip  # the release: the workbook, and "Test Set" with the audio
split=conditions           # conditions (no condition in two sets), or leave_type_out (one type only in test)
held_out=                  # with leave_type_out: echo, chop, clip, compspkr or noise
dev_fold=1                 # the fold that is dev: 1 to 4, with leave_type_out 1 to 5; test stays the same
# End of options
take_options run.sh "$@"

data_opts=(--db_root "${db_root}" --split "${split}" --dev_fold "${dev_fold}")
case ${split}:${held_out} in
    conditions:) protocol= ;;
    leave_type_out:?*)
        protocol=/leave_${held_out}_out # directories of its own
        data_opts+=(--held_out "${held_out}")
        ;;
    *) usage_error run.sh "--split leave_type_out needs --held_out, and no other split accepts it" ;;
esac
[ "${dev_fold}" = 1 ] || protocol+=/dev_fold_${dev_fold}

../TEMPLATE/distilmos.sh \
    --datadir "data${protocol}" --dumpdir "dump${protocol}" --expdir "exp${protocol}" \
    "${rest[@]}" -- "${data_opts[@]}"
