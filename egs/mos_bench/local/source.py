"""Where a reader finds a corpus of MOS-Bench, and what its lists have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distilmos.data.datadir import Utterance
from distilmos.data.lists import RatedItem, RatingColumns, Row, gather_ratings, number_repeats, read_rows, score
from distilmos.data.prepare import Preparation
from distilmos.errors import InputError

Rated = tuple[Utterance, str]  # an utterance, and `file:line` of the list that names it
SHEET = "https://github.com/unilight/sheet"


@dataclass(frozen=True)
class Source:
    """A corpus on disk.

    Attributes:
        db_root: the directory of all corpora.
        folder: the directory of this one in it, the name of SHEET's recipe.
        preparation: receives faults, gaps and remarks.
    """

    db_root: Path
    folder: str
    preparation: Preparation

    @property
    def root(self) -> Path:
        """The directory of the corpus."""
        return self.db_root / self.folder

    def answers(self, name: str) -> Path:
        """Return a list of scores that SHEET publishes in its repository, not with the audio.

        Raises:
            InputError: if it is missing.
        """
        path = self.db_root / "sheet" / "egs" / self.folder / "answers" / name
        if not path.exists():
            raise InputError(f"{path}: no such file; clone {SHEET} to {self.db_root / 'sheet'}")
        return path

    def means(self, path: Path) -> Iterator[Row]:
        """Yield the lines `name,mean` of a list without a header; `mos` reads the mean."""
        yield from read_rows(path, ("name", "mean"), self.preparation.faults, header=False)

    def mos(self, row: Row, column: str = "mean") -> float | None:
        """Return the mean score of a line, or None and a fault if it is not on the scale."""
        return score(row, column, self.preparation.faults)

    def parts(self, row: Row, pattern: re.Pattern[str], column: str = "name") -> re.Match[str] | None:
        """Return the parts of a name that say more than the list, or None and a fault."""
        match = pattern.fullmatch(row[column])
        if match is None:
            self.preparation.faults.append(f"{row.where}: {row[column]!r} is not a name like {pattern.pattern}")
        return match

    def ratings(self, rows: list[Row], columns: RatingColumns) -> Iterator[RatedItem]:
        """Yield the recordings of a list with one rating in a line; all ratings count, as in SHEET's means."""
        numbered = number_repeats(rows, columns)
        yield from gather_ratings(numbered, columns, self.preparation.faults, self.preparation.gaps).values()


def with_column(row: Row, column: str, value: str) -> Row:
    """Return a line with a further column."""
    return Row(row.path, row.line, row.values | {column: value})
