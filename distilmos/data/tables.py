"""Kaldi-style text tables: `key value...` lines, UTF-8, sorted by key in the C locale."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from distilmos.errors import InputError, raise_faults
from distilmos.files import write_text

# Kaldi's separators between key and value.
BLANKS = " \t"
SEPARATOR = re.compile(f"[{BLANKS}]+")

V = TypeVar("V")


def c_locale_key(key: str) -> bytes:
    """Return the sort key that orders strings as `LC_ALL=C sort` does."""
    return key.encode("utf-8", "surrogateescape")


def as_text(name: str) -> str:
    """Escape the bytes of a file name that are not UTF-8, so that it can be written as text."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def is_utf8(text: str) -> bool:
    """Return whether `text` is valid UTF-8; a file name may have other bytes (surrogates in Python)."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def read_lines(path: str | Path) -> list[str]:
    """Return the lines of a UTF-8 text file without line ends; accept a byte order mark and CRLF.

    Raises:
        InputError: if the file is missing or is not UTF-8.
    """
    path = Path(path)
    try:
        # Not splitlines(): it also splits at separators such as U+2028, which would give wrong line numbers.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
        return lines if lines[-1] else lines[:-1]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a directory, not a file") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError.at(path, line, "not UTF-8 text") from None


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: if the file is missing or is not JSON in UTF-8.
    """
    try:
        return json.loads("\n".join(read_lines(path)))
    except json.JSONDecodeError as error:
        raise InputError.at(path, error.lineno, f"not JSON: {error.msg}") from None


@dataclass(frozen=True)
class ScannedTable(Generic[V]):
    """A table with its faults, so that the caller can report them together with others.

    Attributes:
        path: the file.
        values: key -> converted value of all valid lines, in file order.
        lines: key -> line number, from 1; includes keys with a bad value.
        faults: one line of text for each bad line.
    """

    path: Path
    values: dict[str, V]
    lines: dict[str, int]
    faults: list[str]

    def where(self, key: str) -> str:
        """Return `file:line: key`, the start of a fault's line."""
        return f"{self.path}:{self.lines[key]}: {key}"

    def checked(self) -> dict[str, V]:
        """Return the values.

        Raises:
            InputError: naming all faults.
        """
        raise_faults(self.faults, str(self.path))
        return self.values


def scan_table(path: str | Path, convert: Callable[[str], V]) -> ScannedTable[V]:
    """Read a table with one line for each key.

    Args:
        path: the file.
        convert: converts the text after a key; raises InputError for a bad value.

    Raises:
        InputError: if the file is missing or is not UTF-8. Other faults are in the result.
    """
    table: ScannedTable[V] = ScannedTable(Path(path), {}, {}, [])
    for number, line in enumerate(read_lines(path), start=1):
        key, value = [*SEPARATOR.split(line.strip(BLANKS), maxsplit=1), ""][:2]
        if not value:
            table.faults.append(f"{path}:{number}: expected 'key value', found {line!r}")
            continue
        if key in table.lines:
            table.faults.append(f"{path}:{number}: {key} is already in line {table.lines[key]}")
            continue
        table.lines[key] = number
        try:
            table.values[key] = convert(value)
        except InputError as error:
            table.faults.append(f"{table.where(key)}: {error}")
    return table


def read_table(path: str | Path) -> dict[str, str]:
    """Read a table with one line for each key, in file order.

    Raises:
        InputError: naming each line without a value and each repeated key.
    """
    return scan_table(path, str).checked()


def finite_number(text: str) -> float:
    """Convert a number.

    Raises:
        InputError: if it is not a finite number.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"not a finite number: {text!r}")
    return number


def read_floats(path: str | Path) -> dict[str, float]:
    """Read a table of numbers, such as utt2mos or utt2dur.

    Raises:
        InputError: naming each line whose value is not a finite number.
    """
    return scan_table(path, finite_number).checked()


def write_table(path: str | Path, table: Mapping[str, str | float]) -> None:
    """Write a table sorted by key, atomically. Floats are written so that they read back exactly."""
    lines = [f"{key} {table[key]}\n" for key in sorted(table, key=c_locale_key)]
    write_text(path, "".join(lines))
