#!/usr/bin/env bash
# new_recipe.sh NAME: creates the recipe egs/NAME; only the reading of the corpus, local/prepare.py, is left to write.
set -euo pipefail
cd "$(dirname "$0")/.."

name=${1-}
if [ $# -ne 1 ] || ! [[ ${name} =~ ^[a-z][a-z0-9_]*$ ]]; then
    echo "usage: new_recipe.sh NAME (lower-case letters, digits and underscores)" >&2
    exit 2
fi
if [ -e "${name}" ]; then
    echo "new_recipe.sh: error: egs/${name} exists already" >&2
    exit 2
fi

new=$(mktemp -d ".${name}.XXXXXX")
trap 'rm -rf "${new}"' EXIT
mkdir "${new}/local" "${new}/conf"
ln -s ../TEMPLATE/path.sh ../TEMPLATE/cmd.sh "${new}"

cat >"${new}/run.sh" <<END
#!/usr/bin/env bash
# ${name}: TODO: one sentence about the corpus.
set -euo pipefail
cd "\$(dirname "\$0")"

../TEMPLATE/distilmos.sh --test_sets "test" "\$@"
END

cat >"${new}/local/data.sh" <<END
#!/usr/bin/env bash
# Stage 0: reads the corpus and writes data directories. Run this in the recipe's directory.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh
# shellcheck source-path=SCRIPTDIR/..
. ../TEMPLATE/options.sh

# Options
datadir=data                # data directories to write
db_root=downloads/${name}   # the corpus
allow_partial=false         # true prepares an incomplete corpus, and lists the missing parts
# End of options
take_all_options "\$0" "\$@"

exec distilmos python local/prepare.py --db_root "\${db_root}" --datadir "\${datadir}" --allow_partial "\${allow_partial}"
END

cat >"${new}/local/prepare.py" <<END
"""Prepare the data directories train, dev and test of ${name}."""

from __future__ import annotations

from pathlib import Path

from distilmos.data.datadir import Utterance
from distilmos.data.lists import RatingColumns, gather_ratings, read_rows
from distilmos.data.prepare import Preparation, corpus_parser
from distilmos.data.schema import Scale
from distilmos.errors import InputError, run_main

# TODO: the directory of the audio, the list of each set, and its columns. egs/nisqa/local/prepare.py reads lists of
# means instead of ratings.
AUDIO = "wav"
LISTS = {"train": "train.csv", "dev": "dev.csv", "test": "test.csv"}
COLUMNS = RatingColumns(name="file", system="system", score="score", listener="listener")
SCALE = Scale(1, 5, "MOS")


def main() -> None:
    """Read the command line and write the data directories."""
    args = corpus_parser(__doc__, "the corpus").parse_args()

    # TODO: remove this and the next line after you have adapted the lines above.
    raise InputError(f"{__file__}: not written yet: set the names and columns of the corpus' lists there")

    preparation = Preparation("${name}", args.datadir, allow_partial=args.allow_partial)
    for name, file in LISTS.items():
        columns = (COLUMNS.name, COLUMNS.system, COLUMNS.score, COLUMNS.listener)
        rows = read_rows(args.db_root / file, columns, preparation.faults, header=True)
        preparation.begin(name)
        for item in gather_ratings(rows, COLUMNS, preparation.faults, preparation.gaps, SCALE).values():
            audio = args.db_root / AUDIO / item.name
            utterance = Utterance(Path(item.name).stem, audio, item.system, ratings=tuple(item.ratings))
            preparation.add(name, utterance, item.row.where)
    preparation.unlisted((args.db_root / AUDIO).glob("*.wav"))
    preparation.write(scales=[SCALE])


if __name__ == "__main__":
    run_main(main)
END

cat >"${new}/conf/distilmos.yaml" <<END
# Settings of ${name} that differ from the defaults, which conf/distilmos.yaml at the top of the repository lists.
model: distilmos
END
cat >"${new}/conf/sslmos.yaml" <<END
# The baseline: plain fine-tuning with the settings of distilmos.yaml.
base: distilmos.yaml
model: sslmos
token_weight: 0
END
chmod 755 "${new}" "${new}/run.sh" "${new}/local/data.sh"
mv -T "${new}" "${name}"
echo "egs/${name}: now adapt the lines marked TODO:"
grep -rn TODO "${name}"
