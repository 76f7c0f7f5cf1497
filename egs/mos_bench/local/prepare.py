"""Prepare test sets of MOS-Bench, each as a data directory.

DB_ROOT has a directory for each corpus, and SHEET's repository, which has the scores of some of them; README.md says
where they come from, and sets.tsv what they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import bc23
import brspeechmos
import singmos
import svcc23
import tmhint_qi
import vmc24_track3
from source import Rated, Source

from distilmos.data.lists import Row, read_rows
from distilmos.data.prepare import Preparation, corpus_parser
from distilmos.errors import InputError, raise_faults, run_main

TABLE = Path(__file__).with_name("sets.tsv")
COLUMNS = ("set", "folder", "utterances", "title")
READERS: dict[str, Callable[[Source], Iterator[Rated]]] = {
    "bc23a": bc23.read_hub,
    "bc23b": bc23.read_spoke,
    "svcc23": svcc23.read,
    "singmos": singmos.read,
    "brspeechmos": brspeechmos.read,
    "tmhint_qi": tmhint_qi.read,
    "tmhint_qi_s": tmhint_qi.read_second,
    "vmc24_track3": vmc24_track3.read,
}


def main() -> None:
    """Read the command line and write the data directories."""
    parser = corpus_parser(__doc__, "directory of the corpora")
    parser.add_argument("--sets", type=str.split, required=True, metavar="NAMES", help=f"of {', '.join(READERS)}")
    args = parser.parse_args()

    table = {row["set"]: row for row in read_table()}
    preparation = Preparation("MOS-Bench", args.datadir, allow_partial=args.allow_partial)
    for name in args.sets:
        if name not in READERS:
            raise InputError(f"--sets: {name} is not one of {', '.join(READERS)}")
        source = Source(args.db_root, table[name]["folder"], preparation)
        if not source.root.is_dir():
            raise InputError(f"{source.root}: no such directory; README.md says where to get {name}")
        preparation.begin(name)
        listed = list(READERS[name](source))
        preparation.expect(f"{name}: utterances", len(listed), int(table[name]["utterances"]))
        for utterance, where in listed:
            preparation.add(name, utterance, where)
    preparation.write()


def read_table() -> list[Row]:
    """Return the lines of sets.tsv, in the order of MOS-Bench."""
    faults: list[str] = []
    rows = read_rows(TABLE, COLUMNS, faults, header=True, delimiter="\t")
    raise_faults(faults, str(TABLE))
    return rows


if __name__ == "__main__":
    run_main(main)
