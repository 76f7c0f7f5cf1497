"""Prepare ood_train, ood_dev and ood_test of BVCC: the out-of-domain track of the VoiceMOS Challenge 2022.

Reads DB_ROOT/DATA (DB_ROOT may also be the directory that contains `ood` or `phase1-ood`). The layout is that of the
main track; the lists name recordings without `.wav`, and a listener is {}_na_LISTENER_na_na_na_TYPE, as the README of
the package says (cited in lhotse/recipes/bvcc.py of github.com/lhotse-speech/lhotse). The unlabelled recordings of
unlabeled_mos_list.txt are not used.
"""

from __future__ import annotations

from collections.abc import Iterator

from vmc22 import COLUMNS, RATING_LISTS, file_name, find_root, missing_wavs, system_of

from distilmos.data.datadir import Utterance
from distilmos.data.lists import RatedItem, RatingColumns, Row, gather_ratings, read_rows
from distilmos.data.prepare import Preparation, corpus_parser
from distilmos.errors import run_main
from distilmos.files import is_file

UTTERANCES = {"train": 136, "dev": 136, "test": 540}
LISTENER_TYPES = ("EE", "EP", "ER")  # speech experts, paid listeners, volunteers
REPORT = "report_ood.txt"  # report.txt is that of the main track
RATINGS = RatingColumns("name", "system", "rating", "listener")


def main() -> None:
    """Read the command line and write the data directories."""
    args = corpus_parser(__doc__, "unpacked ood.tar.gz").parse_args()

    root = find_root(args.db_root, "ood")
    preparation = Preparation(
        "BVCC, out-of-domain track", args.datadir, allow_partial=args.allow_partial, report=REPORT
    )
    missing: list[RatedItem] = []
    for split, list_name in RATING_LISTS.items():
        name = f"ood_{split}"
        rows = read_rows(root / "DATA" / "sets" / list_name, COLUMNS, preparation.faults, header=False)
        items = gather_ratings(with_listeners(rows, preparation.faults), RATINGS, preparation.faults, preparation.gaps)
        preparation.expect(f"{name}: utterances", len(items), UTTERANCES[split])
        preparation.begin(name)
        for item in items.values():
            audio = root / "DATA" / "wav" / item.name
            if is_file(audio):
                utterance = Utterance(audio.stem, audio, item.system, ratings=tuple(item.ratings))
                preparation.add(name, utterance, item.row.where)
            else:
                missing.append(item)
    if missing:
        preparation.gaps.insert(0, missing_wavs(root, missing))
    preparation.write()


def with_listeners(rows: list[Row], faults: list[str]) -> Iterator[Row]:
    """Check the ids of each line, and yield it with the name of the wav and a column for the listener's id."""
    for row in rows:
        name = file_name(row["name"])
        if row["system"] != system_of(name):
            faults.append(f"{row.where}: {name} is listed with system {row['system']}")
        fields = row["listener_info"].split("_")
        if len(fields) != 7 or fields[6] not in LISTENER_TYPES:
            wanted = f"{{}}_na_<listener>_na_na_na_<{'|'.join(LISTENER_TYPES)}>"
            faults.append(f"{row.where}: {row['listener_info']!r} is not {wanted}")
            continue
        yield Row(row.path, row.line, row.values | {"name": name, "listener": fields[2]})


if __name__ == "__main__":
    run_main(main)
