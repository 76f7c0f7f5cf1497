"""Rating lists of corpora: delimited text or sheets of workbooks, read with the place of every fault."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distilmos.data.schema import MOS_SCALE, Scale
from distilmos.data.tables import read_lines
from distilmos.data.workbook import read_sheet
from distilmos.errors import InputError

ROUNDING = 0.005  # largest error of a mean rounded to two decimals
REPEAT = "#"  # between a listener and the number of a repeated rating


@dataclass(frozen=True)
class Row:
    """One line of a list.

    Attributes:
        path: the file; for a workbook, FILE:SHEET.
        line: number of the line or row, from 1.
        values: column -> value, without surrounding white space.
    """

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
    line_breaks: bool = False,
) -> list[Row]:
    """Read a list; accept a byte order mark, CRLF and blank lines.

    Args:
        path: the file.
        columns: with a header, the required columns, in any order and with others between them; without a header, all
            columns in order.
        faults: receives one line of text for each malformed line, which is left out. A file that is missing or not
            UTF-8 and a header that lacks a column are faults too.
        header: whether the first line names the columns.
        delimiter: separator of the values; values may be quoted.
        may_be_empty: accept empty values; the caller then selects lines with `filled`.
        line_breaks: quoted values may contain line breaks, as comments of listeners do; `Row.line` is then the first
            line. Otherwise a stray quote costs its own line alone.

    Returns:
        the valid lines; none if the list cannot be read.
    """
    path = Path(path)
    try:
        lines = read_lines(path)
    except InputError as error:
        faults.append(str(error))
        return []
    values = (_records if line_breaks else _split)(path, lines, delimiter, faults)
    rows = _rows(path, values, columns, faults, header=header)
    return rows if may_be_empty else filled(rows, columns, faults)


def read_sheet_rows(
    workbook: str | Path, sheet: str, columns: Sequence[str], faults: list[str], *, may_be_empty: bool = False
) -> list[Row]:
    """Read a list from a sheet of a workbook, whose first row names the columns.

    Args:
        workbook: path of the .xlsx file.
        sheet: name of the sheet.
        columns: as for `read_rows` with a header.
        faults: as for `read_rows`.
        may_be_empty: as for `read_rows`.

    Returns:
        the valid rows, with the cells as text; none if the sheet cannot be read.
    """
    try:
        cells = read_sheet(workbook, sheet)
    except InputError as error:
        faults.append(str(error))
        return []
    texts = (
        (number, ["" if cell is None else str(cell).strip() for cell in row])
        for number, row in enumerate(cells, 1)
        if any(cell is not None for cell in row)
    )
    rows = _rows(Path(f"{workbook}:{sheet}"), texts, columns, faults, header=True)
    return rows if may_be_empty else filled(rows, columns, faults)


def _split(path: Path, lines: Iterable[str], delimiter: str, faults: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield number and values of each line that is not blank."""
    for number, line in enumerate(lines, start=1):
        if not line.strip() and delimiter not in line:
            continue
        try:
            # Line by line: a stray quote must not swallow the following lines.
            yield number, [value.strip() for value in next(csv.reader([line], delimiter=delimiter, strict=True), [])]
        except csv.Error as error:
            faults.append(f"{path}:{number}: not a line of values separated by {delimiter!r}: {error}")


