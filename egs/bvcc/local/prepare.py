"""Prepare the data directories train, dev and test of BVCC (VoiceMOS Challenge 2022, main track).

Reads DB_ROOT/DATA (DB_ROOT may also be the directory that contains `main` or `phase1-main`). Every rating of every
listener is kept. DATADIR/listeners.tsv has age, gender and hearing impairment of each listener.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from statistics import fmean

from vmc22 import COLUMNS, RATING_LISTS, file_name, find_root, missing_wavs, system_of

from distilmos.data.datadir import Utterance
from distilmos.data.lists import RatedItem, RatingColumns, Row, compare_mean, gather_ratings, read_rows, score
from distilmos.data.prepare import Preparation, corpus_parser
from distilmos.errors import run_main
from distilmos.files import is_file, write_text

MEAN_LISTS = {"train": "train_mos_list.txt", "dev": "val_mos_list.txt", "test": "test_mos_list.txt"}
TEST_NAMES = "test.scp"  # some packages have only the names of the test set
UTTERANCES = {"train": 4974, "dev": 1066, "test": 1066}
SYSTEMS = {"train": 175, "dev": 181, "test": 187}
RATINGS = 8
SILENT = "sys4bafa-uttc2e86f6.wav"
GENDERS = ("Male", "Female", "Others")
SCRIPTS = """:
  01_get.py           downloads the data of the challenges
  02_gather.py        collects the wavs of BVCC under their names
  03_preprocess.py    converts them to 16 kHz mono (sox) and to one level (sv56, which install_sv56.sh builds)"""


def main() -> None:
    """Read the command line and write the data directories."""
    parser = corpus_parser(__doc__, "unpacked main.tar.gz")
    parser.add_argument("--silent", choices=("drop", "keep"), default="drop", help=f"drop or keep {SILENT}")
    parser.add_argument(
        "--system_truth",
        choices=("split", "corpus"),
        default="split",
        help="true MOS of a system: mean of its utterances in the set, or mydata_system.csv (default: %(default)s)",
    )
    args = parser.parse_args()

    root = find_root(args.db_root, "main")
    corpus = BVCC(root, Preparation("BVCC", args.datadir, allow_partial=args.allow_partial))
    for name in RATING_LISTS:
        corpus.add_set(name, drop_silent=args.silent == "drop")
    corpus.finish(args.system_truth == "corpus")


class BVCC:
    """Reads the corpus."""

    def __init__(self, root: Path, preparation: Preparation) -> None:
        """Read from `root`, the directory that contains DATA."""
        self.root = root
        self.preparation = preparation
        self.listeners: dict[str, tuple[str, ...]] = {}
        self.missing: list[RatedItem] = []

    def add_set(self, name: str, drop_silent: bool) -> None:
        """Read one of train, dev and test."""
        preparation = self.preparation
        items = self._rated(name)
        preparation.expect(f"{name}: utterances", len(items), UTTERANCES[name])
        preparation.expect(f"{name}: systems", len({item.system for item in items.values()}), SYSTEMS[name])
        preparation.gaps += [
            f"{item.row.where}: {item.name}: {len(item.ratings)} ratings instead of {RATINGS}"
            for item in items.values()
            if item.ratings and len(item.ratings) != RATINGS
        ]
        if drop_silent and SILENT in items:
            del items[SILENT]
            preparation.remarks.append(f"{name}: left out {SILENT}, which is digital silence (--silent keep keeps it)")
            preparation.leave_out(self.root / "DATA" / "wav" / SILENT)
        if items:
            preparation.begin(name)
        for item, mos in self._with_means(name, items):
            audio = self.root / "DATA" / "wav" / item.name
            if not is_file(audio):
                self.missing.append(item)
                continue
            utterance = Utterance(audio.stem, audio, item.system, mos, tuple(item.ratings))
            preparation.add(name, utterance, item.row.where)

    def _rated(self, set_name: str) -> dict[str, RatedItem]:
        """Return the recordings of a set, with ratings if the package has them."""
        faults, gaps, remarks = self.preparation.faults, self.preparation.gaps, self.preparation.remarks
        path = self.root / "DATA" / "sets" / RATING_LISTS[set_name]
        if path.exists() or set_name != "test":
            rows = read_rows(path, COLUMNS, faults, header=False)
            columns = RatingColumns("name", "system", "rating", "listener")
            return gather_ratings(map(self._with_listener, rows), columns, faults, gaps)
        means, names = path.with_name(MEAN_LISTS[set_name]), path.with_name(TEST_NAMES)
        if means.exists():
            remarks.append(f"{set_name}: no {path.name}: used the means of {means.name}, without single ratings")
            rows = read_rows(means, ("name", "mean"), faults, header=False)
        elif names.exists():
            remarks.append(f"{set_name}: no {path.name}, and {names.name} has only names: the set cannot be scored")
            rows = read_rows(names, ("name",), faults, header=False)
        else:
            # The package of the challenge's first phase has no test set.
            gaps.append(f"{path}: no such file, and neither {means.name} nor {names.name}: no test set")
            return {}
        items: dict[str, RatedItem] = {}
        for row in rows:
            name = file_name(row["name"])
            item = items.setdefault(name, RatedItem(name, system_of(name), row))
            if item.row.line != row.line:
                faults.append(f"{row.where}: {name} is also in line {item.row.line}")
        return items

    def _with_listener(self, row: Row) -> Row:
        """Check the ids of a line, note its listener, and return the line with a column for the listener's id."""
        faults = self.preparation.faults
        name = file_name(row["name"])
        if row["system"] != system_of(name):
            faults.append(f"{row.where}: {name} is listed with system {row['system']}")
        fields = row["listener_info"].split("_")
        if len(fields) != 7 or fields[3] not in GENDERS or fields[6] not in ("Yes", "No"):
            faults.append(
                f"{row.where}: {row['listener_info']!r} is not {{}}_<age>_<listener>_<gender>_<...>_<...>_<Yes|No>"
            )
            return Row(row.path, row.line, row.values | {"name": name, "listener": row["listener_info"]})
        _, age, listener, gender, _, _, impaired = fields
        known = self.listeners.setdefault(listener, (age, gender, impaired))
        if known != (age, gender, impaired):
            self.preparation.remarks.append(
                f"{row.where}: listener {listener} is {age} {gender} {impaired}, but was {' '.join(known)} before"
            )
        return Row(row.path, row.line, row.values | {"name": name, "listener": listener})

    def _with_means(self, name: str, items: dict[str, RatedItem]) -> list[tuple[RatedItem, float | None]]:
        """Return each recording with its listed mean, or None if it has ratings; note where the two disagree."""
        preparation = self.preparation
        path = self.root / "DATA" / "sets" / MEAN_LISTS[name]
        if not path.exists():
            return [(item, None) for item in items.values()]
        listed: dict[str, float] = {}
        # If the recordings themselves come from this file, its faults are noted already.
        faults = [] if any(item.row.path == path for item in items.values()) else preparation.faults
        for row in read_rows(path, ("name", "mean"), faults, header=False):
            mos = score(row, "mean", preparation.faults)
            key = file_name(row["name"])
            if mos is None:
                continue
            listed[key] = mos
            item = items.get(key)
            if item is None:
                if key != SILENT:
                    preparation.gaps.append(f"{row.where}: {key} has a mean, but no rating in {RATING_LISTS[name]}")
            else:
                compare_mean(row, mos, item, preparation.gaps)
        return [(item, None if item.ratings else listed.get(item.name)) for item in items.values()]

    def finish(self, corpus_truth: bool) -> None:
        """Report missing recordings; write the data directories and listeners.tsv."""
        preparation = self.preparation
        if self.missing:
            preparation.gaps.insert(0, missing_wavs(self.root, self.missing, SCRIPTS))
        preparation.unlisted((self.root / "DATA" / "wav").glob("*.wav"))
        preparation.write(system_mos=self._system_means() if corpus_truth else None)
        stream = io.StringIO()
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(["listener", "age", "gender", "hearing_impairment"])
        writer.writerows([listener, *facts] for listener, facts in sorted(self.listeners.items()))
        write_text(preparation.datadir / "listeners.tsv", stream.getvalue())

    def _system_means(self) -> dict[str, float]:
        faults = self.preparation.faults
        path = self.root / "DATA" / "mydata_system.csv"
        rows = read_rows(path, ("system_ID", "mean"), faults, header=True)
        listed = {row["system_ID"]: score(row, "mean", faults) for row in rows}
        means = {system: mean for system, mean in listed.items() if mean is not None}
        # The file has the means over train and dev; six systems are only in test.
        scores: dict[str, list[float]] = {}
        for members in self.preparation.sets.values():
            for utterance in members.values():
                mos = utterance.mean_score
                if utterance.system not in means and mos is not None:
                    scores.setdefault(utterance.system, []).append(mos)
        if scores:
            listing = ", ".join(sorted(scores))
            self.preparation.remarks.append(f"{path.name}: no line for {listing}: used the mean of their utterances")
        return means | {system: fmean(values) for system, values in scores.items()}


if __name__ == "__main__":
    run_main(main)
