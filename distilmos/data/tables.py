"""Kaldi-style text tables: `key value...` lines, UTF-8, sorted by key in the C locale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from distilmos.errors import InputError, raise_faults
from distilmos.files import write_text


def c_locale_key(key: str) -> bytes:
    """Return the sort key that orders strings as `LC_ALL=C sort` does."""
    return key.encode("utf-8")


def read_lines(path: str | Path) -> list[str]:
    """Return the lines of a UTF-8 text file without their ends; a byte order mark and CRLF are accepted.

    Raises:
        InputError: if the file is missing or is not UTF-8.
    """
    path = Path(path)
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a directory, not a file") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError.at(path, line, "not UTF-8 text") from None


def read_table(path: str | Path) -> dict[str, str]:
    """Read a table with one line for each key, in file order.

    Raises:
        InputError: naming each line without a value and each repeated key.
    """
    table: dict[str, str] = {}
    faults: list[str] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        key, _, value = line.strip().partition(" ")
        value = value.strip()
        if not value:
            faults.append(f"{path}:{number}: expected 'key value', found {line!r}")
        elif key in table:
            faults.append(f"{path}:{number}: {key} is already in line {first_line[key]}")
        else:
            table[key] = value
            first_line[key] = number
    raise_faults(faults, str(path))
    return table


def read_floats(path: str | Path) -> dict[str, float]:
    """Read a table of numbers, such as utt2mos or utt2dur.

    Raises:
        InputError: naming each line whose value is not a finite number.
    """
    numbers: dict[str, float] = {}
    faults: list[str] = []
    for line, (key, value) in enumerate(read_table(path).items(), start=1):
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if number - number != 0:  # true for NaN and the infinities alone
            faults.append(f"{path}:{line}: {key}: not a finite number: {value!r}")
        numbers[key] = number
    raise_faults(faults, str(path))
    return numbers


def write_table(path: str | Path, table: Mapping[str, str | float]) -> None:
    """Write a table sorted by key, atomically. Floats are written so that they read back exactly."""
    lines = [f"{key} {table[key]}\n" for key in sorted(table, key=c_locale_key)]
    write_text(path, "".join(lines))