def _records(path: Path, lines: Iterable[str], delimiter: str, faults: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield first line and values of each record that is not blank."""
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    start = 1
    try:
        for values in reader:
            if any(values):
                yield start, [value.strip() for value in values]
            start = reader.line_num + 1
    except csv.Error as error:
        faults.append(f"{path}:{start}: not values separated by {delimiter!r}: {error}")


def _rows(
    path: Path, lines: Iterable[tuple[int, list[str]]], columns: Sequence[str], faults: list[str], *, header: bool
) -> list[Row]:
    """Name the values of numbered lines; see `read_rows`."""
    names: list[str] = [] if header else list(columns)
    rows = []
    for number, values in lines:
        if not names:
            names = values
            if missing := [column for column in columns if column not in names]:
                faults.append(f"{path}:{number}: no column {', '.join(missing)} in the header {names}")
                return []
            if twice := [column for column in columns if names.count(column) > 1]:
                faults.append(f"{path}:{number}: the header has {', '.join(twice)} more than once")
                return []
        elif len(values) != len(names):
            wanted = f"{len(names)} ({', '.join(names)})"
            faults.append(f"{path}:{number}: {len(values)} values instead of {wanted}")
        else:
            rows.append(Row(path, number, dict(zip(names, values, strict=True))))
    if not names:
        faults.append(f"{path}: empty")
    return rows


def filled(rows: Iterable[Row], columns: Sequence[str], faults: list[str]) -> list[Row]:
    """Return the lines with a value in all `columns`; add a fault for each other line."""
    good = []
    for row in rows:
        if empty := [column for column in columns if not row[column]]:
            faults.append(f"{row.where}: no {', '.join(empty)}")
        else:
            good.append(row)
    return good


def score(row: Row, column: str, faults: list[str], *, whole: bool = False, scale: Scale = MOS_SCALE) -> float | None:
    """Return the score in a column; if it is not on `scale`, add a fault and return None.

    Args:
        row: a line of a list.
        column: name of the column.
        faults: receives the fault.
        whole: whether the score must be a whole number, like a single rating on the ACR scale.
        scale: the scale of the scores.
    """
    try:
        value = scale.score(row[column])
        if not whole or value == int(value):
            return value
    except InputError:
        pass
    kind = "whole number" if whole else "number"
    faults.append(f"{row.where}: {column} {row[column]!r} is not a {kind} in {scale.span}")
    return None


@dataclass
class RatedItem:
    """A recording with its single ratings from a list.

    Attributes:
        name: name of the recording in the list.
        system: system of the recording.
        row: first line with the recording.
        ratings: (listener, score) pairs in the order of the list.
    """

    name: str
    system: str
    row: Row
    ratings: list[tuple[str, float]] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Mean of the ratings; at least one must exist."""
        return sum(value for _, value in self.ratings) / len(self.ratings)


def compare_mean(row: Row, mos: float, item: RatedItem, differing: list[str]) -> None:
    """Add a line to `differing` if the listed mean differs from the mean of the item's ratings, if it has any."""
    if item.ratings and abs(item.mean - mos) > ROUNDING:
        differing.append(f"{row.where}: {item.name}: mean {mos}, but the mean of its ratings is {item.mean:.4f}")


@dataclass(frozen=True)
class RatingColumns:
    """Names of the columns of a rating list. Ids are strings; leading zeros count."""

    name: str
    system: str
    score: str
    listener: str


def number_repeats(rows: Iterable[Row], columns: RatingColumns, system: str | None = None) -> list[Row]:
    """Append a number to the listener in repeated ratings of a recording by the same listener, so that all count.

    Natural recordings may be on every page of a test, so that a listener of several pages rates them several times. The
    names LISTENER#2, LISTENER#3, ... are of one person: see `ratings.panel.people_of`.

    Args:
        rows: lines of a list with one rating per line.
        columns: names of the columns.
        system: number only the ratings of this system; None numbers those of all.
    """
    seen: Counter[tuple[str, str]] = Counter()
    result = []
    for row in rows:
        key = (row[columns.name], row[columns.listener])
        seen[key] += 1
        again = seen[key] > 1 and system in (None, row[columns.system])
        values = row.values | ({columns.listener: f"{key[1]}{REPEAT}{seen[key]}"} if again else {})
        result.append(Row(row.path, row.line, values))
    return result


def gather_ratings(
    rows: Iterable[Row], columns: RatingColumns, faults: list[str], repeated: list[str], scale: Scale = MOS_SCALE
) -> dict[str, RatedItem]:
    """Group the lines of a list with one rating per line by recording.

    Args:
        rows: lines of the list.
        columns: names of the columns.
        faults: receives each score that is not a whole number on `scale`, and each change of a recording's system.
        repeated: receives each further rating of a recording by the same listener; only the first one counts.
        scale: the scale of the ratings.

    Returns:
        name -> recording, in the order of the list. A recording without a valid rating is included.
    """
    items: dict[str, RatedItem] = {}
    seen: dict[tuple[str, str], int] = {}
    for row in rows:
        name, system, listener = row[columns.name], row[columns.system], row[columns.listener]
        item = items.setdefault(name, RatedItem(name, system, row))
        if system != item.system:
            faults.append(f"{row.where}: {name} is of system {system}, in line {item.row.line} of system {item.system}")
        first = seen.setdefault((name, listener), row.line)
        if first != row.line:
            repeated.append(
                f"{row.where}: {listener} has rated {name} in line {first} already; only the first rating counts"
            )
            continue
        value = score(row, columns.score, faults, whole=True, scale=scale)
        if value is not None:
            item.ratings.append((listener, value))
    return items
