"""The rating lists of corpora: delimited text, read with the file and line of everything that is wrong."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distilmos.data.schema import MOS_RANGE
from distilmos.data.tables import finite_number, read_lines
from distilmos.errors import InputError

MEAN_TOLERANCE = 0.005  # what rounding a mean to two decimals changes at most


@dataclass(frozen=True)
class Row:
    """One line of a list: its values by column, without white space around them."""

    path: Path
    line: int
    values: dict[str, str]

    @property
    def where(self) -> str:
        """`file:line`, the start of a fault."""
        return f"{self.path}:{self.line}"

    def __getitem__(self, column: str) -> str:
        """Return the value of a column."""
        return self.values[column]


def read_rows(
    path: str | Path,
    columns: Sequence[str],
    faults: list[str],
    *,
    header: bool,
    delimiter: str = ",",
    may_be_empty: bool = False,
) -> list[Row]:
    """Read a list; a byte order mark, CRLF and blank lines are accepted.

    Args:
        path: the file.
        columns: with a header, those that must be there, in any order and with others between them; without, all of
            them in their order.
        faults: gets a line for each line that is not as `columns` say; such lines are left out. A file that is missing,
            not UTF-8 or whose header lacks a column is a fault, too.
        header: whether the first line names the columns.
        delimiter: between values; values may be quoted, but none goes over several lines.
        may_be_empty: accepts empty values; the caller sorts out with `filled` what it uses.

    Returns:
        the good lines; none of a list that cannot be read.
    """
    path = Path(path)
    try:
        lines = read_lines(path)
    except InputError as error:
        faults.append(str(error))
        return []
    names: list[str] = [] if header else list(columns)
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            # Line by line: a stray quote must not swallow the lines behind it.
            values = [value.strip() for value in next(csv.reader([line], delimiter=delimiter, strict=True), [])]
        except csv.Error as error:
            faults.append(f"{path}:{number}: not a line of values separated by {delimiter!r}: {error}")
            continue
        if not any(values):
            continue
        if not names:
            names = values
            if missing := [column for column in columns if column not in names]:
                header_is = f"the header {line!r} (separated by {delimiter!r})"
                faults.append(f"{path}:{number}: no column {', '.join(missing)} in {header_is}")
                return []
        elif len(values) != len(names):
            wanted = f"{len(names)} ({', '.join(names)})"
            faults.append(f"{path}:{number}: {len(values)} values instead of {wanted}")
        else:
            rows.append(Row(path, number, dict(zip(names, values, strict=True))))
    if not names:
        faults.append(f"{path}: empty")
    return rows if may_be_empty else filled(rows, columns, faults)


def filled(rows: Iterable[Row], columns: Sequence[str], faults: list[str]) -> list[Row]:
    """Return the lines that have a value in all of `columns`; `faults` gets a line for each other one."""
    good = []
    for row in rows:
        if empty := [column for column in columns if not row[column]]:
            faults.append(f"{row.where}: no {', '.join(empty)}")
        else:
            good.append(row)
    return good


def score(row: Row, column: str, faults: list[str], *, whole: bool = False) -> float | None:
    """Return the score in a column; None, and a line in `faults`, if it is none in 1..5.

    Args:
        row: a line of a list.
        column: its name.
        faults: gets the fault.
        whole: whether it must be a whole number, as a single rating on the ACR scale is.
    """
    low, high = MOS_RANGE
    try:
        value = finite_number(row[column])
    except InputError:
        value = low - 1
    if not low <= value <= high or (whole and value != int(value)):
        faults.append(f"{row.where}: {column} {row[column]!r} is not a {'whole ' if whole else ''}number in 1..5")
        return None
    return value


@dataclass
class RatedItem:
    """What a list of single ratings says of one recording.

    Attributes:
        name: what the list calls the recording.
        system: of the recording.
        row: where it comes first.
        ratings: (listener, score) pairs in the order of the list.
    """

    name: str
    system: str
    row: Row
    ratings: list[tuple[str, float]] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Mean of the ratings, of which there is at least one."""
        return sum(value for _, value in self.ratings) / len(self.ratings)


def compare_mean(row: Row, mos: float, item: RatedItem, differing: list[str]) -> None:
    """Add a line to `differing` if the mean in `row` of a list is not that of the ratings, where there are any."""
    if item.ratings and abs(item.mean - mos) > MEAN_TOLERANCE:
        differing.append(f"{row.where}: {item.name}: mean {mos}, that of its ratings is {item.mean:.4f}")


@dataclass(frozen=True)
class RatingColumns:
    """Which columns of a list hold what; ids are strings, leading zeros count."""

    name: str
    system: str
    score: str
    listener: str


def gather_ratings(
    rows: Iterable[Row], columns: RatingColumns, faults: list[str], repeated: list[str]
) -> dict[str, RatedItem]:
    """Gather a list with one line for each rating.

    Args:
        rows: its lines.
        columns: what they hold.
        faults: gets a line for each score that is not one of 1, 2, 3, 4 and 5, and each change of a recording's system.
        repeated: gets a line for each further rating of a recording by the same listener; only the first one counts.

    Returns:
        name of the recording -> what was found, in the order of the list. One whose ratings are all bad is there, too.
    """
    items: dict[str, RatedItem] = {}
    seen: dict[tuple[str, str], int] = {}
    for row in rows:
        name, system, listener = row[columns.name], row[columns.system], row[columns.listener]
        item = items.setdefault(name, RatedItem(name, system, row))
        if system != item.system:
            faults.append(f"{row.where}: {name} is of system {system}, in line {item.row.line} of {item.system}")
        first = seen.setdefault((name, listener), row.line)
        if first != row.line:
            repeated.append(f"{row.where}: {listener} has rated {name} in line {first} already, and that counts")
            continue
        value = score(row, columns.score, faults, whole=True)
        if value is not None:
            item.ratings.append((listener, value))
    return items
