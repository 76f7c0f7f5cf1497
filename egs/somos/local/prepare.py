"""Prepare the data directories train, dev and test of SOMOS (split1), with every listener's ratings.

Reads DB_ROOT/training_files/split1/VARIANT and DB_ROOT/audios, the unpacked somos.zip with its audios.zip.
"""

from __future__ import annotations

from pathlib import Path

from distilmos.data.datadir import Utterance
from distilmos.data.lists import (
    RatedItem,
    RatingColumns,
    compare_mean,
    gather_ratings,
    number_repeats,
    read_rows,
    score,
)
from distilmos.data.prepare import Preparation, corpus_parser
from distilmos.errors import InputError, run_main

# The dev split is called VALID.
RATING_LISTS = {"train": "TRAINSET", "dev": "VALIDSET", "test": "TESTSET"}
MEAN_LISTS = {"train": "train_mos_list.txt", "dev": "valid_mos_list.txt", "test": "test_mos_list.txt"}
UTTERANCES = {"train": 14100, "dev": 3000, "test": 3000}
COLUMNS = RatingColumns(name="utteranceId", system="systemId", score="choice", listener="listenerId")
NATURAL = "000"  # natural speech


def main() -> None:
    """Read the command line and write the data directories."""
    parser = corpus_parser(__doc__, "unpacked somos.zip")
    parser.add_argument(
        "--variant",
        choices=("full", "clean"),
        default="clean",
        help="all ratings, or only those of listeners who passed the checks (default: %(default)s)",
    )
    args = parser.parse_args()

    lists = args.db_root / "training_files" / "split1" / args.variant
    for needed in (lists, args.db_root / "audios"):
        if not needed.is_dir():
            raise InputError(f"{needed}: no such directory: {args.db_root} lacks an unpacked somos.zip or audios.zip")
    preparation = Preparation(f"SOMOS ({args.variant})", args.datadir, allow_partial=args.allow_partial)
    for name in RATING_LISTS:
        add_set(preparation, name, lists, args.db_root / "audios")
    preparation.unlisted((args.db_root / "audios").glob("*.wav"))
    preparation.write()


def add_set(preparation: Preparation, name: str, lists: Path, audios: Path) -> None:
    """Read one of train, dev and test."""
    faults = preparation.faults
    columns = (COLUMNS.system, COLUMNS.name, COLUMNS.score, COLUMNS.listener)
    rows = read_rows(lists / RATING_LISTS[name], columns, faults, header=True)
    items = gather_ratings(number_repeats(rows, COLUMNS, NATURAL), COLUMNS, faults, preparation.gaps)
    preparation.expect(f"{name}: utterances", len(items), UTTERANCES[name])
    check_means(preparation, lists / MEAN_LISTS[name], items)
    preparation.begin(name)
    for item in items.values():
        sentence, _, system = Path(item.name).stem.rpartition("_")
        if system != item.system:
            faults.append(f"{item.row.where}: {item.name} is listed with system {item.system}")
        utterance = Utterance(
            id=Path(item.name).stem,
            audio=audios / item.name,
            system=item.system,
            ratings=tuple(item.ratings),
            sentence=sentence,
            group="natural" if item.system == NATURAL else "synthetic",
        )
        preparation.add(name, utterance, item.row.where)


def check_means(preparation: Preparation, path: Path, items: dict[str, RatedItem]) -> None:
    """Note where the list of means, if it exists, disagrees with the ratings."""
    if not path.exists():
        preparation.remarks.append(f"{path}: no such file; used the means of the ratings")
        return
    for row in read_rows(path, ("utteranceId", "mean"), preparation.faults, header=True):
        name = row["utteranceId"] if row["utteranceId"].endswith(".wav") else f"{row['utteranceId']}.wav"
        mos = score(row, "mean", preparation.faults)
        item = items.get(name)
        if item is None:
            preparation.gaps.append(f"{row.where}: {name} has a mean, but no rating")
        elif mos is not None:
            compare_mean(row, mos, item, preparation.gaps)


if __name__ == "__main__":
    run_main(main)
